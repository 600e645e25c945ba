"""Whatever stands in the files: a usable set or a DataError, never another exception."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from detseg.annotations import AnnotationSet, load
from detseg.errors import DataError

EXAMPLES = settings(max_examples=60)

NUMBERS = st.one_of(
    st.integers(-5, 120),
    st.floats(-20, 120),
    st.sampled_from([float("nan"), float("inf"), -float("inf"), 1e308, -1e308, 10**30, -(2**63), 2**63]),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=5), st.sampled_from(["1", "a.jpg", "-7"]))
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def sometimes(usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly what belongs there, now and then anything at all."""
    return st.one_of(usual, usual, usual, ANYTHING)


IDS = st.integers(1, 2)
SIDES = st.floats(-10, 70) | st.integers(0, 40)
PICTURE = st.fixed_dictionaries(
    {"file_name": st.sampled_from(["a.jpg", "b.jpg"])}, optional={"width": st.just(60), "height": st.just(40)}
)
ANNOTATION = st.fixed_dictionaries(
    {"image_id": IDS, "category_id": IDS, "bbox": st.lists(SIDES, min_size=4, max_size=4)},
    optional={"id": st.integers(0, 9), "iscrowd": st.integers(0, 1), "area": SIDES},
)


@st.composite
def coco_content(draw: st.DrawFn) -> Any:
    """A good file, of which up to three values at any depth are then replaced by anything at all."""
    content: dict[str, Any] = {
        "images": [{"id": i, **draw(PICTURE)} for i in (1, 2)],
        "annotations": draw(st.lists(ANNOTATION, max_size=6)),
        "categories": [{"id": 1, "name": "x"}, {"id": 2, "name": "y"}],
    }
    whole = {"content": content}
    for _ in range(draw(st.integers(0, 3))):
        holder: Any = whole
        key: Any = "content"
        for _ in range(draw(st.integers(1, 4))):
            inner = holder[key]
            if not isinstance(inner, dict | list) or not inner:
                break
            holder = inner
            key = draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else range(len(inner))))
        holder[key] = draw(ANYTHING)
    return whole["content"]


