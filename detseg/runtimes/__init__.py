"""What runs a network: torch, or ONNX Runtime for exported models. torch is imported only where used."""

from __future__ import annotations

from pathlib import Path

from detseg.checkpoints.header import open_header
from detseg.errors import WeightsError
from detseg.runtimes.contract import Means, Parts, Runtime

__all__ = ["RUNTIMES", "Means", "Parts", "Runtime", "open_runtime"]

RUNTIMES = ("auto", "torch", "onnx")
_OF_KIND = {"safetensors": "torch", "onnx": "onnx"}


def open_runtime(weights: Path, *, runtime: str = "auto", device: str = "auto", threads: int | None = None) -> Runtime:
    """The model of a weight file, ready to `predict`.

    `runtime` "auto" goes by the file's content; `device` "auto" takes a GPU where the runtime can use one;
    `threads` limits the CPU threads of one call. Raises WeightsError for a file that this runtime
    cannot use, DetsegError for a device that is not there.
    """
    if runtime not in RUNTIMES:
        raise ValueError(f"runtime must be one of {', '.join(RUNTIMES)}, got {runtime!r}")
    fitting = _OF_KIND[open_header(weights)[0]]
    if runtime not in ("auto", fitting):
        remedy = f"make an ONNX model with: detseg export {weights}" if fitting == "torch" else "use --runtime onnx"
        raise WeightsError(f"{weights}: cannot be run by '{runtime}'; {remedy}")
    if fitting == "onnx":
        from detseg.runtimes.onnx_runtime import OnnxRuntime

        return OnnxRuntime(weights, device=device, threads=threads)
    from detseg.runtimes.torch_runtime import TorchRuntime

    return TorchRuntime(weights, device=device, threads=threads)
