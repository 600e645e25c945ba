"""Oracle: torchvision's Faster and Mask R-CNNs with the same random weights, on pictures of two shapes in one batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.models import detection
from torchvision.models.detection.image_list import ImageList

from detseg.detectors.contract import Target
from detseg.postprocess import Selection, select
from tests.torchvision_twins import KIND_OF, LONG, framed, ours_of, pictures, truths, twins

MODELS = list(KIND_OF)
SELECTION = Selection(conf=0.05, iou=0.5, max_det=100, top_k=10**6)  # torchvision's
LOSSES = {
    "objectness": "loss_objectness",
    "rpn_box": "loss_rpn_box_reg",
    "class": "loss_classifier",
    "box": "loss_box_reg",
    "mask": "loss_mask",
}


@pytest.fixture(scope="module", params=MODELS)
def pair(request) -> tuple[Any, Any]:
    return twins(request.param)


def targets() -> list[Target]:
    """The truths as ours wants them: classes from 0, masks in the frame."""
    found = []
    for truth in truths():
        boxes, masks = truth["boxes"], truth["masks"]
        masks = F.pad(masks, (0, LONG - masks.shape[2], 0, LONG - masks.shape[1]))
        found.append(Target(boxes, truth["labels"] - 1, torch.zeros(len(boxes), dtype=torch.bool), masks.bool()))
    return found


def test_boxes_scores_labels_and_masks_are_torchvisions(pair):
    ours, theirs = pair
    ours.eval(), theirs.eval()
    theirs.transform.postprocess = lambda result, *_: result  # masks as small pictures, not yet pasted
    with torch.no_grad():
        wanted = theirs(pictures())
        raw = ours.detect(*framed(pictures()))
    for i, one in enumerate(wanted):
        found = select(raw.boxes[i].numpy(), raw.scores[i].numpy(), SELECTION)
        assert len(found.boxes) > 20
        assert len(set(found.labels.tolist())) > 1
        np.testing.assert_array_equal(found.labels, one["labels"].numpy() - 1)
        np.testing.assert_allclose(found.scores, one["scores"].numpy(), atol=1e-4)
        np.testing.assert_allclose(found.boxes, one["boxes"].numpy(), atol=1e-3, rtol=1e-5)
        if "masks" in one:
            masks = raw.masks[i][found.candidates].numpy()
            assert masks.std() > 0.1
            np.testing.assert_allclose(masks, one["masks"][:, 0].numpy(), atol=1e-4)


@pytest.mark.parametrize("training", [False, True])
def test_proposals_are_torchvisions(pair, training):
    ours, theirs = pair
    ours.eval(), theirs.eval()
    images, sizes = framed(pictures())
    with torch.no_grad():
        features = theirs.backbone(images)
        theirs.rpn.training = training  # how many; the batch norms stay as they are
        batch = ImageList(images, [(int(h), int(w)) for h, w in sizes])
        wanted, _ = theirs.rpn(batch, features, truths())
        _, answers = ours(images)
        found = ours.rpn.propose(answers, sizes.float(), training=training)
    for mine, other in zip(found, wanted, strict=True):
        assert len(mine) > 30
        torch.testing.assert_close(mine, other, atol=1e-3, rtol=1e-5)


def test_losses_and_gradients_are_torchvisions(pair):
    """Samples are drawn in the same order from the same generator, so they are the same."""
    ours, theirs = pair
    ours.train(), theirs.train()
    torch.manual_seed(7)
    wanted = theirs(pictures(), truths())
    torch.manual_seed(7)
    images, sizes = framed(pictures())
    found = ours.losses(images, targets(), sizes)
    assert len(found) == len(wanted)
    for name, loss in found.items():
        assert loss.item() > 1e-3
        torch.testing.assert_close(loss, wanted[LOSSES[name]], rtol=1e-4, atol=0, msg=lambda m, n=name: f"{n}: {m}")
    layers = [
        (ours.rpn.logits.weight, theirs.rpn.head.cls_logits.weight),
        (ours.rpn.deltas.weight, theirs.rpn.head.bbox_pred.weight),
        (ours.predictor.logits.weight, theirs.roi_heads.box_predictor.cls_score.weight),
    ]
    given = torch.autograd.grad(sum(found.values()), [a for a, _ in layers])
    expected = torch.autograd.grad(sum(wanted.values()), [b for _, b in layers])
    for a, b in zip(given, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max()))


@pytest.mark.parametrize("name", MODELS)
def test_numbers_that_the_twins_do_not_use_are_torchvisions(name):
    kind = KIND_OF[name]
    with torch.device("meta"):
        theirs = getattr(detection, kind.builder)(weights=None, weights_backbone=None, num_classes=5)
        ours: Any = ours_of(kind, theirs.state_dict())
    rpn, heads, config = theirs.rpn, theirs.roi_heads, ours.config
    assert (config.rpn.train_candidates, config.rpn.candidates) == tuple(rpn._pre_nms_top_n.values())
    assert (config.rpn.train_kept, config.rpn.kept) == tuple(rpn._post_nms_top_n.values())
    assert (config.rpn.samples, config.rpn.positives) == (256, 0.5)
    assert (rpn.fg_bg_sampler.batch_size_per_image, rpn.fg_bg_sampler.positive_fraction) == (256, 0.5)
    sampler = heads.fg_bg_sampler
    assert (config.box.samples, config.box.positives) == (sampler.batch_size_per_image, sampler.positive_fraction)
    if kind.masks:
        found = config.found
        assert (found.min_score, found.nms_iou, found.kept) == (
            heads.score_thresh, heads.nms_thresh, heads.detections_per_img,
        )  # fmt: skip
    mine = [m for m in ours.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    other = [m for m in theirs.backbone.body.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert [m.eps for m in mine] == [m.eps for m in other]