def usable_or_data_error(fill: Callable[[Path], Path], **how: Any) -> AnnotationSet | None:
    """Loads what `fill` wrote beside two pictures and checks what every set promises."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        path = fill(root)
        try:
            truth = load(path, **how)
        except DataError:
            return None
        check(truth)
        return truth


def check(truth: AnnotationSet) -> None:
    assert len(truth) > 0
    hw = truth.image_hw[truth.image_index]
    assert (truth.image_hw > 0).all()
    assert np.isfinite(truth.boxes).all()
    assert (truth.boxes >= 0).all()
    assert (truth.boxes[:, 2:] <= hw[:, ::-1]).all()
    assert (truth.boxes[:, 2:] - truth.boxes[:, :2] >= 1).all()
    assert np.isfinite(truth.areas).all()
    assert ((truth.labels >= 0) & (truth.labels < len(truth.categories))).all()
    assert truth.starts[-1] == len(truth.boxes)
    assert len(set(truth.ids.tolist())) == len(truth.ids)
    assert len(set(truth.image_ids.tolist())) == len(truth)
    assert all(truth.image_path(i).is_file() for i in range(len(truth)))
    assert all(str(fault) for fault in truth.faults)


def pictures(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (60, 40)).save(folder / name)


@EXAMPLES
@given(content=coco_content())
def test_coco(content: Any) -> None:
    def fill(root: Path) -> Path:
        pictures(root)
        (root / "x.json").write_text(json.dumps(content))
        return root / "x.json"

    usable_or_data_error(fill)


@EXAMPLES
@given(content=st.binary(max_size=60), suffix=st.sampled_from([".json", ".yaml", ".txt"]))
def test_any_bytes(content: bytes, suffix: str) -> None:
    def fill(root: Path) -> Path:
        (root / f"x{suffix}").write_bytes(content)
        return root / f"x{suffix}"

    assert usable_or_data_error(fill) is None


TEXT = st.one_of(NUMBERS.map(str), st.text(st.characters(codec="utf-8"), max_size=5).map(lambda t: f"<![CDATA[{t}]]>"))
TAGS = ["object", "name", "bndbox", "xmin", "ymin", "xmax", "ymax", "size", "width", "height", "difficult"]
TREES = st.recursive(
    st.tuples(st.sampled_from(TAGS), TEXT),
    lambda inner: st.tuples(st.sampled_from(TAGS), st.lists(inner, max_size=5)),
    max_leaves=12,
)
EDGES = [st.integers(0, 30), st.integers(0, 20), st.integers(20, 65), st.integers(15, 45)]
CORNERS = st.one_of(
    st.tuples(*(st.tuples(st.just(tag), edge.map(str)) for tag, edge in zip(TAGS[3:7], EDGES, strict=True))),
    st.tuples(*(st.tuples(st.just(tag), NUMBERS.map(str)) for tag in TAGS[3:7])),
)
NAMES = st.tuples(st.just("name"), st.sampled_from(["cat", "dog", ""]))
OBJECTS = st.tuples(st.just("object"), st.tuples(NAMES, st.tuples(st.just("bndbox"), CORNERS)))


def xml(tag: str, content: Any) -> str:
    inner = content if isinstance(content, str) else "".join(xml(*child) for child in content)
    return f"<{tag}>{inner}</{tag}>"


@EXAMPLES
@given(
    body=st.lists(st.one_of(OBJECTS, OBJECTS, TREES), min_size=1, max_size=6),
    cut=st.sampled_from([None] * 4 + [0, 50, 100, 200, 300]),
    entries=st.lists(st.sampled_from(["a", "b", "a 1", "b -1", "../a", "", " ", "x\0y", "a.jpg"]), max_size=5),
    split=st.sampled_from([None, "train"]),
    names=st.sampled_from([None, None, "cat\ndog", "cat", "", "\0", "cat\ncat"]),
)
def test_voc(body: Any, cut: int | None, entries: list[str], split: str | None, names: str | None) -> None:
    def fill(root: Path) -> Path:
        pictures(root / "JPEGImages")
        (root / "Annotations").mkdir()
        (root / "ImageSets/Main").mkdir(parents=True)
        (root / "Annotations/a.xml").write_bytes(xml("annotation", body).encode("utf-8", "replace")[:cut])
        (root / "Annotations/b.xml").write_text("<annotation/>")
        (root / "ImageSets/Main/train.txt").write_text("\n".join(entries))
        if names is not None:
            (root / "classes.txt").write_text(names)
        return root

    usable_or_data_error(fill, split=split)


LINES = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 1), *[st.floats(0.2, 0.6)] * 4).map(lambda v: " ".join(map(str, v))),
        st.tuples(st.integers(0, 4), *[st.floats(-0.2, 1.2)] * 4).map(lambda v: " ".join(map(str, v))),
        st.lists(NUMBERS, max_size=12).map(lambda v: " ".join(map(str, v))),
        st.text(max_size=9),
    ),
    max_size=6,
)
DESCRIPTION = sometimes(
    st.fixed_dictionaries(
        {"names": sometimes(st.sampled_from([["x", "y"], {0: "x", 3: "y"}]))},
        optional={
            "train": sometimes(st.sampled_from(["images", "list.txt", ["images", "images"], "."])),
            "val": ANYTHING,
            "path": sometimes(st.sampled_from([".", "..", "/nowhere"])),
            "nc": ANYTHING,
        },
    )
)


@EXAMPLES
@given(lines=LINES, description=DESCRIPTION, described=st.booleans(), listed=st.text(max_size=9))
def test_yolo(lines: list[str], description: Any, described: bool, listed: str) -> None:
    def fill(root: Path) -> Path:
        pictures(root / "images")
        (root / "labels").mkdir()
        (root / "labels/a.txt").write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
        (root / "list.txt").write_bytes(f"images/a.jpg\n{listed}".encode("utf-8", "surrogatepass"))
        if described:
            (root / "data.yaml").write_text(yaml.safe_dump(description))
        return root

    usable_or_data_error(fill)
