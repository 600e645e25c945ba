"""constraints.txt pins every direct dependency of pyproject.toml, within its bounds, and names no address."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[2]


def declared() -> dict[str, Requirement]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    requirements = [Requirement(line) for line in [*project["dependencies"], *extras]]
    return {canonicalize_name(r.name): r for r in requirements if r.name != "detseg"}


def pinned() -> dict[str, str]:
    lines = (REPOSITORY / "constraints.txt").read_text("utf-8").splitlines()
    pins = [line.split("==", 1) for line in lines if line and not line.startswith("#")]
    return dict(pins)


def test_every_direct_dependency_is_pinned_once_within_its_bounds():
    requirements, pins = declared(), pinned()
    assert sorted(pins) == sorted(requirements)
    for name, version in pins.items():
        assert re.fullmatch(r"[\w.]+", version), f"{name}: not a plain version"
        assert requirements[name].specifier.contains(version), f"{name} {version} is outside pyproject.toml's bounds"
