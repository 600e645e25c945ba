"""Proposals on disk: the cache, tables people bring, and what recall is made of."""

from __future__ import annotations

import json
import math
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from detseg.annotations import AnnotationSet, Categories
from detseg.errors import DataError, DetsegError
from detseg.proposals import ProposalCache, Proposals, SelectiveSearch, proposals_of, propose, read, search, write
from detseg.proposals.recall import Coverage, best_overlaps, coverage, mean_over_classes

QUICK = SelectiveSearch(colour_spaces=("lab",), k=(30.0,))


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Three pictures of two rectangles each."""
    (tmp_path / "images").mkdir()
    paths = []
    for i in range(3):
        image = np.full((40, 60, 3), 240, np.uint8)
        image[5 : 15 + i, 5:30] = (200, 20, 30)
        image[25:35, 35 : 50 + i] = (20, 60, 180)
        paths.append(tmp_path / "images" / f"{i}.png")
        Image.fromarray(image).save(paths[-1])
    return paths


def truth_of(files: list[str], **columns: object) -> AnnotationSet:
    about = {"image_hw": [(40, 60)] * len(files), "image_index": [], "boxes": [], "labels": []} | columns
    categories = Categories(ids=(1, 2), names=("a", "b"))
    return AnnotationSet.from_columns(root=Path(), format="hand", categories=categories, image_files=files, **about)


def same(a: Proposals, b: Proposals) -> bool:
    return np.array_equal(a.boxes, b.boxes) and np.array_equal(a.scores, b.scores)


# ---- cache ----


def test_what_is_known_is_not_searched_again(pictures, tmp_path, monkeypatch):
    cache = ProposalCache(tmp_path / "cache")
    first = [one.proposals for one in propose(pictures, QUICK, cache)]
    renamed = pictures[0].with_name("other name.png")
    renamed.write_bytes(pictures[0].read_bytes())
    monkeypatch.setattr("detseg.proposals.picture_files.search", lambda *_: pytest.fail("searched again"))
    again = list(propose([*pictures, renamed], QUICK, cache))
    assert all(one.known for one in again)
    assert all(same(one.proposals, old) for one, old in zip(again, [*first, first[0]], strict=True))
    few = SelectiveSearch(colour_spaces=("lab",), k=(30.0,), max_boxes=2)
    assert same(proposals_of(pictures[0], few, cache), first[0].best(2))  # another limit needs no search


def test_other_content_and_other_settings_are_searched(pictures, tmp_path):
    cache = ProposalCache(tmp_path / "cache")
    before = proposals_of(pictures[0], QUICK, cache)
    pictures[0].write_bytes(pictures[1].read_bytes())
    now = proposals_of(pictures[0], QUICK, cache)
    assert not same(before, now)
    assert same(now, search(np.array(Image.open(pictures[1])), QUICK))
    (other,) = propose(pictures[:1], SelectiveSearch(colour_spaces=("lab",), k=(30.0,), seed=1), cache)
    assert not other.known


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "other arrays", "bad boxes", "folder"])
def test_a_damaged_cache_file_is_made_anew(pictures, tmp_path, damage):
    cache = ProposalCache(tmp_path / "cache")
    whole = proposals_of(pictures[0], QUICK, cache)
    (file,) = (tmp_path / "cache").rglob("*.npz")
    content = file.read_bytes()
    file.unlink()
    if damage == "folder":
        file.mkdir()
        with pytest.raises(DetsegError, match=r"cache of proposals cannot be written.*--no-cache"):
            proposals_of(pictures[0], QUICK, cache)
        return
    if damage in ("other arrays", "bad boxes"):
        arrays = (
            {"x": np.zeros(3)} if damage == "other arrays" else {"boxes": whole.boxes[:, ::-1], "scores": whole.scores}
        )
        np.savez(file, **arrays)
    else:
        file.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "text": b"Dear reader"}[damage])
    (found,) = propose(pictures[:1], QUICK, cache)
    assert not found.known
    assert same(found.proposals, whole)
    assert next(iter(propose(pictures[:1], QUICK, cache))).known


def test_no_damaged_byte_is_believed(pictures, tmp_path):
    cache, file = ProposalCache(tmp_path), tmp_path / "one.npz"
    whole = search(np.array(Image.open(pictures[0])), QUICK)
    cache.put(file, whole)
    content = file.read_bytes()
    for at in range(len(content)):
        file.write_bytes(content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :])
        found = cache.get(file)
        assert found is None or same(found, whole), f"byte {at}"


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written(pictures, tmp_path):
    (tmp_path / "shut").mkdir(mode=0o500)
    with pytest.raises(DetsegError, match=r"shut.*--no-cache"):
        proposals_of(pictures[0], QUICK, ProposalCache(tmp_path / "shut" / "in"))


def test_workers_answer_in_order_and_name_what_cannot_be_read(pictures, tmp_path):
    letter = tmp_path / "letter.png"
    letter.write_text("Dear reader")
    paths = [*pictures, letter, tmp_path / "absent.png", tmp_path]
    alone = list(propose(paths, QUICK))
    beside = list(propose(paths, QUICK, ProposalCache(tmp_path / "cache"), workers=2))
    assert [one.path for one in beside] == paths
    assert all(same(a.proposals, b.proposals) for a, b in zip(alone, beside, strict=True))
    assert [str(one.fault) for one in beside] == [str(one.fault) for one in alone]
    assert [one.fault is None for one in beside] == [True] * 3 + [False] * 3
    assert str(letter) in str(beside[3].fault)


# ---- tables ----


@pytest.mark.parametrize("suffix", [".npz", ".json", ".NPZ"])
def test_a_table_is_read_as_it_was_written(tmp_path, suffix):
    rng = np.random.default_rng(0)
    tables = {}
    for name, count in (("b/x.jpg", 5), ("a/x.jpg", 0), ("ä.jpg", 3)):
        corner = rng.integers(0, 20, (count, 2))
        tables[name] = Proposals(np.concatenate([corner, corner + 9], axis=1), -np.sort(-rng.random(count)))
    file = tmp_path / f"p{suffix}"
    write(file, tables.items())
    assert [p.name for p in tmp_path.iterdir()] == [file.name]
    names = ["a/x.jpg", "ä.jpg", "b/x.jpg"]  # the data set's order counts
    found = read(file, truth_of(names))
    assert found.names == tuple(names)
    for name, proposals in zip(names, found.proposals, strict=True):
        np.testing.assert_array_equal(proposals.boxes, tables[name].boxes)
        np.testing.assert_allclose(proposals.scores, tables[name].scores, rtol=1e-5)


def test_what_people_bring_is_sorted_cut_and_matched(tmp_path):
    file = tmp_path / "theirs.json"
    boxes = [[0, 0, 10, 10], [50, 30, 70, 50], [100, 100, 120, 120], [5, 5, 5, 9]]
    other = {"file": "not in this split.jpg", "boxes": [[9, 9, 1, 1]]}
    file.write_text(json.dumps({"pictures": [{"file": "a.jpg", "boxes": boxes, "scores": [0.1, 0.9, 1, 1]}, other]}))
    found = read(file, truth_of(["JPEGImages/a.jpg"]))
    assert found.left_out == 2
    assert found.proposals[0].boxes.tolist() == [[50, 30, 60, 40], [0, 0, 10, 10]]
    assert found.proposals[0].scores.tolist() == pytest.approx([0.9, 0.1])


def test_columns_without_scores_keep_their_order(tmp_path):
    np.savez(tmp_path / "p.npz", files=np.array(["b.jpg", "a.jpg"]), starts=np.array([0, 1, 3]),
             boxes=np.array([[0, 0, 4, 4], [1, 1, 9, 9], [2, 2, 7, 7]], np.int16))  # fmt: skip
    a, b = read(tmp_path / "p.npz", truth_of(["a.jpg", "b.jpg"])).proposals
    assert (a.boxes.tolist(), b.boxes.tolist()) == ([[1, 1, 9, 9], [2, 2, 7, 7]], [[0, 0, 4, 4]])
    assert a.scores.tolist() == [1, 1]


def test_results_of_coco(tmp_path):
    file = tmp_path / "p.json"
    file.write_text(json.dumps([{"image_id": 7, "bbox": [1, 2, 3, 4], "score": 0.5, "category_id": 1}]))
    one, other = read(file, truth_of(["a.jpg", "b.jpg"], image_ids=[7, 9])).proposals
    assert one.boxes.tolist() == [[1, 2, 4, 6]]
    assert len(other) == 0


def npz(**changed: object) -> dict[str, object]:
    return {"files": np.array(["a.jpg"]), "starts": np.array([0, 1]), "boxes": np.array([[0, 0, 5, 5.0]])} | changed


def entry(**changed: object) -> bytes:
    return json.dumps({"pictures": [{"file": "a.jpg", "boxes": [[0, 0, 5, 5]]} | changed]}).encode()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "neither .npz nor JSON"),
        (b"PK\x03\x04 and no more", "not a usable .npz"),
        (b"{}", '"pictures"'),
        (b'{"pictures": [3]}', "picture 1 needs"),
        (b"[3]", "object 1"),
        (b'[{"image_id": 55, "bbox": [1, 2, 3, 4], "score": 1}]', "none of its image_ids"),
        (entry(boxes=[[0, 0, 5]]), "a.jpg: boxes: rows of four numbers"),
        (entry(boxes=[[0, 0, 5, "x"]]), "rows of four numbers"),
        (entry(boxes=[[0, 0, 5, float("nan")]]), "not finite"),
        (entry(boxes=[[30, 20, 10, 10]]), "box 1.*not x, y, w, h"),
        (entry(boxes=[[0.1, 0.2, 0.3, 0.4]]), "not fractions"),
        (entry(scores=[1, 2]), "2 scores for 1 boxes"),
        (entry(scores="high"), "list of numbers"),
        (entry(file="b.jpg"), "nothing of 1 of 1 pictures .a.jpg.*detseg data proposals"),
        (b'{"pictures": [{"file": "a.jpg", "boxes": []}, {"file": "a.jpg", "boxes": []}]}', "twice"),
        (npz(starts=np.array([0, 2])), "starts must be"),
        (npz(starts=np.array([0.0, 1.0])), "starts must be"),
        (npz(files=np.array([1])), "list of names"),
        (npz(scores=np.array([1.0, 2.0])), "2 scores for 1 boxes"),
        (npz(boxes=np.array([["x"] * 4])), "boxes: rows of four"),
        ({"files": np.array(["a.jpg"])}, "lacks starts, boxes"),
        (npz(files=np.array(["a.jpg"], object)), "not a usable .npz"),
    ],
)  # fmt: skip
def test_what_is_no_table_says_so(tmp_path, content, words):
    file = tmp_path / "p.npz"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        np.savez(file, **content)
    with pytest.raises(DataError, match=words) as told:
        read(file, truth_of(["a.jpg"]))
    assert str(told.value).startswith(str(file))


def test_no_file_and_no_such_form(tmp_path):
    with pytest.raises(DataError, match=r"absent.npz: cannot be read"):
        read(tmp_path / "absent.npz", truth_of([]))
    with pytest.raises(DetsegError, match=r"\.npz or \.json"):
        write(tmp_path / "p.csv", [])


# ---- proposals and recall ----


@pytest.mark.parametrize(
    ("boxes", "scores"),
    [([[0, 0, 1]], [1]), ([[0, 0, 1, 1]], [1, 1]), ([[0, 0, 1, math.inf]], [1]), ([[2, 0, 1, 1]], [1]),
     ([[0, 0, 1, 1]] * 2, [0.1, 0.2])],
)  # fmt: skip
def test_proposals_refuse_nonsense(boxes, scores):
    with pytest.raises(ValueError, match=r"\w"):
        Proposals(np.array(boxes), np.array(scores))


def test_proposals_cannot_be_changed_from_outside():
    boxes = np.array([[0, 0, 1, 1]], np.float32)
    kept = Proposals.of(boxes)
    boxes[0, 2] = 9
    assert kept.boxes.tolist() == [[0, 0, 1, 1]]
    assert not kept.boxes.flags.writeable


def test_recall_by_hand():
    """IoU 1, 0.6, 0 and an ignored object that nothing covers."""
    truth = truth_of(
        ["p.jpg", "empty.jpg"], image_index=[0, 0, 0, 0], labels=[0, 0, 1, 1], crowd=[0, 0, 0, 1],
        boxes=[[0, 0, 10, 10], [20, 0, 30, 10], [40, 20, 50, 30], [50, 30, 60, 40]],
    )  # fmt: skip
    proposals = Proposals.of([[20, 0, 26, 10], [0, 0, 10, 10], [0, 0, 1, 1]])
    overlaps = np.concatenate([best_overlaps(truth, 0, proposals), best_overlaps(truth, 1, Proposals())])
    assert overlaps.tolist() == pytest.approx([1, 0.6, 0, 0])
    whole, by_class = coverage(truth, overlaps)
    assert whole == Coverage(3, pytest.approx(2 / 3), pytest.approx(1 / 3), pytest.approx(1.6 / 3))
    assert by_class["a"] == Coverage(2, 1.0, 0.5, pytest.approx(0.8))
    assert mean_over_classes(by_class) == pytest.approx(0.4)
    nothing, none = coverage(truth_of(["p.jpg"]), np.zeros(0))
    assert nothing.to_json() == {"objects": 0, "recall_50": None, "recall_70": None, "best_overlap": None}
    assert math.isnan(mean_over_classes(none))


corners = st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(1, 20), st.integers(1, 20)).map(
    lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]]
)


@given(
    st.lists(st.tuples(corners, st.integers(0, 1), st.booleans()), max_size=6),
    st.lists(corners, max_size=6),
)
@example([([0, 0, 10, 2], 0, False), ([0, 4, 10, 6], 1, False)], [[0, 0, 5, 2], [0, 4, 7, 6]])  # 0.5 and 0.7
def test_recall_is_what_counting_pixels_gives(objects, proposed):
    """Whole pixels as sets; 0.5 and 0.7 are reached where they are met exactly, too."""
    truth = truth_of(
        ["p.jpg"], image_index=[0] * len(objects), boxes=[list(map(float, box)) for box, _, _ in objects],
        labels=[label for _, label, _ in objects], crowd=[crowd for _, _, crowd in objects],
    )  # fmt: skip
    overlaps = best_overlaps(truth, 0, Proposals.of(np.array(proposed, np.float32).reshape(-1, 4)))
    whole, by_class = coverage(truth, overlaps)

    def pixels(box: list[int]) -> set[tuple[int, int]]:
        return {(x, y) for x in range(box[0], box[2]) for y in range(box[1], box[3])}

    def best(box: list[int]) -> Fraction:
        mine, zero = pixels(box), Fraction(0)
        return max((Fraction(len(mine & (p := pixels(b))), len(mine | p)) for b in proposed), default=zero)

    counted = [(best(box), label) for box, label, crowd in objects if not crowd]
    assert whole.objects == len(counted)
    if counted:
        assert whole.recall_50 == pytest.approx(sum(b >= Fraction(1, 2) for b, _ in counted) / len(counted))
        assert whole.recall_70 == pytest.approx(sum(b >= Fraction(7, 10) for b, _ in counted) / len(counted))
        assert whole.best_overlap == pytest.approx(float(sum(b for b, _ in counted)) / len(counted))
    assert {name: covered.objects for name, covered in by_class.items()} == {
        name: n for k, name in enumerate("ab") if (n := sum(label == k for _, label in counted))
    }
