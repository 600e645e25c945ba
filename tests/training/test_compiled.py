"""--compile: the same training, the same names in what is stored, a plain word where it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from detseg.annotations.sample import write_sample
from detseg.checkpoints import load
from detseg.errors import DetsegError
from detseg.training import compiled
from detseg.training.config import TrainConfig
from tests.short_runs import run


def trained(data: Path, folder: Path, *, stop_after: int | None = None, **changes) -> dict[str, torch.Tensor]:
    config = TrainConfig(
        data=str(data), model="unet-valid", imgsz=124, epochs=2, batch=4, workers=0, eval_every=2, multi_scale=0,
        backbone_weights=None, options={"width": 4, "steps": 2, "dropout": 0.0}, **changes,
    )  # fmt: skip
    return run(config, folder, lambda model: {"miou": 0.5}, stop_after)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    return write_sample(tmp_path_factory.mktemp("shapes"), format="voc", images=10, seed=1, hw=(64, 96))


def test_a_compiled_run_is_stored_and_resumed_like_another(shapes, tmp_path, monkeypatch) -> None:
    """With dynamo and without a compiler, whose numbers are those of the uncompiled run to the last bit."""
    seen: list[int] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> object:
        seen.append(len(list(graph.graph.nodes)))
        return graph.forward

    monkeypatch.setattr(compiled, "BACKEND", backend)
    plain = trained(shapes, tmp_path / "plain")
    assert not seen
    whole = trained(shapes, tmp_path / "whole", compile=True)
    assert max(seen) > 15  # the contracting path
    trained(shapes, tmp_path / "parts", compile=True, stop_after=1)
    parts = trained(shapes, tmp_path / "parts", compile=True)
    assert list(plain) == list(whole)
    assert all(torch.equal(plain[name], whole[name]) for name in plain)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    stored = [load(tmp_path / which / "weights" / "last.safetensors")[1] for which in ("plain", "whole", "parts")]
    assert set(stored[0]) == set(stored[1]) == set(stored[2]) == set(plain)
    assert all(torch.equal(stored[0][name], stored[2][name]) for name in plain)


def test_a_machine_without_a_compiler_is_told_at_once(shapes, tmp_path, monkeypatch) -> None:
    def none(graph: object, inputs: object) -> object:
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(compiled, "BACKEND", none)
    with pytest.raises(DetsegError, match=r"(?s)^--compile: .*Leave --compile out$"):
        trained(shapes, tmp_path, compile=True)
    assert not (tmp_path / "state.pt").exists()
