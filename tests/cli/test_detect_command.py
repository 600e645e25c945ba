"""`detseg detect` as a user meets it, on a real ONNX model whose answer is known (tests/colour_model.py)."""

from __future__ import annotations

import csv
import errno
import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import cv2
import numpy as np
import pytest

from detseg import files, writers
from detseg.cli.detect import FORMATS
from detseg.cli.journal import FILE_NAME as JOURNAL
from detseg.cli.main import main

TESTS = Path(__file__).resolve().parents[1]
DETSEG = [sys.executable, "-m", "detseg.cli.main"]
RED_BOX, GREEN_BOX = (20, 30, 80, 90), (100, 10, 180, 110)


def load(name: str):
    spec = spec_from_file_location(name, TESTS / f"{name}.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bad_inputs, colour_model = load("bad_inputs"), load("colour_model")


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> str:
    return str(colour_model.write_colour_model(tmp_path_factory.mktemp("weights") / "colours.onnx"))


def draw(path: Path, *, red: bool = True, green: bool = False, hw: tuple[int, int] = (160, 192)) -> Path:
    image = np.full((*hw, 3), 128, np.uint8)
    for wanted, colour, (x1, y1, x2, y2) in ((red, (255, 0, 0), RED_BOX), (green, (0, 255, 0), GREEN_BOX)):
        if wanted:
            image[y1:y2, x1:x2] = colour
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1])
    return path


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """Five pictures, the current folder beside them: red, both, nothing, green in a folder, both in it."""
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "photos" / "1.png")
    draw(tmp_path / "photos" / "2.png", green=True)
    draw(tmp_path / "photos" / "3.png", red=False)
    draw(tmp_path / "photos" / "sub" / "1.png", red=False, green=True)
    draw(tmp_path / "photos" / "sub" / "2.png", green=True)
    return tmp_path / "photos"


FOUND = [
    ("1.png", "red", RED_BOX),
    ("2.png", "red", RED_BOX),
    ("2.png", "green", GREEN_BOX),
    ("sub/1.png", "green", GREEN_BOX),
    ("sub/2.png", "red", RED_BOX),
    ("sub/2.png", "green", GREEN_BOX),
]


