"""The rooms that speak numpy start without torch, and `--help` without nearly everything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
TORCH_FREE = [
    "errors.py",
    "files.py",
    "geometry/*.py",
    "results/*.py",
    "annotations/*.py",
    "images/*.py",
    "preprocess/*.py",
    "writers/*.py",
    "postprocess/*.py",
    "evaluation/*.py",
    "pipeline.py",
    "checkpoints/__init__.py",
    "checkpoints/card.py",
    "runtimes/__init__.py",
    "runtimes/onnx*.py",
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
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def dotted(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(p for p in parts if p != "__init__")


@pytest.mark.parametrize("pattern", TORCH_FREE)
def test_numpy_rooms_import_no_torch(pattern):
    names = [dotted(path) for path in sorted((REPOSITORY / "detseg").glob(pattern))]
    assert names, f"nothing matches {pattern}: mend the list"
    done = python(PROBE, ",".join(HEAVY), *names)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["data", "--help"], ["detect", "--help"]])
def test_help_needs_no_library_that_computes(arguments):
    done = python(COMMAND, ",".join(HEAVY | {"numpy", "cv2", "rich", "onnxruntime"}), *arguments)
    assert done.returncode == 0, done.stderr
    assert "detseg" in done.stdout


def test_the_probe_sees_what_is_brought_in():
    assert "argparse" in python(PROBE, "argparse", "argparse").stderr
