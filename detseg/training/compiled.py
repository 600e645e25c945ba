"""torch.compile of a model's network; what is stored of the model stays as it is."""

from __future__ import annotations

import torch
from torch import nn

from detseg.errors import DetsegError

BACKEND = "inductor"
# what follows one course whatever is in the pictures; matching, sampling and suppression would break the graph
_PARTS = ("backbone", "neck", "decoder", "head", "heads")


def compile_network(model: nn.Module, device: torch.device) -> None:
    """Has the parts of the network compiled when they are first called, in place: names of tensors do not change.

    Raises DetsegError where this machine cannot compile.
    """
    _expect_compiler(device)
    for name in _PARTS:
        part = getattr(model, name, None)
        if isinstance(part, nn.ModuleList):
            for layer in part:
                layer.compile(backend=BACKEND)
        elif isinstance(part, nn.Module):
            part.compile(backend=BACKEND)


def _expect_compiler(device: torch.device) -> None:
    """Compiles a few numbers: the machine says best itself what it lacks, and better now than after an hour."""
    try:
        torch.compile(_probe, backend=BACKEND)(torch.ones(8, device=device))
    except Exception as error:  # dynamo's own classes, the compiler's, the file system's
        why = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise DetsegError(
            f"--compile: this machine cannot compile for {device.type}: {why.strip()}; a C++ compiler (g++ or clang) "
            "and Python's headers are needed, for GPUs also triton. Leave --compile out"
        ) from error


def _probe(x: torch.Tensor) -> torch.Tensor:
    return (x * 2 + 1).relu()
