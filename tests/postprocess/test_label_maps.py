"""Label maps of pictures. Oracle: torch's interpolation, and pixels whose class is known."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from detseg.postprocess.label_maps import MapAnswer, mean_labels, shares, sure_labels
from detseg.preprocess import Placement
from detseg.preprocess.recipe import lay_in_map


def test_logits_are_enlarged_before_the_best_class_is_taken():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(5, 24, 32)).astype(np.float32)
    placement = Placement((96, 128), (24, 32), (0.25, 0.25), (0.0, 0.0))
    large = F.interpolate(torch.from_numpy(logits)[None], size=(96, 128), mode="bilinear", align_corners=False)[0]
    best, second = large.topk(2, dim=0).values
    sure = (best - second).numpy() > 1e-3  # elsewhere the last digit decides
    assert sure.mean() > 0.99
    np.testing.assert_array_equal(mean_labels([MapAnswer(logits, placement)])[sure], large.argmax(dim=0).numpy()[sure])


def test_the_border_of_the_frame_is_left_out():
    placement = Placement.letterbox((50, 100), (64, 64))
    labels = np.repeat(np.repeat(np.arange(1, 3, dtype=np.uint8), 50)[None], 50, axis=0)  # left half 1, right half 2
    frame = lay_in_map(labels, placement, fill=0)
    assert (frame[:16] == 0).all()
    assert (frame[48:] == 0).all()
    logits = np.stack([frame == label for label in range(3)]).astype(np.float32)
    np.testing.assert_array_equal(mean_labels([MapAnswer(logits, placement)]), labels)


def test_of_equal_scores_the_first_class_counts():
    logits = np.zeros((3, 8, 8), np.float32)
    logits[0] = -1
    assert (mean_labels([MapAnswer(logits, Placement.stretch((8, 8), (8, 8)))]) == 1).all()


def test_shares_are_torchs_softmax():
    logits = np.random.default_rng(1).normal(size=(2, 4, 5, 6)).astype(np.float32) * 50
    np.testing.assert_allclose(shares(logits), torch.from_numpy(logits).softmax(dim=1).numpy(), atol=1e-6)


def test_how_sure_is_told_of_each_pixels_class():
    rng = np.random.default_rng(1)
    first, second = (rng.normal(size=(4, 16, 24)).astype(np.float32) * 2 for _ in range(2))
    placement = Placement.stretch((16, 24), (16, 24))
    one, other = (np.exp(logits) / np.exp(logits).sum(axis=0) for logits in (first, second))
    labels, sure = sure_labels([MapAnswer(first, placement)])
    np.testing.assert_array_equal(labels, first.argmax(axis=0))
    np.testing.assert_allclose(sure, one.max(axis=0), rtol=1e-5)
    mean = (one + 3 * other) / 4
    labels, sure = sure_labels([MapAnswer(first, placement), MapAnswer(second, placement, 3.0)])
    np.testing.assert_array_equal(labels, mean.argmax(axis=0))
    np.testing.assert_allclose(sure, mean.max(axis=0), rtol=1e-5)
