"""The pages as a browser sees them: nothing is loaded, nothing from outside becomes markup, tables can be sorted."""

from __future__ import annotations

import html.parser
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from detseg import reports
from detseg.annotations import AnnotationSet, Categories
from detseg.annotations.outlines import Outlines
from detseg.annotations.semantic import SemanticSet
from detseg.evaluation.bootstrap import Evidence, compare
from detseg.evaluation.coco import evaluate_rows
from detseg.evaluation.diagnosis import diagnose
from detseg.evaluation.diagnosis_maps import MapEvidence, compare_maps, diagnose_maps
from detseg.evaluation.label_maps import evaluate_label_maps
from detseg.reports.markup import Html, tag
from detseg.reports.pictures import Drawn, _window, embedded

EVIL = '<script>document.title="broken"</script>'
NAMES = (EVIL, '"><img src=x onerror=alert(1)> & co', "細胞 \u202eright to left", "a\x00b\udce9\x1bc" + "long " * 30)
FILES = ("ok.png", "<b>'quoted'</b>.png", "missing 写真.png", "broken.png")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Two real pictures, a file that is none, and one that does not exist."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name in FILES[:2]:
        assert cv2.imwrite(str(folder / "ok.png"), rng.integers(0, 255, (300, 400, 3)).astype(np.uint8))
        if name != "ok.png":
            shutil.copy(folder / "ok.png", folder / name.replace("/", "_"))
    (folder / "broken.png").write_text("this is no picture")
    return folder


def evaluated(root: Path, masks: bool = False) -> reports.Evaluated:
    rng = np.random.default_rng(1)
    corners = rng.uniform(0, 250, (40, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(10, 50, (40, 2))], axis=1)
    rings = [[[x1, y1, x2, y1, x2, y2, x1, y2]] for x1, y1, x2, y2 in boxes.tolist()]
    truth = AnnotationSet.from_columns(
        root=root,
        format="made",
        categories=Categories((1, 2, 3, 4), NAMES),
        image_files=[name.replace("/", "_") for name in FILES],
        image_hw=[(300, 400)] * 3 + [(300, 400) if masks else (0, 0)],
        image_index=rng.integers(0, 4, 40),
        boxes=boxes,
        labels=rng.integers(0, 3, 40),
        crowd=rng.random(40) < 0.1,
        outlines=Outlines.of(rings) if masks else None,
    )
    rows = np.zeros((40, 7))
    rows[:, 0], rows[:, 1:3], rows[:, 6] = (
        truth.image_index,
        truth.boxes[:, :2] + rng.normal(0, 4, (40, 2)),
        truth.labels,
    )
    rows[:, 3:5], rows[:, 5] = truth.boxes[:, 2:] - truth.boxes[:, :2], rng.random(40)
    rows[::7, 6] = 3
    rows[::9, 1] = 340.0
    outlines = truth.outlines if masks else None
    plain = replace(truth, categories=Categories.from_names(tuple("abcd")))
    metrics = evaluate_rows(plain, rows, kind="segm" if masks else "bbox", outlines=outlines)
    named = zip(metrics.per_class, NAMES, strict=True)
    metrics = replace(metrics, per_class=tuple(replace(each, name=name) for each, name in named))
    other = rows.copy()
    other[::2, 5] /= 3
    compared = compare(Evidence.of(truth, other), Evidence.of(truth, rows), 50)
    diagnosis = diagnose(truth, rows, outlines=outlines, resamples=50)
    return reports.Evaluated(truth, rows, metrics, diagnosis, outlines, (f"{EVIL}.json", compared))


class Maps:
    def __init__(self, maps: list[np.ndarray]) -> None:
        self.maps = maps

    def read(self, image: int) -> np.ndarray:
        return self.maps[image]

    def subset(self, images: np.ndarray) -> Maps:
        return Maps([self.maps[i] for i in images])


