"""`detseg data show`: the page holds what it shows and loads nothing; names from outside stay text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from detseg.annotations.sample import write_sample
from detseg.cli.data import command
from detseg.errors import DataError

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def run(*args: object) -> Result:
    return CliRunner().invoke(command, [str(arg) for arg in args])


class Elements(HTMLParser):
    """All elements of a page with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of a set with a hostile class name, an outline, a crowd region."""
    folder = tmp_path_factory.mktemp("show")
    data = write_sample(folder / "data", images=20, seed=1)
    file = data / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    content["categories"][0]["name"] = "</script><script>alert(1)</script>"
    thing = content["annotations"][0]
    thing["segmentation"] = [[10, 10, 60, 10, 60, 60]]
    content["annotations"][-1]["iscrowd"] = 1
    file.write_text(json.dumps(content))
    result = run("show", file, "--out", folder / "out", "--count", 16)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [str(folder / "out" / "truth.html"), str(folder / "out" / "truth.jpg")]
    return folder / "out"


def test_the_page_is_one_file_and_escapes_what_it_names(shown: Path) -> None:
    text = (shown / "truth.html").read_text()
    page = Elements(text)
    assert len(page.of("figure")) == 16
    assert len(page.of("script")) == 1
    assert not [a for _, a in page.found if a.get("src") or (a.get("href") or "data:")[:5] not in ("data:",)]
    assert not [key for _, a in page.found for key in a if key.startswith("on") or key == "style"]
    policy = next(a["content"] for a in page.of("meta") if a.get("http-equiv"))
    script = text.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy is not None
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_every_object_is_drawn_once_and_ignored_ones_are_dashed(shown: Path) -> None:
    page = Elements((shown / "truth.html").read_text())
    content = json.loads((shown.parent / "data" / "annotations" / "instances_train.json").read_text())
    things = [a for a in page.of("g") if "thing" in (a.get("class") or "")]
    assert len(things) == len(content["annotations"])
    assert len([a for a in things if "ignored" in (a.get("class") or "")]) == 1
    outlined = [a for a in content["annotations"] if a.get("segmentation")]
    assert len([a for a in page.of("path") if a.get("class") == "fill"]) == len(outlined) > 0
    sheet = np.asarray(Image.open(shown / "truth.jpg"))
    assert sheet.ndim == 3
    assert sheet.shape[1] > sheet.shape[0]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_its_script_runs_in_a_browser(shown: Path, tmp_path: Path) -> None:
    assert CHROMIUM is not None
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         f"--user-data-dir={tmp_path}", "--dump-dom", (shown / "truth.html").as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    classes = [a for a in Elements(done.stdout).of("li") if a.get("role") == "button"]
    assert len(classes) == 3
    assert not re.search(r'class="switches"[^>]*hidden', done.stdout)


def test_one_class_alone_and_the_same_for_the_same_seed(tmp_path: Path) -> None:
    data = write_sample(tmp_path / "data", images=30)
    args = ["show", data, "--class", "Circle", "--count", 5, "--json", "-q"]
    told = [json.loads(run(*args, "--out", tmp_path / name).stdout)["pictures"] for name in ("a", "b")]
    assert told[0] == told[1]
    content = json.loads((data / "annotations" / "instances_train.json").read_text())
    val = json.loads((data / "annotations" / "instances_val.json").read_text())
    with_circle = {
        picture["file_name"]
        for part in (content, val)
        for picture in part["images"]
        if any(a["image_id"] == picture["id"] and a["category_id"] == 1 for a in part["annotations"])
    }
    assert len(told[0]) == 5
    assert {Path(name).name for name in told[0]} <= with_circle
    mistyped = run("show", data, "--class", "cirle", "--out", tmp_path / "c").exception
    assert isinstance(mistyped, DataError)
    assert "did you mean 'circle'" in str(mistyped)


def test_label_maps_and_pictures_that_cannot_be_read(tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        (tmp_path / "data" / kind).mkdir(parents=True)
    for i in range(3):
        Image.fromarray(np.full((30, 40, 3), 90, np.uint8)).save(tmp_path / "data" / "images" / f"{i}.png")
        Image.fromarray(np.full((30, 40), i % 2, np.uint8)).save(tmp_path / "data" / "masks" / f"{i}.png")
    (tmp_path / "data" / "classes.txt").write_text("ground\nhouse\n")
    picture = tmp_path / "data" / "images" / "0.png"
    picture.write_bytes(picture.read_bytes()[:-25])
    result = run("show", tmp_path / "data", "--out", tmp_path / "out")
    assert result.exit_code == 0  # CliRunner sees what the command returns as 0; main turns it into 6
    assert "0.png" in result.stderr
    page = Elements((tmp_path / "out" / "truth.html").read_text())
    assert len(page.of("figure")) == 2
    assert len([a for a in page.of("image") if a.get("class") == "layer"]) == 2
