"""Memory that is kept. Oracle: the kernel's count of pages that had to be fetched."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
from detseg.runtimes.allocator import keep_memory
kept = keep_memory() if sys.argv[1] == "kept" else None
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(64 << 18)  # 64 MB, freed at once
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def told(how: str, **environment: str) -> tuple[str, int]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUN"))}
    command = [sys.executable, "-c", PROGRAM, how]
    output = subprocess.run(command, env={**plain, **environment}, check=True, capture_output=True, text=True).stdout
    kept, faults = output.split()
    return kept, int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_large_blocks_are_reused():
    _, usual = told("usual")
    kept, faults = told("kept")
    assert kept == "True"
    assert faults < usual / 2


def test_an_environment_that_says_how_is_left_alone():
    kept, _ = told("kept", MALLOC_TRIM_THRESHOLD_="131072")
    assert kept == "False"