def evaluated_maps(root: Path) -> reports.EvaluatedMaps:
    rng = np.random.default_rng(2)
    there = [cv2.resize(rng.integers(0, 4, (6, 8)).astype(np.uint8), (400, 300), interpolation=0) for _ in FILES]
    found = [np.roll(m, 20, 1) for m in there]
    for each in there:
        each[:30] = 255
    files = tuple(name.replace("/", "_") for name in FILES)
    truth = SemanticSet(
        root, "made", Categories((1, 2, 3, 4), NAMES), files, np.arange(4), np.zeros((4, 2), np.int32), Maps(there)
    )
    evidence = MapEvidence.of(truth, found.__getitem__)
    worse = MapEvidence.of(truth, lambda i: np.roll(found[i], 40, 0))
    diagnosis, metrics = diagnose_maps(truth, evidence, 50), evaluate_label_maps(truth, found)
    return reports.EvaluatedMaps(
        truth, found.__getitem__, metrics, diagnosis, (EVIL, compare_maps(worse, evidence, 50))
    )


FACTS = [("data", f"/data/{EVIL}"), ("note", 'an "odd" <note>')]


def page_of(kind: str, root: Path) -> str:
    if kind == "label maps":
        return reports.label_map_report(f"Title {EVIL}", evaluated_maps(root), FACTS)
    return reports.detection_report(f"Title {EVIL}", evaluated(root, kind == "masks"), FACTS)


KINDS = ["boxes", "masks", "label maps"]


class Reader(html.parser.HTMLParser):
    """What a page consists of, by a parser that knows nothing of how it was written."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_is_whole_and_holds_everything_itself(kind, pictures):
    text = page_of(kind, pictures)
    read = Reader(text)
    assert read.open == []
    words = "".join(read.words)
    assert "細胞" in words
    assert EVIL in words
    assert "写真" in words
    assert "\\x00b\\xe9\\x1bc" in words  # control characters and stray bytes are spelt out
    text.encode()
    assert sum(tag == "script" for tag, _ in read.tags) == 1
    assert not [a for tag, a in read.tags if tag == "img" and not (a["src"] or "").startswith("data:image/")]
    linked = [value for _, a in read.tags for key, value in a.items() if key in ("href", "src")]
    assert linked
    assert all(value.startswith(("#", "data:image/")) for value in linked)
    ids = [a["id"] for _, a in read.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {value[1:] for value in linked if value.startswith("#")} <= set(ids)
    assert not [key for _, a in read.tags for key in a if key.startswith("on") or key == "style"]
    policy = next(a["content"] for tag, a in read.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    assert "no picture: no such file" in words
    assert len(text.encode()) < reports.MAX_BYTES


def test_pictures_are_embedded_once_and_boxes_lie_where_they_are(pictures):
    told = evaluated(pictures)
    text = reports.detection_report("a", told, [])
    worst = text[text.index('id="pictures"') : text.index('id="labels"')]
    assert worst.count("data:image/jpeg") == 2  # two can be read, each is shown twice
    assert worst.count("<use ") == 4
    for picture in (0, 1, 2):
        for x1, y1, _, _ in told.truth.boxes[told.truth.rows(picture)].tolist():
            number = f"{x1:.2f}".rstrip("0").rstrip(".")
            assert f'x="{number}" y="{y1:.2f}'.rstrip("0").rstrip(".") in worst


def test_the_file_stays_below_its_limit_and_says_what_it_left_out(pictures):
    told = evaluated(pictures)
    small = reports.detection_report("a", told, [], max_bytes=250_000)
    assert len(small.encode()) <= 250_000 < len(reports.detection_report("a", told, []).encode())
    assert "would make this file too large" in small


def test_nothing_found_and_no_pictures(pictures):
    full = evaluated(pictures)
    rows, plain = full.rows[:0], Categories.from_names(tuple("abcd"))
    for truth in (full.truth, full.truth.subset([])):
        told = replace(
            full, truth=truth, rows=rows, metrics=evaluate_rows(replace(truth, categories=plain), rows), compared=None
        )
        told = replace(told, diagnosis=diagnose(truth, rows, resamples=3))
        Reader(reports.detection_report("a", told, []))


def test_markup_cannot_be_made_by_text():
    assert tag("p", "<b>", Html("<i></i>"), title='"x" & y') == (
        '<p title="&quot;x&quot; &amp; y">&lt;b&gt;<i></i></p>'
    )
    assert tag("td", None, 3, data_value=0.5, hidden=True, lang=None) == '<td data-value="0.5" hidden>3</td>'


def test_windows_stay_inside_the_picture():
    assert _window([(10, 10, 20, 20)], (300, 400)) == (0, 0, 42, 42)
    for box in ((390, 290, 500, 400), (-50, -50, -10, -10), (0, 0, 400, 300), (500, 500, 600, 600)):
        x1, y1, x2, y2 = _window([box], (300, 400))
        assert 0 <= x1 < x2 <= 400
        assert 0 <= y1 < y2 <= 300
    assert Drawn((0, 0, 1, 1), "truth", "a").mask is None


def test_embedded_pictures_are_shrunk():
    uri, scale = embedded(np.zeros((1000, 500, 3), np.uint8), 250)
    assert uri.startswith("data:image/jpeg;base64,")
    assert scale == 0.25


# ---- in a browser ----

BROWSERS_OWN = (".google.com", ".googleapis.com", ".gvt1.com")


@pytest.fixture(scope="session")
def browser() -> str:
    """A browser without window; skips where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome"):
        found = shutil.which(name)
        if found:
            return found
    pytest.skip("no Chromium or Chrome on this machine: pages are not tried in a browser")


