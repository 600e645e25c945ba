"""The card: what is written is what is read, and what cannot be trusted is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from detseg.annotations import Categories
from detseg.checkpoints import Card
from detseg.errors import WeightsError
from detseg.preprocess import Preprocess


def card(**changes) -> Card:
    values = {
        "model": "yolo",
        "config": {"strides": (8, 16), "backbone": "x", "ratio": 0.1},
        "categories": Categories((7, 3), ("Katze – 猫", "line\nbreak")),
        "preprocess": Preprocess((256, 320), "stretch", (1.5, 2, 3), (0.1, 0.2, 0.3), 0),
    }
    return Card(**(values | changes))


def test_a_card_read_back_equals_the_one_written():
    training = {
        "ap": np.float32(0.5),
        "per_class": np.array([0.25, np.nan]),
        "data": Path("a/b"),
        "bad name": "\udcff",
        "resumed": None,
    }
    written = card(training=training)
    text = written.to_json_text()
    assert text.isascii()
    assert Card.from_json_text(text) == written
    assert written.training["per_class"] == [0.25, None]  # NaN is no JSON
    assert written.config["strides"] == [8, 16]
    assert isinstance(Card.from_json_text(text).preprocess.frame_hw, tuple)


def test_a_card_keeps_its_own_copy():
    config = {"inner": [1]}
    made = card(config=config)
    config["inner"].append(2)
    assert made.config == {"inner": [1]}


@pytest.mark.parametrize(
    "changes",
    [{"model": ""}, {"task": "dance"}, {"config": {"a": float("nan")}}, {"config": {"a": object()}},
     {"categories": Categories((), ())}],
)  # fmt: skip
def test_what_contradicts_itself_cannot_be_made(changes):
    with pytest.raises(ValueError, match=r"model|task|config|category"):
        card(**changes)


def test_a_newer_format_names_the_detseg_that_is_needed():
    block = json.loads(card().to_json_text()) | {
        "format_version": 9,
        "written_by": "7.5.0",
        "model": {"new": 1},
    }
    with pytest.raises(WeightsError, match=r"best\.onnx: .*format 9 by detseg 7\.5\.0.*pip install --upgrade"):
        Card.from_json_text(json.dumps(block), "best.onnx")


def damaged(path: str, value: object) -> str:
    """A card's text with one value replaced (`...` removes it)."""
    block = json.loads(card().to_json_text())
    *parents, last = path.split(".")
    place = block
    for name in parents:
        place = place[name]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return json.dumps(block)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        "{",
        "[" * 100_000,
        '{"format_version": ' + "9" * 5000 + "}",
        damaged("model", 5),
        damaged("model", ...),
        damaged("format_version", "1"),
        damaged("format_version", 0),
        damaged("config", [1]),
        damaged("training", "text"),
        damaged("categories", []),
        damaged("categories", [{"id": 1}]),
        damaged("categories", {"id": 1}),
        damaged("categories", [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]),
        damaged("preprocess", None),
        damaged("preprocess.surprise", 1),
        damaged("preprocess.fit", ...),
        damaged("preprocess.fit", "crop"),
        damaged("preprocess.frame_hw", [320]),
        damaged("preprocess.frame_hw", [0, 320]),
        damaged("preprocess.frame_hw", [320, 1e9]),
        damaged("preprocess.frame_hw", 320),
        damaged("preprocess.std", [1, 0, 1]),
        damaged("preprocess.mean", [1, 2, float("nan")]),
        damaged("preprocess.fill", 300),
    ],
)
def test_a_damaged_card_is_refused_in_one_line(text):
    with pytest.raises(WeightsError, match=r"^w\.onnx: [^\n]+$"):
        Card.from_json_text(text, "w.onnx")
