"""Importing detseg defines names and does nothing else: nothing printed, written, fetched or started."""

from __future__ import annotations

import os
import subprocess
import sys

# Runs in a process of its own; the audit hook sees what the interpreter is asked to do. torch and its kin run
# ldconfig and make a folder for a compiler when they are imported; that is theirs, so it happens before.
PROBE = """
import importlib, os, pkgutil, sys
import torch, torchvision, lightning_fabric

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
LOUD = ("socket.connect", "socket.getaddrinfo", "socket.bind", "urllib.Request", "subprocess.Popen",
        "os.system", "os.posix_spawn", "os.fork", "os.mkdir", "os.rename", "os.remove")
found = []

def watch(event, args):
    writes = event == "open" and isinstance(args[2], int) and args[2] & WRITING and args[0] != os.devnull
    if event in LOUD or writes:
        found.append((importing[-1], event, str(args)[:200]))

importing = []
sys.addaudithook(watch)
for package in ("detseg", "detseg.cli"):
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        importing.append(module.name)
        importlib.import_module(module.name)
assert len(importing) > 20, importing
assert not found, found
"""


def test_importing_every_module_prints_writes_and_fetches_nothing(tmp_path):
    environment = dict(os.environ, HOME=str(tmp_path), PYTHONDONTWRITEBYTECODE="1")
    for name in ("MPLCONFIGDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "NO_ALBUMENTATIONS_UPDATE"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", PROBE],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == ("", "")
    assert list(tmp_path.rglob("*")) == []
