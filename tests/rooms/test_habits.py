"""Small rules of the house: names that refuse something, a library that does not speak to people."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
LIBRARY = sorted((REPOSITORY / "detseg").rglob("*.py"))
SHAPELESS = {"utils", "util", "helpers", "helper", "common", "misc", "core"}  # names that refuse nothing
SPEAKING = {"argparse", "click", "rich", "optparse"}  # what only the command line may use
# In pieces, so that this file passes its own test.
REGISTRY_HOSTS = ["pypi" + ".org", "python" + "hosted.org", "anaconda" + ".org", "pytorch.org/" + "whl"]


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout: what belongs to the project cannot be told from what lies about")
    paths = [REPOSITORY / name for name in listed.stdout.split("\0") if name]
    return [p for p in paths if p.is_file() and b"\0" not in p.read_bytes()[:8192]]


def said_aloud(tree: ast.AST) -> list[int]:
    """Lines where a module prints, writes to the standard streams, or ends the process."""
    lines = []
    for node in ast.walk(tree):
        calls_print = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        uses_stream = isinstance(node, ast.Attribute) and node.attr in ("stdout", "stderr", "argv", "exit")
        if calls_print or (uses_stream and isinstance(node.value, ast.Name) and node.value.id == "sys"):
            lines.append(node.lineno)
    return sorted(lines)


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_the_library_does_not_print_nor_read_the_command_line(path):
    tree = ast.parse(path.read_text("utf-8"))
    assert said_aloud(tree) == []
    imported = {alias.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
    imported |= {(n.module or "").split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert not imported & SPEAKING


def test_no_name_that_refuses_nothing():
    parts = {p: {*p.relative_to(REPOSITORY).with_suffix("").parts} for p in tracked() if p.suffix == ".py"}
    assert [str(p) for p, names in parts.items() if names & SHAPELESS] == []


def test_no_registry_is_named():
    named = [
        f"{path.relative_to(REPOSITORY)}: {host}"
        for path in tracked()
        for host in REGISTRY_HOSTS
        if host in path.read_text("utf-8", "replace")
    ]
    assert named == []


def test_what_counts_as_speaking():
    assert said_aloud(ast.parse("import sys\nprint(1)\nsys.stdout.write('x')\nsys.exit(1)")) == [2, 3, 4]
    assert said_aloud(ast.parse("file.stdout\npprint(1)\n'print(1)'")) == []
