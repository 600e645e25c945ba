"""Oracle: torchvision's SSD300 and SSDLite320 with the same random weights, on the same frames."""

from __future__ import annotations

from pathlib import PurePosixPath

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.models.detection import ssd300_vgg16, ssdlite320_mobilenet_v3_large

from detseg import catalog
from detseg.annotations.sample import write_sample
from detseg.checkpoints.tensors import load_into, save
from detseg.checkpoints.torchvision_files import import_file
from detseg.checkpoints.torchvision_ssd import SSD300, SSDLITE320, kind_of, read_torchvision_ssd, renamed
from detseg.detectors import ssd
from detseg.detectors.contract import Detector, Target
from detseg.errors import WeightsError
from detseg.images import ImageFile
from detseg.pipeline import detect_files
from detseg.postprocess import Selection, select
from detseg.postprocess.select import Selected
from detseg.results import Detections
from detseg.runtimes import open_runtime
from detseg.training.config import TrainConfig
from detseg.training.setup import prepare

CLASSES = 5
# what torchvision's two select with: threshold, overlap, detections, candidates a class
SELECTIONS = {
    "ssd300": Selection(conf=0.01, iou=0.45, max_det=200, top_k_per_class=400, top_k=10**6),
    "ssdlite": Selection(conf=0.001, iou=0.55, max_det=300, top_k_per_class=300, top_k=10**6),
}


def twins(name: str, classes: int = CLASSES) -> tuple[Detector, torch.nn.Module]:
    """Ours and torchvision's with one set of weights, random but lively: features and scores that differ."""
    torch.manual_seed(3)
    make = ssd300_vgg16 if name == "ssd300" else ssdlite320_mobilenet_v3_large
    theirs = make(weights=None, weights_backbone=None, num_classes=1 + classes)
    with torch.no_grad():
        for conv in (m for m in theirs.head.modules() if isinstance(m, torch.nn.Conv2d)):
            conv.weight.normal_(std=0.004 if name == "ssd300" else 2 / conv.weight[0].numel() ** 0.5)
        if name == "ssdlite":  # batch norms that fit what they see
            norms = [m for m in theirs.modules() if isinstance(m, torch.nn.BatchNorm2d)]
            momenta = [norm.momentum for norm in norms]
            for norm in norms:
                norm.momentum = None
            theirs.train().backbone(theirs.transform(pictures(2, 320))[0].tensors)
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
    kind = kind_of(theirs.state_dict())
    assert kind is (SSD300 if name == "ssd300" else SSDLITE320)
    config = ssd.configure(classes, {**catalog.entry(name).options, **kind.settings}, None)
    ours = ssd.build(config)
    load_into(ours, renamed(theirs.state_dict(), kind), name)
    return ours, theirs


