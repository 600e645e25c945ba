"""Recipes: what they set, what wins against them, what cannot be. Oracle: the textbook's table, the run's config."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from detseg.annotations.sample import write_sample
from detseg.checkpoints import load, save
from detseg.errors import DetsegError
from detseg.training.config import TrainConfig
from detseg.training.setup import prepare
from detseg.training.transfer import is_little

ENOUGH = {"pictures": 1000, "objects": 300, "classes": 3}


def checked(**values) -> TrainConfig:
    return TrainConfig.checked({"data": "d", **values}, "options")


def settings(config: TrainConfig) -> tuple:
    return config.freeze_stages, config.freeze_bn, config.backbone_lr, config.layer_decay, config.finetune_at


@pytest.mark.parametrize(
    ("likeness", "little", "recipe"),
    [("similar", True, "head"), ("different", True, "late"), ("similar", False, "all"), ("different", False, "all")],
)
def test_the_four_cases(likeness, little, recipe):
    settled = checked(transfer=likeness, epochs=30).settled(little=little)
    assert settled.transfer == recipe
    assert settled == checked(transfer=recipe, epochs=30)


def test_what_learns_grows_from_recipe_to_recipe():
    data = TrainConfig(data="d")
    assert settings(data) == (2, True, 0.2, 1.0, 0)  # what it is without a recipe
    assert settings(checked(transfer="head")) == ("all", True, 0.2, 1.0, 0)
    assert settings(checked(transfer="late")) == (3, True, 0.2, 1.0, 0)
    assert settings(checked(transfer="all")) == (0, False, 0.2, 0.8, 0)
    scratch = checked(transfer="scratch")
    assert settings(scratch) == (0, False, 1.0, 1.0, 0)
    assert scratch.backbone_weights is None


def test_what_is_given_by_hand_wins(tmp_path):
    config = checked(transfer="late", freeze_stages=1, finetune_at=2)
    assert settings(config) == (1, True, 0.2, 1.0, 2)
    chosen = checked(transfer="similar", backbone_lr=0.7, freeze_stages=4).settled(little=True)
    assert settings(chosen) == (4, True, 0.7, 1.0, 0)
    # the model's own wish gives way to the recipe, the hand to neither
    assert checked(model="rcnn").freeze_stages == 3
    assert checked(model="rcnn", transfer="all").freeze_stages == 0
    assert checked(model="rcnn", transfer="different").settled(little=False).freeze_stages == 0
    assert checked(model="rcnn", transfer="all", freeze_stages=1).freeze_stages == 1


def test_a_recipe_for_a_run_that_is_repeated_sets_its_settings_anew(tmp_path):
    checked(transfer="late", epochs=20, lr=0.5).save(tmp_path / "config.yaml")
    again = TrainConfig.load(tmp_path / "config.yaml")
    assert again == checked(transfer="late", epochs=20, lr=0.5)
    other = TrainConfig.load(tmp_path / "config.yaml", transfer="head", backbone_lr=0.3)
    assert settings(other) == ("all", True, 0.3, 1.0, 0)
    assert (other.epochs, other.lr) == (20, 0.5)
    longer = TrainConfig.load(tmp_path / "config.yaml", epochs=40)  # as it was, nothing more
    assert settings(longer) == (3, True, 0.2, 1.0, 0)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"finetune_at": 60}, "options: finetune_at: the backbone joins after 60 epochs and there are 60"),
        ({"finetune_at": 1, "freeze_stages": "all"}, "options: finetune_at: a backbone that is frozen whole"),
        ({"transfer": "scratch", "weights": "a.safetensors"}, "options: transfer: from scratch means without"),
        ({"transfer": "scratch", "backbone_weights": "imagenet"}, "options: transfer: from scratch means without"),
        ({"transfer": "head", "backbone_weights": None}, "options: transfer: head goes on from what was learnt"),
        ({"transfer": "similar", "model": "unet-valid"}, "similar goes on .*, and unet-valid would start at random"),
        ({"freeze_stages": "some"}, "options: freeze_stages: .*'all'"),
        ({"freeze_stages": -1}, "options: freeze_stages: .*greater than or equal to 0"),
        ({"layer_decay": 0}, "options: layer_decay: .*greater than 0"),
    ],
)
def test_what_cannot_be_is_told(values, told):
    with pytest.raises(DetsegError, match=told):
        checked(**values)


def test_little_is_few_pictures_or_few_objects():
    assert not is_little(**ENOUGH)
    assert is_little(**{**ENOUGH, "pictures": 999})
    assert is_little(**{**ENOUGH, "objects": 299})
    assert not is_little(**{**ENOUGH, "objects": None})


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    return write_sample(tmp_path_factory.mktemp("shapes"), format="coco", images=5, seed=1, hw=(64, 64))


def tiny(data: Path, **changes) -> TrainConfig:
    values = {"data": str(data), "imgsz": 64, "options": {"neck_channels": 16}, "backbone": "mobilenet_v3_small"}
    return TrainConfig(**{**values, "backbone_weights": None, **changes})


def test_the_data_choose_the_recipe_and_the_card_tells_it(shapes, tmp_path):
    first = prepare(tiny(shapes), "x")
    save(tmp_path / "first.safetensors", first.card, first.model.state_dict())
    prepared = prepare(tiny(shapes, transfer="similar", weights=str(tmp_path / "first.safetensors")), "x")
    assert prepared.likeness == "similar"
    assert prepared.config.transfer == prepared.card.training["settings"]["transfer"] == "head"
    learning = {name.split(".")[0] for name, p in prepared.model.named_parameters() if p.requires_grad}
    assert "backbone" not in learning
    assert learning
    prepared.config.save(tmp_path / "config.yaml")
    written = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert (written["transfer"], written["freeze_stages"]) == ("head", "all")
    assert TrainConfig.load(tmp_path / "config.yaml") == prepared.config


def test_what_is_taken_from_a_checkpoint_of_other_classes(shapes, tmp_path):
    """Oracle: the tensors themselves, and a layer cut out of the file by hand."""
    first = prepare(tiny(shapes), "x")
    for parameter in first.model.parameters():
        torch.nn.init.uniform_(parameter, 1, 2)
    state = dict(first.model.state_dict())
    gone = next(name for name in state if name.startswith("neck.")).rpartition(".")[0]
    state = {name: value for name, value in state.items() if not name.startswith(f"{gone}.")}
    from dataclasses import replace

    names = ("circle", "hexagon", "triangle")
    assert first.card.categories.names == ("circle", "square", "triangle")
    card = replace(first.card, categories=replace(first.card.categories, names=names))
    save(tmp_path / "other.safetensors", card, state)
    prepared = prepare(tiny(shapes, weights=str(tmp_path / "other.safetensors"), anchors="model"), "x")
    found, own = prepared.inherited, prepared.model.state_dict()
    assert (found.model, found.classes) == ("yolo", 3)
    assert (found.known, found.unknown) == (("circle", "triangle"), ("square",))
    assert found.anew == (gone,)
    saved = load(tmp_path / "other.safetensors")[1]
    for name, value in own.items():
        layer = name.rpartition(".")[0]
        same = name in saved and torch.equal(value, saved[name])
        assert (layer in found.whole) == (same or layer in found.whole), name
        if layer in found.whole:
            assert same, name
        elif layer in found.by_class:
            assert not same
            assert torch.isin(value, saved[name]).float().mean() > 0.5  # but for the row of squares
    assert found.by_class
    layers = {name.rpartition(".")[0] for name in own}
    assert layers == {*found.whole, *found.by_class, *found.anew}
    kept = sum(value.numel() for name, value in own.items() if name.rpartition(".")[0] in found.whole)
    assert found.share == pytest.approx(kept / sum(value.numel() for value in own.values()))
