"""The README tells the truth: its commands run, its tables are those of the program."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from detseg.catalog import CATALOG
from detseg.checkpoints import zoo
from detseg.cli.exits import Exit
from detseg.cli.main import COMMANDS
from detseg.errors import WeightsError

REPOSITORY = Path(__file__).resolve().parents[2]
README = (REPOSITORY / "README.md").read_text("utf-8")
INSTALLATION = "pip install -e ."  # what is under test already
DRAW = ["data", "sample", "shapes/"]
# So small that it takes seconds; an option given twice counts as given last.
SMALL = {
    "data sample": "--images 10",
    "train": "--imgsz 64 --epochs 1 --batch 4 --workers 0 --backbone-weights none --mosaic 0 --device cpu",
    "eval": "--device cpu",
}


def command_lines() -> list[list[str]]:
    """Every line of every ```bash block, split as a shell does, comments left out."""
    blocks = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    return [words for block in blocks for line in block.splitlines() if (words := shlex.split(line, comments=True))]


def rows(header: str) -> list[list[str]]:
    """The cells of the table under `header`, marks removed."""
    table = README.split(header, 1)[1].lstrip("\n").split("\n\n", 1)[0]
    lines = [line.strip("| ").replace("`", "") for line in table.splitlines()[1:]]
    return [[cell.strip() for cell in line.split("|")] for line in lines]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the README's commands speak of: photographs, and the data set that it draws."""
    folder = tmp_path_factory.mktemp("readme")
    run_detseg(["samples", "photos"], folder)
    run_detseg(DRAW, folder)
    return folder


def run_detseg(words: list[str], folder: Path) -> None:
    extra = [word for prefix in SMALL if shlex.join(words).startswith(prefix) for word in shlex.split(SMALL[prefix])]
    command = [sys.executable, "-m", "detseg.cli.main", *words, *extra]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, f"detseg {shlex.join(words + extra)}\n{done.stdout}\n{done.stderr}"


def test_the_commands_run_in_the_order_of_the_page(workplace):
    lines = [words[1:] for words in command_lines() if words[0] == "detseg"]
    assert [words[0] for words in lines] == [
        *("detect", "detect", "data", "train", "eval", "export", "data", "segment", "train", "segment")
    ]
    lines.remove(DRAW)  # is done already
    for words in lines:
        if words[0] in ("detect", "segment") and "-w" not in words and not has_default_weights():
            continue
        run_detseg(words, workplace)
    assert (workplace / "runs" / "train" / "exp" / "weights" / "best.onnx").is_file()
    if not has_default_weights():
        pytest.skip("no default weights in this checkout: all commands but those that need them were run")
    seen = sorted(p.name for p in (workplace / "runs" / "detect" / "exp" / "images").glob("*.jpg"))
    assert seen == sorted(p.name for p in (workplace / "photos").iterdir())


def has_default_weights() -> bool:
    try:
        return all(zoo.default_weights(task).is_file() for task in ("detect", "segment"))
    except WeightsError:
        return False


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_the_make_targets_are_there():
    others = [words for words in command_lines() if words[0] != "detseg"]
    assert shlex.split(INSTALLATION) in others
    targets = [words for words in others if words[0] == "make"]
    assert [t[1] for t in targets] == ["demo", "test", "lint"]
    for words in targets:
        done = subprocess.run(
            [words[0], "--dry-run", "--always-make", *words[1:]],
            cwd=REPOSITORY, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert len(others) == len(targets) + 1, "a line that no test knows"


def test_the_table_of_commands():
    assert [name for name, _ in rows("| command | does |")] == [f"detseg {name}" for name in COMMANDS]


def test_the_table_of_exit_codes():
    assert [int(code) for code, _ in rows("| exit code | means |")] == [int(code) for code in Exit]


def test_the_table_of_models():
    told = {
        name: (paper, int(side), what) for name, paper, side, what in rows("| model | paper | frame | what it is |")
    }
    assert told == {e.name: (e.paper, e.imgsz, e.summary) for e in CATALOG.values()}


def test_links_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (REPOSITORY / link).exists()] == []
