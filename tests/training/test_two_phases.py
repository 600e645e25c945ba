"""The head alone, then the backbone too. Oracles: runs that must not differ, and bits that must not move."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from detseg.annotations.sample import write_sample
from detseg.training.config import TrainConfig
from detseg.training.folder import state_file
from detseg.training.setup import prepare
from tests.training.test_training import run, small


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    return write_sample(tmp_path_factory.mktemp("shapes"), format="voc", images=10, seed=1, hw=(64, 64))


def thin(data: Path, **changes) -> TrainConfig:
    """Two steps an epoch, frames of which no epoch differs in kind from another."""
    values = {
        "backbone": "mobilenet_v3_small", "batch": 4, "mosaic": 0.0, "multi_scale": 0.0, "eval_every": 9,
        "freeze_stages": 1, "epochs": 4, "finetune_at": 2,
    }  # fmt: skip
    return small(data, **{**values, **changes})


def test_the_backbone_joins_when_told(shapes, tmp_path):
    config = thin(shapes)
    start = prepare(config, "x").model
    whole = run(config, tmp_path / "whole")
    run(config, tmp_path / "half", stop_after=2)
    half = torch.load(state_file(tmp_path / "half"), weights_only=True)["parts"]
    for name, value in start.state_dict().items():
        if name.startswith("backbone."):
            assert torch.equal(half["model"][name], value), name
            assert torch.equal(half["average"]["state"][name], value), name
    frozen = {f"backbone.{name}" for name in _names_of_first_stage(start.backbone)}
    moved = {name for name, value in start.state_dict().items() if not torch.equal(value, whole[name])}
    assert {name for name in whole if name.startswith("backbone.")} - moved == frozen
    # what did not learn has no moments, and those of AdamW are counted from when it does
    ended = torch.load(state_file(tmp_path / "whole"), weights_only=True)["parts"]["optimizer"]
    learning = [name for name, p in start.named_parameters() if p.requires_grad and name not in frozen]
    assert len(half["optimizer"]["state"]) == sum(not name.startswith("backbone.") for name in learning)
    assert len(ended["state"]) == len(learning)
    assert {int(moments["step"]) for moments in half["optimizer"]["state"].values()} == {4}
    assert {int(moments["step"]) for moments in ended["state"].values()} == {4, 8}


def test_the_first_phase_is_a_run_of_the_head_alone(shapes, tmp_path):
    config = thin(shapes, plain_epochs=0)
    run(config, tmp_path / "two", stop_after=2)
    run(thin(shapes, plain_epochs=0, epochs=2, finetune_at=0, freeze_stages="all"), tmp_path / "alone")
    two, alone = (torch.load(state_file(tmp_path / name), weights_only=True)["parts"] for name in ("two", "alone"))
    assert all(torch.equal(two["model"][name], value) for name, value in alone["model"].items())
    assert all(torch.equal(two["average"]["state"][name], value) for name, value in alone["average"]["state"].items())


def test_the_second_phase_is_a_run_that_goes_on_from_the_first(shapes, tmp_path):
    """With plain SGD without momentum nothing is carried over but the weights: a run from them ends the same."""
    config = thin(shapes, plain_epochs=0, optimizer="sgd", ema=0, warmup_epochs=0, finetune_lr=0.5, final_lr=1.0)

    def without_momentum(config, folder, **named):
        with pytest.MonkeyPatch.context() as patched:
            sgd = torch.optim.SGD
            patched.setattr(torch.optim, "SGD", lambda groups, lr, **_: sgd(groups, lr=lr))
            return run(config, folder, **named)

    without_momentum(config, tmp_path / "two", stop_after=2)
    half = torch.load(state_file(tmp_path / "two"), weights_only=True)["parts"]["model"]
    two = without_momentum(config, tmp_path / "two")
    # at half the rate, and never in two phases; its weights after two epochs are replaced by those of the first run
    one = thin(shapes, plain_epochs=0, optimizer="sgd", ema=0, warmup_epochs=0, lr=0.5e-3, final_lr=1.0, finetune_at=0)
    without_momentum(one, tmp_path / "one", stop_after=2)
    bundle = torch.load(state_file(tmp_path / "one"), weights_only=True)
    assert any(not torch.equal(bundle["parts"]["model"][name], value) for name, value in half.items())
    bundle["parts"]["model"] = half
    torch.save(bundle, state_file(tmp_path / "one"))
    after = without_momentum(one, tmp_path / "one")
    assert all(torch.equal(two[name], after[name]) for name in two)


def _names_of_first_stage(backbone) -> set[str]:
    """MobileNetV3-small steps in its first convolution and in its first block."""
    return {name for name in backbone.state_dict() if name.startswith("net.features.0.")}
