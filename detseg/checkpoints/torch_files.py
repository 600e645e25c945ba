"""PyTorch's own weight files (.pth, .pt), read as data: named tensors and nothing that would have to be run.

torch is imported inside the functions, so that the room's doors stay free of it.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from detseg.checkpoints.header import expect_file
from detseg.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

_WRAPPERS = ("model", "state_dict", "model_state_dict")  # under what training scripts keep the tensors

# (what a file is, a name that only its tensors have, the same); asked in this order
_KNOWN: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("torchvision's Keypoint R-CNN", ("roi_heads.keypoint_predictor.kps_score_lowres.weight",)),
    ("torchvision's FCOS", ("head.regression_head.bbox_ctrness.weight",)),
    ("torchvision's RetinaNet", ("head.classification_head.cls_logits.weight", "backbone.body.conv1.weight")),
    ("a DETR", ("transformer.encoder.layers.0.self_attn.in_proj_weight", "class_embed.weight")),
)
_CLASSIFIERS = ("fc.weight", "classifier.weight", "classifier.1.weight", "classifier.3.weight", "classifier.6.weight",
                "head.weight", "heads.head.weight", "head.fc.weight")  # fmt: skip


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The named tensors of a PyTorch file: a state dict, or what training scripts wrap around one.

    Raises WeightsError for a file that is absent, damaged, cut short, or holds more than tensors and plain values.
    """
    content = _loaded(Path(path))
    if isinstance(content, Mapping):
        content = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), content)
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{path}: holds {_kind(content)}, not the named tensors of a network")
    strange = [f"{name!s:.40} ({type(value).__name__})" for name, value in content.items() if not _is_tensor(value)]
    if strange:
        raise WeightsError(f"{path}: holds more than the named tensors of a network: {', '.join(strange[:3])}")
    parallel = all(str(name).startswith("module.") for name in content)  # several GPUs trained it
    return {str(name).removeprefix("module." if parallel else ""): tensor for name, tensor in content.items()}


def described(tensors: Mapping[str, Tensor]) -> str:
    """What a state dict is of, for a message: a known kind of network, or how many tensors of which names."""
    for what, names in _KNOWN:
        if all(name in tensors for name in names):
            return f"the weights of {what}"
    last = next((name for name in _CLASSIFIERS if name in tensors and tensors[name].ndim == 2), None)
    if last is not None:
        count = len(tensors[last])
        return (
            f"the weights of a classifier ({last}: {count:,} classes); train a detector on it with --backbone-weights"
        )
    return f"{len(tensors):,} tensors ({', '.join(list(tensors)[:3])}, ...)"


def renamed_by(rules: Sequence[tuple[str, Any]], name: str) -> str:
    """The name by the first rule whose pattern it begins with, (pattern, replacement) as `re.sub` has them."""
    for pattern, new in rules:
        changed, count = re.subn(rf"^{pattern}", new, name)
        if count:
            return changed
    return name


def _loaded(path: Path) -> Any:
    import torch

    expect_file(path)
    try:
        # what torchvision's script was called with lies beside the weights: plain words and numbers
        with torch.serialization.safe_globals([(SimpleNamespace, "argparse.Namespace")]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        raise WeightsError(f"{path}: {_refused(path, str(error))}") from error
    except Exception as error:  # whatever a broken or hostile file makes its reader raise
        raise WeightsError(
            f"{path}: damaged, cut short, or not a weight file of PyTorch ({type(error).__name__}); copy or "
            "download it again"
        ) from error


def _refused(path: Path, cause: str) -> str:
    with path.open("rb") as file:
        start = file.read(2)
    if start != b"PK" and start[:1] != b"\x80":
        return "not a weight file of PyTorch"
    found = cause.partition("Unsupported global: GLOBAL ")[2].split(" ")[0]
    what = f" ({found})" if found else ""
    return (
        f"holds more than named tensors{what}, which could only be read by running it; have its maker save "
        "model.state_dict()"
    )


def _is_tensor(value: object) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _kind(content: object) -> str:
    return "nothing" if isinstance(content, Mapping) else f"a {type(content).__name__}"
