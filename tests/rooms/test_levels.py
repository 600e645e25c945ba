"""A room imports only from lower levels, or from itself. Read from the source: lazy imports count too."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

BESIDE = {("files", "errors")}  # the one look sideways: what goes wrong with a file is said in errors' words


def levels() -> dict[str, int]:
    """Room -> level, from the table of the README: `| level | room | holds |`."""
    rows = re.findall(r"^\| (\d+) \| `(\w+)`", (REPOSITORY / "README.md").read_text("utf-8"), re.MULTILINE)
    return {room: int(level) for level, room in rows}


LEVEL_OF = levels()


class Module(NamedTuple):
    """A source file, its dotted name, and its room: the part of the name after `detseg`."""

    path: Path
    name: str

    @property
    def room(self) -> str:
        return room_of(self.name)


def room_of(dotted: str) -> str:
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 else ""


def modules() -> list[Module]:
    """Every module of the package; `cli/` lies at the top level and is installed as `detseg.cli`."""
    found = []
    for folder, package in ((REPOSITORY / "detseg", "detseg"), (REPOSITORY / "cli", "detseg.cli")):
        for path in sorted(folder.rglob("*.py")):
            inside = path.relative_to(folder).with_suffix("").parts
            found.append(Module(path, ".".join((package, *[p for p in inside if p != "__init__"]))))
    return found


def imports(source: str, name: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything of detseg that a module imports, wherever the import stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = name.split(".")[: len(name.split(".")) - node.level + is_package]
                base = ".".join([*up, *([node.module] if node.module else [])])
            found = [f"{base}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found = [node.value] if is_dotted_name(node.value) else []  # importlib.import_module("detseg.x")
        else:
            continue
        yield from ((node.lineno, dotted) for dotted in found if dotted.split(".")[0] == "detseg")


def is_dotted_name(text: str) -> bool:
    return text.startswith("detseg.") and all(part.isidentifier() for part in text.split("."))


def may_import(room: str, other: str) -> bool:
    if other in ("", "__version__") or other == room or (room, other) in BESIDE:
        return True
    return room != "" and LEVEL_OF[other] < LEVEL_OF[room]  # the package itself imports nothing


ALL = modules()


def test_every_room_has_a_level():
    rooms = {m.room for m in ALL} - {""}
    assert rooms == LEVEL_OF.keys(), "the rooms of README's table are not those of the source"


@pytest.mark.parametrize("module", ALL, ids=lambda m: m.name)
def test_imports_point_downwards(module):
    source = module.path.read_text("utf-8")
    upwards = [
        f"{module.path.relative_to(REPOSITORY)}:{line} imports {dotted}"
        for line, dotted in imports(source, module.name, module.path.name == "__init__.py")
        if not may_import(module.room, room_of(dotted))
    ]
    assert not upwards, "\n".join(upwards)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import detseg.cli.main", "detseg.cli.main"),
        ("from detseg import training", "detseg.training"),
        ("from detseg.cli import exits", "detseg.cli.exits"),
        ("from ..training import loop", "detseg.training.loop"),
        ("from .. import pipeline", "detseg.pipeline"),
        ("from . import nms", "detseg.geometry.nms"),
        ("def f():\n    from detseg.training import fit", "detseg.training.fit"),
        ("import importlib\nimportlib.import_module('detseg.training.loop')", "detseg.training.loop"),
    ],
)
def test_the_reader_of_imports_sees_every_form(source, found):
    assert [dotted for _, dotted in imports(source, "detseg.geometry.boxes", False)] == [found]
    relative = [dotted for _, dotted in imports("from .boxes import iou", "detseg.geometry", True)]
    assert relative == ["detseg.geometry.boxes.iou"]


def test_the_rule_itself():
    assert may_import("runtimes", "detectors")
    assert may_import("cli", "training")
    assert not may_import("detectors", "postprocess")  # same level
    assert not may_import("training", "evaluation")
    assert not may_import("geometry", "results")
    assert not may_import("pipeline", "cli")