def opened(browser: str, page: Path, *more: str) -> tuple[str, str, list[str]]:
    """The page's DOM after its script ran, what was said on the console, and addresses that were asked for."""
    profile, log = page.with_suffix(".profile"), page.with_suffix(".net.json")
    quiet = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking"
    quiet += " disable-component-update disable-sync disable-default-apps disable-extensions enable-logging=stderr"
    # the browser itself asks its maker for the time and the like: none of that goes out
    command = [
        browser,
        "--host-resolver-rules=MAP * ~NOTFOUND",
        *(f"--{flag}" for flag in quiet.split()),
        f"--user-data-dir={profile}",
        f"--log-net-log={log}",
    ]
    done = subprocess.run(
        [*command, *more, "--dump-dom", page.as_uri()], capture_output=True, text=True, errors="replace", timeout=120
    )
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    asked = re.findall(r'"url":"(https?://[^"/]*)', log.read_text(errors="replace")) if log.exists() else ["no log"]
    return done.stdout, console, [address for address in asked if not address.endswith(BROWSERS_OWN)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_browser_shows_the_page_and_loads_nothing(kind, pictures, browser, tmp_path):
    page = tmp_path / "page.html"
    page.write_text(page_of(kind, pictures), encoding="utf-8")
    dom, console, asked = opened(browser, page)
    assert console == ""
    assert asked == []
    shown = Reader(dom)
    title = dom[dom.index("<title>") + 7 : dom.index("</title>")]
    assert title == 'Title &lt;script&gt;document.title="broken"&lt;/script&gt;'  # as text: nothing changed it
    assert sum(tag == "script" for tag, _ in shown.tags) == 1
    assert any(tag == "button" for tag, _ in shown.tags)  # the script ran
    assert "細胞" in dom


@pytest.mark.slow
def test_what_is_smuggled_in_does_not_run_and_tables_sort(pictures, browser, tmp_path, monkeypatch):
    """A click on a heading sorts by numbers; a script or picture that gets into the file all the same is refused."""
    from detseg.reports import page as page_module

    click = """
    const head = document.querySelectorAll("#classes thead th")[2];
    head.querySelector("button").click();
    const column = () => Array.from(document.querySelectorAll("#classes tbody tr"), r => r.cells[2].dataset.value);
    const down = column();
    head.querySelector("button").click();
    document.title = JSON.stringify([down, column()]);
    """
    monkeypatch.setattr(page_module, "SCRIPT", page_module.SCRIPT + click)
    text = page_of("boxes", pictures)
    smuggled = '<script>document.body.dataset.ran = "1"</script><img src="http://localhost:9/x.png">'
    page = tmp_path / "page.html"
    page.write_text(text.replace("<main>", "<main>" + smuggled), encoding="utf-8")
    dom, console, asked = opened(browser, page)
    down, up = json.loads(dom[dom.index("<title>") + 7 : dom.index("</title>")])
    assert len({*down}) > 2
    assert [float(v) for v in down] == sorted((float(v) for v in down), reverse=True)
    assert up == down[::-1]
    assert "data-ran" not in dom
    assert "Content Security Policy" in console
    assert asked == []
