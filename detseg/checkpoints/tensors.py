"""Weight files of detseg: tensors and their card in one .safetensors; loading a model strictly.

torch is imported inside the functions, so that reading cards stays free of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from detseg.checkpoints.card import Card
from detseg.checkpoints.header import KEY, open_header
from detseg.errors import WeightsError
from detseg.files import replacing

if TYPE_CHECKING:
    from torch import Tensor, nn


def save(path: str | Path, card: Card, state: Mapping[str, Tensor], half: bool = False) -> None:
    """Writes `state` (a model's `state_dict()`) and its card to a .safetensors file, in one step.

    `half` stores matrices and kernels as float16; vectors (batch norm, biases) cost little and stay exact, as
    does a tensor with values beyond float16's range. The same input gives the same bytes.
    """
    from safetensors.torch import save_file

    # cloned: tensors that share memory are refused by the format
    tensors = {name: _stored(tensor.detach(), half).cpu().clone().contiguous() for name, tensor in state.items()}
    with replacing(path) as temporary:
        save_file(tensors, str(temporary), metadata={KEY: card.to_json_text()})


def load(path: str | Path) -> tuple[Card, dict[str, Tensor]]:
    """The card and the tensors of a .safetensors file; floating tensors come as float32.

    Raises WeightsError for a file that is damaged or not detseg's; nothing of it is ever executed.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    kind, card = open_header(path)
    if kind != "safetensors":
        raise WeightsError(f"{path}: an exported model; give the .safetensors it was exported from")
    try:
        tensors = load_file(str(path))
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise WeightsError(f"{path}: damaged: {error}; copy or download it again") from error
    return card, {n: t.to(torch.float32) if t.is_floating_point() else t for n, t in tensors.items()}


def load_into(model: nn.Module, state: Mapping[str, Tensor], where: str | Path) -> None:
    """Puts `state` into `model`, every tensor of both; `where` names the file in messages.

    Raises WeightsError naming what is missing, unexpected or of another shape; the model is then unchanged.
    """
    own = model.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
    report = [
        _some("missing", (n for n in own if n not in state)),
        _some("unexpected", (n for n in state if n not in own)),
        _some(
            "of another shape",
            (
                f"{n} {tuple(t.shape)} instead of {shapes[n]}"
                for n, t in state.items()
                if n in own and tuple(t.shape) != shapes[n]
            ),
        ),
    ]
    if any(report):
        raise WeightsError(f"{where}: its tensors do not fit the model: {'; '.join(filter(None, report))}")
    model.load_state_dict(dict(state))


def _stored(tensor: Tensor, half: bool) -> Tensor:
    import torch

    if not half or not tensor.is_floating_point() or tensor.ndim < 2:
        return tensor
    rounded = tensor.to(torch.float16)
    return rounded if bool(torch.isfinite(rounded).all()) else tensor


def _some(what: str, names: Iterable[str], shown: int = 3) -> str:
    listed = list(names)
    more = f" and {len(listed) - shown} more" if len(listed) > shown else ""
    return f"{len(listed)} {what} ({', '.join(listed[:shown])}{more})" if listed else ""