def pictures(count: int, side: int) -> list[Tensor]:
    """(3, side, side) in 0..1, with edges: torchvision's resize then leaves them as they are."""
    random = np.random.default_rng(1)
    blocks = random.random((count, 3, side // 20, side // 20)).repeat(20, axis=2).repeat(20, axis=3)
    return [torch.from_numpy(b).float() for b in np.clip(blocks + random.normal(0, 0.05, blocks.shape), 0, 1)]


def as_ours(name: str, images: list[Tensor]) -> Tensor:
    preprocess = (SSD300 if name == "ssd300" else SSDLITE320).preprocess
    mean, std = (images[0].new_tensor(v).reshape(3, 1, 1) for v in (preprocess.mean, preprocess.std))
    return torch.stack([(255 * image - mean) / std for image in images])


def truths(side: int) -> list[dict[str, Tensor]]:
    """Of three pictures: several objects of which two share a best prior, none, one below 0.5 with every prior.

    The last lies wholly in one prior only: several would overlap it alike, and rounding would choose.
    """
    lonely = {300: [277.3, 270.1, 291.2, 283.9], 320: [244.3, 239.2, 288, 282.9]}[side]
    boxes = [
        [[10.0, 20, 150, 170], [12, 22, 151, 168], [200, 40, 290, 280], [100, 100, 180, 130]],
        [],
        [lonely],
    ]
    labels = [[1, 3, 2, 4], [], [5]]
    return [
        {"boxes": torch.tensor(b).reshape(-1, 4), "labels": torch.tensor(k, dtype=torch.int64)}
        for b, k in zip(boxes, labels, strict=True)
    ]


def expect_equal(found: Selected | Detections, wanted: dict[str, Tensor], selection: Selection, pixels: float) -> None:
    """The same objects in the same order: scores within 1e-4, boxes within so many pixels."""
    assert len(found.boxes) == selection.max_det  # as many as may be: the limits count, too
    assert len(set(found.labels.tolist())) > 1
    np.testing.assert_array_equal(found.labels, wanted["labels"].numpy() - 1)
    np.testing.assert_allclose(found.scores, wanted["scores"].numpy(), atol=1e-4, rtol=0)
    np.testing.assert_allclose(found.boxes, wanted["boxes"].numpy(), atol=pixels, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ssd300", "ssdlite"])
def test_boxes_scores_and_labels_are_torchvisions(name, tmp_path):
    """From picture files through an imported checkpoint, as people do it; then once more without rounding.

    In single precision two ways to the same convolution differ by thousandths of a pixel: 1e-4 of the frame's side is
    0.03 pixels. In double precision 1e-4 pixels are left; that is slow, so it is for one of the pictures.
    """
    ours, theirs = twins(name)
    ours.eval(), theirs.eval()
    images = [(255 * image).round() / 255 for image in pictures(2, catalog.entry(name).imgsz)]
    files = [ImageFile(tmp_path / f"{i}.png", PurePosixPath(f"{i}.png")) for i in range(len(images))]
    for file, image in zip(files, images, strict=True):
        Image.fromarray((255 * image).round().byte().permute(1, 2, 0).numpy()).save(file.path)
    torch.save(theirs.state_dict(), tmp_path / "five.pth")
    imported = import_file(tmp_path / "five.pth", list("abcde"))
    save(tmp_path / "five.safetensors", imported.card, imported.state)
    runtime = open_runtime(tmp_path / "five.safetensors", device="cpu")
    with torch.no_grad():
        single, double = theirs(images), theirs.double()([images[0].double()])
        raw = ours.double().detect(as_ours(name, [images[0].double()]))
    selection = SELECTIONS[name]
    for outcome, wanted in zip(detect_files(files, runtime, selection), single, strict=True):
        expect_equal(outcome.found, wanted, selection, pixels=0.01)
    exact = select(raw.boxes[0].numpy(), raw.scores[0].numpy(), selection)
    expect_equal(exact, double[0], selection, pixels=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ssd300", "ssdlite"])
def test_losses_and_gradients_are_torchvisions(name):
    ours, theirs = twins(name)
    ours.train(), theirs.train()
    side = catalog.entry(name).imgsz
    images, truth = pictures(3, side), truths(side)
    wanted = theirs(images, truth)
    targets = [Target(t["boxes"], t["labels"] - 1, torch.zeros(len(t["boxes"]), dtype=torch.bool)) for t in truth]
    found = ours.losses(as_ours(name, images), targets)
    assert found["box"].item() > 0.1
    torch.testing.assert_close(found["box"], wanted["bbox_regression"], rtol=1e-4, atol=0)
    torch.testing.assert_close(found["class"], wanted["classification"], rtol=1e-4, atol=0)
    # of the predictors alone: what lies before them is the same function
    heads = renamed(dict(theirs.head.named_parameters(prefix="head")), kind_of(theirs.state_dict()))
    mine = dict(ours.named_parameters())
    expected = torch.autograd.grad(sum(wanted.values()), list(heads.values()))
    given = torch.autograd.grad(sum(found.values()), [mine[key] for key in heads])
    for key, a, b in zip(heads, given, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max()) + 1e-7, msg=key)


def test_cocos_file_loses_the_ids_that_coco_does_not_use(tmp_path):
    _, theirs = twins("ssdlite", 90)
    torch.save(theirs.state_dict(), tmp_path / "coco.pth")
    card, state = read_torchvision_ssd(tmp_path / "coco.pth")
    assert (len(card.categories), card.categories.ids[11], card.categories.names[79]) == (80, 13, "toothbrush")
    config = ssd.configure(80, {**catalog.entry(card.model).options, **card.config}, None)
    ours = ssd.build(config).eval()
    load_into(ours, state, "coco.pth")
    image = pictures(1, 320)
    with torch.no_grad():
        features = list(theirs.eval().backbone(theirs.transform(image)[0].tensors).values())
        logits = theirs.head(features)["cls_logits"][0][:, [0, *card.categories.ids]]
        scores = ours.detect(as_ours("ssdlite", image)).scores[0]
    torch.testing.assert_close(scores, logits.softmax(dim=1)[:, 1:], atol=1e-4, rtol=1e-4)


def test_training_goes_on_from_torchvisions_weights_as_they_were_trained(tmp_path):
    """The default boxes and the normalisation are those of the weights; only the rows of the classes start anew."""
    _, theirs = twins("ssdlite")
    torch.save(theirs.state_dict(), tmp_path / "five.pth")
    card, state = ssd.from_torchvision(tmp_path / "five.pth", list("abcde"))
    save(tmp_path / "five.safetensors", card, state)
    data = write_sample(tmp_path / "data", images=4, hw=(64, 96))
    config = TrainConfig(data=str(data), model=card.model, weights=str(tmp_path / "five.safetensors"))
    prepared = prepare(config, "x")
    assert prepared.card.preprocess == card.preprocess
    assert prepared.card.config["reduced_tail"] is True
    assert prepared.inherited.anew == ()
    assert prepared.inherited.known == ()
    own, boxes = prepared.model.state_dict(), 6
    rows = [tensors["heads.0.logits.3.weight"].unflatten(0, (boxes, -1)) for tensors in (own, state)]
    torch.testing.assert_close(rows[0][:, 0], rows[1][:, 0], rtol=0, atol=0)  # background's
    assert not torch.isclose(rows[0][:, 1:], rows[1][:, 1:4]).any()


def test_what_is_no_ssd_of_torchvision_is_refused(tmp_path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("x")
    for file, told in (("other.pth", "not the weights of torchvision"), ("text.pth", "not a weight file of PyTorch")):
        with pytest.raises(WeightsError, match=told):
            read_torchvision_ssd(tmp_path / file)
    _, theirs = twins("ssdlite")
    torch.save({"model": theirs.state_dict()}, tmp_path / "five.pth")
    with pytest.raises(WeightsError, match="has 5 classes, which are not COCO's"):
        read_torchvision_ssd(tmp_path / "five.pth")
    with pytest.raises(WeightsError, match="has 5 classes, 2 names"):
        read_torchvision_ssd(tmp_path / "five.pth", ["a", "b"])
    assert read_torchvision_ssd(tmp_path / "five.pth", list("abcde"))[0].categories.names == tuple("abcde")