def rows(folder: Path) -> list[tuple[str, str, tuple[int, ...]]]:
    """predictions.csv as (file, class, box in whole pixels)."""
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as lines:
        return [
            (r["file"], r["name"], tuple(round(float(r[k])) for k in ("x1", "y1", "x2", "y2")))
            for r in csv.DictReader(lines)
        ]


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below, but the journal, and its content."""
    found = (p for p in folder.rglob("*") if p.is_file() and p.name != JOURNAL)
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found}


def test_boxes_and_pictures_without_any_flag_but_the_weights(photos, weights, capsys):
    assert main(["detect", "photos", "-w", weights]) == 0
    out = Path("runs/detect/exp")
    assert rows(out) == FOUND
    assert set(tree(out)) == {"predictions.csv"} | {
        f"images/{name}" for name in ("1.png", "2.png", "3.png", "sub/1.png", "sub/2.png")
    }
    said = capsys.readouterr()
    table = [line.split() for line in said.out.splitlines()]
    assert table[0] == ["picture", "class", "score", "x1", "y1", "x2", "y2"]
    assert ["sub/1.png", "green", "0.90", *map(str, GREEN_BOX)] in table
    assert ["3.png", "-"] in table
    assert "6 objects in 4 of 5 pictures" in said.err
    assert str(out) in said.err
    assert main(["detect", "photos", "-w", weights, "-q"]) == 0
    assert Path("runs/detect/exp2/predictions.csv").exists()


def test_every_format_agrees(photos, weights):
    formats = [name for name in FORMATS if name != "yolo-seg"]  # its files have the names of yolo's
    assert main(["detect", "photos", "-w", weights, "-o", "out", "--save", ",".join(formats)]) == 0
    out = Path("out")
    coco = json.loads((out / "predictions.json").read_text())
    names = {i["id"]: i["file_name"] for i in json.loads((out / "images.json").read_text())["images"]}
    assert len(names) == 5
    ids = dict(zip(colour_model.IDS, colour_model.NAMES, strict=True))
    from_coco = [
        (names[r["image_id"]], ids[r["category_id"]], (x, y, x + w, y + h))
        for r in coco
        for x, y, w, h in [[round(v) for v in r["bbox"]]]
    ]
    assert from_coco == rows(out) == FOUND
    lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert [len(line["objects"]) for line in lines] == [1, 2, 0, 1, 2]
    assert len(list((out / "crops").glob("*/**/*.*"))) == 6
    assert tuple(FORMATS) == tuple(writers.FORMATS)


def test_the_formats_yolo_users_ask_for(photos, weights):
    source = ["detect", "-w", weights, "--source", "photos", "--project", "p", "--name", "n"]
    assert main([*source, "--nosave", "--save-txt", "--save-conf"]) == 0
    assert set(tree(Path("p/n"))) >= {"labels/1.txt", "predictions.csv"}
    assert not Path("p/n/images").exists()
    assert Path("p/n/labels/1.txt").read_text().split()[-1].startswith("0.9")
    assert main([*source, "exist_ok=True", "conf=0.95"]) == 0
    assert rows(Path("p/n")) == []
    assert not Path("p/n2").exists()


@pytest.mark.parametrize(("words", "kept"), [(["red"], {"red"}), (["1"], {"green"}), (["red,green"], {"red", "green"})])
def test_only_some_classes(photos, weights, words, kept):
    assert main(["detect", "photos", "-w", weights, "-o", "out", "--classes", *words]) == 0
    assert rows(Path("out")) == [row for row in FOUND if row[1] in kept]


def test_nonsense_stops_before_anything_is_written(photos, weights, capsys):
    for arguments, code, word in [
        (["photos", "--classes", "rad"], 2, "did you mean 'red'"),
        (["photos", "--classes", "2"], 2, "red, green"),
        (["photos", "--save", "cocoo"], 2, "coco"),
        (["photos", "--imgsz", "320"], 2, "160x192"),
        ([], 2, "SOURCE"),
        (["phtos"], 1, "photos"),
        (["photos", "-w", "nowhere.onnx"], 4, "nowhere.onnx"),
        (["photos", "-w", "photos/1.png"], 4, "1.png"),
        (["photos", "--runtime", "torch"], 4, "torch"),
    ]:
        assert main(["detect", "-w", weights, "-o", "out", *arguments]) == code, arguments
        said = capsys.readouterr()
        assert word in said.err
        assert "defect" not in said.err
        assert said.out == ""
        assert not Path("out").exists()


def test_a_folder_without_pictures_is_bad_data(tmp_path, weights, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    assert main(["detect", "empty", "-w", weights]) == 3
    assert "no pictures found in empty" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_nothing_is_overwritten(photos, weights, capsys):
    before = tree(photos)
    assert main(["detect", "photos", "-w", weights, "-o", "photos"]) == 1
    assert main(["detect", "photos", "-w", weights, "-o", "photos", "--exist-ok"]) == 1
    assert main(["detect", "photos/sub", "-w", weights, "-o", "photos", "--exist-ok"]) == 1
    assert tree(photos) == before
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("do not lose")
    assert main(["detect", "photos", "-w", weights, "-o", "mine"]) == 1
    assert "not empty" in capsys.readouterr().err
    assert main(["detect", "photos", "-w", weights, "-o", "mine", "--resume"]) == 1
    assert set(tree(Path("mine"))) == {"thesis.txt"}
    assert main(["detect", "photos", "-w", weights, "-o", "mine", "--exist-ok"]) == 0
    assert Path("mine/thesis.txt").read_text() == "do not lose"


def test_a_run_never_reads_its_own_results(photos, weights, capsys):
    for _ in range(2):
        assert main(["detect", ".", "-w", weights, "-o", "photos/out", "--exist-ok"]) == 0
        assert "of 5 pictures" in capsys.readouterr().err


def test_dry_run_names_the_pictures_and_writes_nothing(photos, weights, capsys):
    assert main(["detect", "photos", "-w", weights, "--dry-run", "--limit", "4"]) == 0
    said = capsys.readouterr()
    names = ("1.png", "2.png", "3.png", "sub/1.png")
    assert said.out.splitlines() == [f"photos/{name}" for name in names]
    assert "4 pictures" in said.err
    assert "runs/detect/exp" in said.err
    assert not Path("runs").exists()


def test_json_lines_on_stdout(photos, weights, capsys):
    (photos / "broken.jpg").write_bytes(b"text, no picture")
    assert main(["detect", "photos", "-w", weights, "--json", "-q"]) == 6
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["file"] for line in lines][:2] == ["1.png", "2.png"]
    assert lines[0]["objects"] == [
        {"label": 0, "category_id": 7, "name": "red", "score": 0.9, "box": [float(v) for v in RED_BOX]}
    ]
    (broken,) = [line for line in lines if "error" in line]
    assert broken["file"] == "broken.jpg"
    assert "text" in broken["error"]


def test_many_pictures_give_a_line_per_class(tmp_path, weights, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for i in range(25):
        draw(tmp_path / "many" / f"{i}.png", green=i < 5)
    assert main(["detect", "many", "-w", weights, "--save", "csv", "--batch", "4"]) == 0
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert table[2:] == [["red", "25", "25", "0.90"], ["green", "5", "5", "0.90"]]


def test_pictures_named_on_standard_input(photos, weights):
    done = subprocess.run(
        [*DETSEG, "detect", "-", "-w", weights, "-o", "out", "-q"], input="photos/2.png\n", text=True, check=True,
        capture_output=True,
    )  # fmt: skip
    assert [row[1:] for row in rows(Path("out"))] == [("red", RED_BOX), ("green", GREEN_BOX)]
    assert done.stderr == ""


def test_good_pictures_are_done_and_bad_ones_named(tmp_path, weights, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    expected = bad_inputs.make_bad_inputs(tmp_path / "in")
    before = tree(tmp_path / "in" / "names") | tree(tmp_path / "in" / "twins")
    formats = "image,coco,yolo,voc,csv,jsonl"
    assert main(["detect", "in", "-w", weights, "-o", "out", "--save", formats]) == 6
    good = {name for name, cause in expected.items() if cause == bad_inputs.GOOD}
    lines = [json.loads(line) for line in Path("out/predictions.jsonl").read_text().splitlines()]
    assert {line["file"] for line in lines} == good
    assert len(lines) == len(good)
    for folder in ("images", "labels"):
        assert len([p for p in Path("out", folder).rglob("*") if p.is_file()]) == len(good), folder
    with Path("out/failures.csv").open(encoding="utf-8", newline="") as failures:
        causes = {row["file"]: row["cause"] for row in csv.DictReader(failures)}
    assert set(causes) == set(expected) - good
    for name, cause in causes.items():
        assert expected[name] in cause
    said = capsys.readouterr().err
    assert f"{len(causes)} pictures could not be done" in said
    assert "empty.jpg: the file is empty" in said
    assert "defect" not in said
    assert tree(tmp_path / "in" / "names") | tree(tmp_path / "in" / "twins") == before


def test_when_everything_fails_it_still_ends_well(tmp_path, weights, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    for i in range(12):
        Path(f"in/{i}.jpg").write_bytes(b"")
    assert main(["detect", "in", "-w", weights, "-o", "out"]) == 6
    assert len(Path("out/failures.csv").read_text().splitlines()) == 13
    assert rows(Path("out")) == []


def break_after(monkeypatch, number: int, error: BaseException) -> None:
    """The journal notes `number` pictures, then `error` comes."""
    from detseg.cli.journal import Journal

    add, done = Journal.add, []

    def limited(self, picture, found):
        if len(done) == number:
            raise error
        done.append(picture)
        add(self, picture, found)

    monkeypatch.setattr(Journal, "add", limited)


def test_an_interrupted_run_keeps_what_it_has_and_goes_on(photos, weights, monkeypatch, capsys):
    everything = ["--save", "image,coco,yolo,csv,jsonl"]
    assert main(["detect", "photos", "-w", weights, "-o", "whole", *everything]) == 0
    command = ["detect", "photos", "-w", weights, "-o", "out", *everything]
    with monkeypatch.context() as patched:
        break_after(patched, 2, KeyboardInterrupt())
        assert main(command) == 130
    assert "--resume" in capsys.readouterr().err
    assert {row[0] for row in rows(Path("out"))} >= {"1.png", "2.png"}
    first = Path("out/images/1.png").stat().st_mtime_ns
    assert main([*command, "--resume"]) == 0
    assert Path("out/images/1.png").stat().st_mtime_ns == first  # not done again
    assert tree(Path("out")) == tree(Path("whole"))
    assert main([*command, "--resume", "--conf", "0.5"]) == 1
    assert "conf was 0.25, now 0.5" in capsys.readouterr().err


def test_resume_takes_up_new_pictures_and_tries_bad_ones_again(photos, weights):
    (photos / "broken.png").write_bytes(b"")
    command = ["detect", "photos", "-w", weights, "--resume"]
    assert main(command) == 6
    draw(photos / "broken.png", green=True)
    draw(photos / "0.png")
    assert main(command) == 0
    out = Path("runs/detect/exp")
    assert {row[0] for row in rows(out)} == {row[0] for row in FOUND} | {"0.png", "broken.png"}
    assert not (out / "failures.csv").exists()
    assert not Path("runs/detect/exp2").exists()


def test_killed_at_any_moment_and_resumed_gives_the_same(tmp_path, weights, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i in range(150):
        draw(tmp_path / "in" / f"{i:03d}.png", red=i % 3 > 0, green=i % 2 > 0)
    arguments = ["detect", "in", "-w", weights, "--save", "yolo,csv", "--workers", "2"]
    assert main([*arguments, "-o", "whole"]) == 0
    child = subprocess.Popen([*DETSEG, *arguments, "-o", "out"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    journal = Path("out", JOURNAL)
    deadline = time.monotonic() + 60
    while not (journal.exists() and journal.read_bytes().count(b"\n") > 5):
        assert time.monotonic() < deadline
        assert child.poll() is None
        time.sleep(0.002)
    child.kill()
    child.wait()
    finished = journal.read_bytes().count(b"\n") - 1
    assert not any(p.name.startswith(".part") for p in Path("out/labels").glob("*")) or finished
    assert main([*arguments, "-o", "out", "--resume"]) == 0
    left = {name: content for name, content in tree(Path("out")).items() if "/.part-" not in f"/{name}"}
    assert left == tree(Path("whole"))


def test_control_c_ends_with_130_and_whole_files(tmp_path, weights, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i in range(400):
        draw(tmp_path / "in" / f"{i:03d}.png")
    child = subprocess.Popen(
        [*DETSEG, "detect", "in", "-w", weights, "-o", "out"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        # a suite that runs in the background of a shell has SIGINT ignored, and its children would inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not (Path("out", JOURNAL).exists() and Path("out", JOURNAL).stat().st_size > 1000):
        assert child.poll() is None
        time.sleep(0.002)
    child.send_signal(signal.SIGINT)
    assert child.wait(30) == 130
    said = child.stderr.read()
    assert "Traceback" not in said
    assert "--resume" in said
    finished = Path("out", JOURNAL).read_bytes().count(b"\n") - 1
    assert 0 < finished < 400
    assert len(rows(Path("out"))) >= finished
    assert not list(Path("out").rglob(".part-*"))
    for path in Path("out/images").iterdir():
        assert cv2.imread(str(path)).shape == (160, 192, 3)


def test_a_full_disk_is_an_error_without_half_written_files(photos, weights, monkeypatch, capsys):
    whole, written = files.os.replace, []

    def full(source, target):
        if len(written) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(target)
        whole(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(files.os, "replace", full)
        assert main(["detect", "photos", "-w", weights, "-o", "out"]) == 1
    said = capsys.readouterr().err
    assert "the disk is full" in said
    assert "defect" not in said
    assert not list(Path("out").rglob(".part-*"))
    assert main(["detect", "photos", "-w", weights, "-o", "out", "--resume"]) == 0
    assert rows(Path("out")) == FOUND


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting needs root")
def test_a_disk_that_is_really_full(tmp_path, weights, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    Path("in").mkdir()
    for i in range(40):  # noise, so that each result has about 60 kB
        cv2.imwrite(f"in/{i:02d}.png", rng.integers(0, 256, (140, 150, 3), np.uint8))
    Path("small").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", "small"], capture_output=True).returncode:
        pytest.skip("this system lets nobody mount")
    try:
        done = subprocess.run(
            [*DETSEG, "detect", "in", "-w", weights, "-o", "small/out"], capture_output=True, text=True
        )
        left = [p for p in Path("small/out").rglob("*") if p.is_file()]
        pictures = [p for p in left if p.parent.name == "images"]
        assert done.returncode == 1, done.stderr
        assert "full" in done.stderr or "No space left" in done.stderr
        assert "Traceback" not in done.stderr
        assert pictures
        assert not [p for p in left if p.name.startswith(".part-")]
        for path in pictures:
            assert cv2.imread(str(path)).shape == (140, 150, 3)
    finally:
        subprocess.run(["umount", "small"], check=True)


def test_a_name_too_long_for_results_fails_alone(photos, weights, monkeypatch):
    from detseg.writers import Writers

    write = Writers.write_files

    def refuse(self, file, image, found):
        if file.name.name == "2.png" and len(file.name.parts) == 1:
            with files.replacing(Path("out", "n" * 300 + ".png")) as temporary:
                temporary.write_bytes(b"x")
        write(self, file, image, found)

    monkeypatch.setattr(Writers, "write_files", refuse)
    assert main(["detect", "photos", "-w", weights, "-o", "out"]) == 6
    assert "too long" in Path("out/failures.csv").read_text()
    assert rows(Path("out")) == [row for row in FOUND if row[0] != "2.png"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not tell the peak size")
def test_memory_is_flat_however_long_the_folder(tmp_path, weights, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = draw(tmp_path / "in" / "000.jpg", hw=(1500, 2000))
    for i in range(1, 60):
        os.link(first, tmp_path / "in" / f"{i:03d}.jpg")
    # VmHWM, since the peak in rusage begins at the size of the process that started this one
    code = (
        "import sys\nfrom detseg.cli.main import main\nassert main(sys.argv[1:]) == 0\n"
        "print([int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM')][0] / 1024)"
    )
    peaks = []
    for count in (20, 60):  # 40 more pictures are 360 MB of pixels; ten are under way at most
        arguments = ["detect", "in", "-w", weights, "-o", f"out{count}", "--limit", str(count), "--workers", "2"]
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments, "--save", "crops", "--json"],
            check=True,
            capture_output=True,
            text=True,
        )
        peaks.append(float(done.stdout.splitlines()[-1]))
    assert peaks[1] < peaks[0] + 100


def test_it_starts_without_torch(photos, weights):
    code = (
        "import sys\nfrom detseg.cli.main import main\n"
        "assert main(sys.argv[1:]) == 0\nassert not {'torch', 'rich', 'sklearn', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, "detect", "photos", "-w", weights], check=True, capture_output=True)
