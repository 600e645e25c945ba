"""The rooms that speak numpy start without torch, and `--help` without nearly everything."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
# The rooms marked T in README, and of the others the doors that must not bring torch with them.
ROOMS = re.findall(r"^\| \d+ \| `(\w+)` \*\*T\*\*", (REPOSITORY / "README.md").read_text("utf-8"), re.MULTILINE)
DOORS = [
    "checkpoints/__init__.py",
    "checkpoints/card.py",
    "checkpoints/zoo.py",
    "runtimes/__init__.py",
    "runtimes/onnx_runtime.py",
]
HEAVY = {"torch", "torchvision", "albumentations", "sklearn", "matplotlib", "lightning_fabric", "timm"}

# Imports one module after the other and names the first that brings in what it should not.
PROBE = """
import importlib, sys
heavy = set(sys.argv[1].split(","))
for name in sys.argv[2:]:
    importlib.import_module(name)
    brought = heavy & set(sys.modules)
    assert not brought, f"{name} imports {sorted(brought)}"
"""

COMMAND = """
import sys
from detseg.cli.main import main
heavy = set(sys.argv.pop(1).split(","))
assert main() == 0
brought = heavy & set(sys.modules)
assert not brought, f"brought in {sorted(brought)}"
"""


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def dotted(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(p for p in parts if p != "__init__")


@pytest.mark.parametrize("place", [*ROOMS, *DOORS])
def test_what_is_torch_free_imports_no_torch(place):
    path = REPOSITORY / "detseg" / place
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path if path.suffix else path.with_suffix(".py")]
    done = python(PROBE, ",".join(HEAVY), *[dotted(file) for file in files])
    assert done.returncode == 0, done.stderr


def test_the_rooms_are_found():
    assert {"geometry", "errors", "pipeline", "evaluation"} <= set(ROOMS)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["data", "--help"], ["detect", "--help"]])
def test_help_needs_no_library_that_computes(arguments):
    done = python(COMMAND, ",".join(HEAVY | {"numpy", "cv2", "rich", "onnxruntime"}), *arguments)
    assert done.returncode == 0, done.stderr
    assert "detseg" in done.stdout


def test_the_probe_sees_what_is_brought_in():
    assert "argparse" in python(PROBE, "argparse", "argparse").stderr
