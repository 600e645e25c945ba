"""The page of a training run. Oracle: a parser that knows nothing of how it was written, and numbers put in."""

from __future__ import annotations

import base64

import cv2
import numpy as np

from detseg.reports.training import Snapshot, TrainingRun, training_report
from tests.reports.test_report_pages import EVIL, Reader

ROWS = [
    {"epoch": "1", "lr": "0.001", "seconds": "60.0", "loss/box": "4.0", "loss/class": "0.5"},
    {"epoch": "2", "lr": "0.001", "seconds": "60.0", "loss/box": "2.0", "loss/class": "0.4", "val/ap": "0.25"},
    {"epoch": "3", "lr": "0.0005", "seconds": "30.0", "loss/box": "1.0", "loss/class": "0.1", "val/ap": "0.75"},
    {"epoch": "4", "lr": "0.0001", "seconds": "30.0", "loss/box": "1.0", "loss/class": "0.1", "val/ap": "0.5"},
]


def jpeg(grey: int) -> bytes:
    return cv2.imencode(".jpg", np.full((20, 30, 3), grey, np.uint8))[1].tobytes()


def run(rows=ROWS, snapshots=()) -> TrainingRun:
    return TrainingRun(
        title=EVIL,
        subtitle="yolo on 8 pictures",
        epochs=10,
        rows=rows,
        decisive="val/ap",
        called=str.upper,
        snapshots=snapshots,
        facts=[("command", f"detseg train {EVIL}")],
    )


def test_numbers_are_those_of_the_table_and_the_best_is_named():
    text = training_report(run())
    page = Reader(text)
    words = " ".join(page.words)
    assert "0.750" in words
    assert "after epoch 3: weights/best.safetensors" in words
    assert "4 of 10" in words
    assert "3.0" in page.words  # minutes
    charts = [dict(attrs) for tag, attrs in page.tags if tag == "polyline"]
    points = [len(chart["points"].split()) for chart in charts]
    assert points == [3, 4, 4]  # AP, then both losses
    marks = [attrs for tag, attrs in page.tags if tag == "circle"]
    assert len(marks) == 1
    rows = [attrs["data-value"] for tag, attrs in page.tags if tag == "th" and "data-value" in attrs]
    assert rows == ["2", "3", "4"]  # what was validated


def test_nothing_from_outside_becomes_markup_and_nothing_is_loaded():
    page = Reader(training_report(run(snapshots=[Snapshot(EVIL, 0, jpeg(9))])))
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert page.words.count(EVIL) >= 3
    sources = [value for _, attrs in page.tags for key, value in attrs.items() if key in ("src", "href")]
    assert all(value.startswith(("data:", "#")) for value in sources)


def test_pictures_are_the_truth_and_a_few_epochs_each_in_its_order():
    taken = [Snapshot("b.png", epoch, jpeg(epoch)) for epoch in (8, 2, 4, 6, 0, 10)] + [Snapshot("a.png", 4, jpeg(99))]
    page = Reader(training_report(run(snapshots=taken)))
    shown = [attrs for tag, attrs in page.tags if tag == "img"]
    captions = [attrs["alt"] for attrs in shown]
    assert captions == ["annotated", "after epoch 2", "after epoch 6", "after epoch 10", "after epoch 4"]
    assert base64.b64decode(shown[2]["src"].partition(",")[2]) == jpeg(6)


def test_a_run_that_was_not_validated_yet_has_a_page():
    words = " ".join(Reader(training_report(run(rows=ROWS[:1]))).words)
    assert "not validated yet" in words
    assert "Nothing yet." in words
