"""The frame of the command line: exit codes, suggestions, spellings, failures in one line, a fast --help."""

from __future__ import annotations

import importlib
import subprocess
import sys
import types

import click
import pytest

from detseg.cli import main as frame
from detseg.cli import options
from detseg.cli.main import COMMANDS, main
from detseg.errors import DataError, DetsegError, ExportError, ImageError, WeightsError


@pytest.fixture
def runs(monkeypatch):
    """Makes the command `detect` do what a test wants."""

    def install(callback, *decorators):
        for decorate in decorators:
            callback = decorate(callback)
        module = types.ModuleType("detseg.cli.detect")
        module.command = click.command(cls=options.Command)(callback)
        monkeypatch.setitem(sys.modules, "detseg.cli.detect", module)

    return install


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DetsegError("a"), 1),
        (ImageError("x.jpg", "empty"), 1),
        (DataError("b"), 3),
        (WeightsError("c"), 4),
        (ExportError("d"), 5),
        (KeyboardInterrupt(), 130),
    ],
)
def test_each_failure_has_its_exit_code(runs, capsys, error, code):
    def command():
        raise error

    runs(command)
    assert main(["detect"]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.strip().splitlines() == [f"error: {error}" if code != 130 else "interrupted"]


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (6, 6)])
def test_a_command_returns_its_exit_code(runs, returned, code):
    runs(lambda: returned)
    assert main(["detect"]) == code


def test_a_defect_is_told_in_one_line_and_its_traceback_on_request(runs, capsys, monkeypatch):
    def command():
        raise KeyError("two\nlines")

    runs(command)
    monkeypatch.delenv("DETSEG_TRACEBACK", raising=False)
    assert main(["detect"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("error: KeyError")
    assert "defect of detseg" in lines[1]
    monkeypatch.setenv("DETSEG_TRACEBACK", "1")
    with pytest.raises(KeyError):
        main(["detect"])


def test_too_little_memory_is_no_defect(runs, capsys):
    def command():
        raise MemoryError

    runs(command)
    assert main(["detect"]) == 1
    assert "out of memory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["detct"], "'detect'"),
        (["predict"], "'detect'"),
        (["val"], "'eval'"),
        (["xyzzy"], "detseg --help"),
        (["detect", "--cnof", "1"], "--conf"),
        (["detect", "--conf-tres", "1"], "--conf"),
    ],
)
def test_a_typo_gets_a_suggestion(capsys, arguments, hint):
    assert main(arguments) == 2
    assert hint in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_listed_command_exists_and_says_the_same_of_itself(name):
    command = importlib.import_module(f"detseg.cli.{name}").command
    assert isinstance(command, click.Command)
    assert command.get_short_help_str(limit=200).rstrip(".") == COMMANDS[name].rstrip(".")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--conf", "0.3"], {"conf": 0.3}),
        (["--conf-thres=0.3"], {"conf": 0.3}),
        (["--conf_thres", "0.3"], {"conf": 0.3}),
        (["conf=0.3"], {"conf": 0.3}),
        (["conf_thres=0.3"], {"conf": 0.3}),
        (["exist_ok=True"], {"exist_ok": True}),
        (["exist_ok=False"], {"exist_ok": False}),
        (["cache=no"], {"cache": False}),
        (["imgsz=640"], {"imgsz": (640, 640)}),
        (["--img", "320x416"], {"imgsz": (320, 416)}),
        (["imgsz=[320, 416]"], {"imgsz": (320, 416)}),
        (["device=0"], {"device": "cuda:0"}),
        (["unknown=1"], {"sources": ("unknown=1",)}),
        (["--", "conf=0.3"], {"sources": ("conf=0.3",), "conf": 0.25}),
        (["--name", "conf=0.3"], {"name": "conf=0.3", "conf": 0.25}),
        (["--name=exist_ok=True"], {"name": "exist_ok=True", "exist_ok": False}),
    ],
)
def test_the_spellings_of_yolo_users(runs, words, expected):
    seen = {}
    runs(
        lambda **given: seen.update(given),
        click.argument("sources", nargs=-1),
        click.option("--cache/--no-cache", default=True),
        options.conf(),
        options.imgsz(),
        options.device(),
        options.run_folder("detect"),
    )
    assert main(["detect", *words]) == 0
    assert {key: seen[key] for key in expected} == expected


def test_a_file_with_an_equals_sign_in_its_name_is_a_file(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf=0.5").touch()
    seen = {}
    runs(lambda **given: seen.update(given), click.argument("sources", nargs=-1), options.conf())
    assert main(["detect", "conf=0.5"]) == 0
    assert seen == {"sources": ("conf=0.5",), "conf": 0.25}


@pytest.mark.parametrize("words", [["--conf", "1.5"], ["--imgsz", "0"], ["--device", "tpu"], ["exist_ok=maybe"]])
def test_nonsense_is_a_usage_error(runs, words):
    runs(lambda **given: None, options.conf(), options.imgsz(), options.device(), options.run_folder("detect"))
    assert main(["detect", *words]) == 2


def test_help_leaves_out_the_other_spellings(capsys):
    assert main(["detect", "--help"]) == 0
    text = capsys.readouterr().out
    assert "--conf " in text
    assert "  --conf-thres" not in text


def test_the_listing_imports_nothing_slow():
    code = (
        "import sys\nfrom detseg.cli.main import main\nassert main(['--help']) == 0\n"
        "print(sorted(set(sys.modules) & {'rich', 'numpy', 'cv2', 'torch', 'yaml', 'detseg.cli.detect'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_reader_that_leaves_early_is_no_failure_worth_a_word(tmp_path):
    code = (
        "import sys, click, types\nfrom detseg.cli.main import main\n"
        "m = types.ModuleType('m'); sys.modules['detseg.cli.detect'] = m\n"
        "def f():\n    for i in range(100000): click.echo('a line of some length')\n"
        "m.command = click.command()(f)\nsys.exit(main(['detect']))"
    )
    shell = f'{sys.executable} -c "$CODE" | head -n 1'
    done = subprocess.run(
        ["bash", "-c", shell], env={"CODE": code, "PATH": "/usr/bin:/bin"}, capture_output=True, text=True
    )
    assert done.stdout == "a line of some length\n"
    assert done.stderr == ""


def test_a_name_that_the_terminal_cannot_show_is_escaped(runs, capsys):
    def command():
        raise DataError("a\nb\udcff\x1b[31m.jpg: empty")

    runs(command)
    assert main(["detect"]) == 3
    assert capsys.readouterr().err == "error: a\\nb\\udcff\\x1b[31m.jpg: empty\n"


def test_no_command_is_listed_twice():
    assert not set(frame._OTHER_WORDS) & set(COMMANDS)
    assert set(frame._OTHER_WORDS.values()) <= set(COMMANDS)
