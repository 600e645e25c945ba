"""Where a model's proposals come from: its own settings, a search, a file by the pictures' names."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import pytest

from detseg.annotations import AnnotationSet, Categories
from detseg.errors import DataError, ImageError
from detseg.images import ImageFile
from detseg.proposals import MODES, FileProposer, ProposalCache, ProposalSettings, Searcher, propose, sources, write
from detseg.proposals.contract import Proposals


def named(path: str) -> ImageFile:
    return ImageFile(Path("anywhere") / path, PurePosixPath(path))


def test_a_config_says_what_is_wanted_or_that_nothing_is():
    assert ProposalSettings.of_config({"num_classes": 3, "proposals.mode": "quality", "proposals.count": 7}) == (
        ProposalSettings("quality", 7)
    )
    assert ProposalSettings.of_config({"num_classes": 3}) is None
    assert ProposalSettings("quality", 7).search.colour_spaces == MODES["quality"].colour_spaces
    assert ProposalSettings("quality", 7).search.max_boxes == 7
    with pytest.raises(ValueError, match="at least 1"):
        ProposalSettings(count=0)


@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_a_file_knows_pictures_by_path_or_by_a_name_that_only_one_has(tmp_path, suffix):
    boxes = {f"{folder}/{name}": [[i, 2, i + 9, 12]] for i, (folder, name) in enumerate(["ax", "ay", "bx"])}
    file = tmp_path / f"some{suffix}"
    write(file, [(name, Proposals.of(rows)) for name, rows in boxes.items()])
    proposer = FileProposer.of_any(file)
    for name, rows in boxes.items():
        np.testing.assert_array_equal(proposer(named(name), (50, 50)), rows)
    np.testing.assert_array_equal(proposer(named("y"), (50, 50)), boxes["a/y"])
    np.testing.assert_array_equal(proposer(named("elsewhere/y"), (50, 5)), [[1, 2, 5, 12]])  # cut to the picture
    with pytest.raises(ImageError, match="has no proposals for it"):
        proposer(named("x"), (50, 50))  # two pictures are called so


def test_at_most_so_many_and_the_best(tmp_path):
    file = tmp_path / "some.json"
    entry = {"file": "x.png", "boxes": [[0, 0, 5, 5], [1, 1, 8, 8], [2, 2, 9, 9]], "scores": [0.1, 0.9, 0.5]}
    file.write_text(json.dumps({"pictures": [entry]}))
    assert FileProposer.of_any(file, 2)(named("x.png"), (9, 9)).tolist() == [[1, 1, 8, 8], [2, 2, 9, 9]]


def test_what_a_file_lacks_is_told_before_anything_is_done(tmp_path):
    truth = AnnotationSet.from_columns(
        root=tmp_path, format="test", categories=Categories.from_names(["a"]), image_files=["1.png", "2.png", "3.png"],
        image_hw=[(9, 9)] * 3, image_index=[], boxes=np.zeros((0, 4)), labels=[],
    )  # fmt: skip
    file = tmp_path / "some.npz"
    write(file, [("2.png", Proposals.of([[0, 0, 5, 5]]))])
    with pytest.raises(DataError, match=r"2 of 3 pictures \(1.png, 3.png\).*detseg data proposals DATA --out FILE"):
        FileProposer.of_sets(file, [truth])
    proposer = FileProposer.of_sets(file, [truth.subset([1])])
    assert len(proposer(named("2.png"), (9, 9))) == 1


def test_results_by_image_id_need_a_data_set(tmp_path):
    file = tmp_path / "coco.json"
    file.write_text(json.dumps([{"image_id": 1, "bbox": [0, 0, 5, 5], "score": 1}]))
    with pytest.raises(DataError, match="image_id"):
        FileProposer.of_any(file)


def test_a_search_is_that_of_the_settings_and_needed_once(tmp_path, monkeypatch):
    image = np.full((40, 60, 3), 200, np.uint8)
    image[8:30, 10:40] = (30, 60, 220)
    assert cv2.imwrite(str(tmp_path / "a.png"), image)
    cache, settings = ProposalCache(tmp_path / "cache"), ProposalSettings(count=5)
    (found,) = propose([tmp_path / "a.png"], settings.search, cache)
    monkeypatch.setattr("detseg.proposals.picture_files.search", None)  # from here on nothing is searched for
    given = Searcher(settings, cache)(ImageFile(tmp_path / "a.png", PurePosixPath("a.png")), (40, 60))
    np.testing.assert_array_equal(given, found.proposals.boxes)
    assert 0 < len(given) <= 5


def test_a_cache_that_cannot_be_written_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert sources.usual_cache() is not None
    monkeypatch.setattr(sources.os, "access", lambda *_: False)
    assert sources.usual_cache() is None
