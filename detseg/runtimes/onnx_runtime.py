"""Exported models on ONNX Runtime; torch is never imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detseg.checkpoints.header import open_header
from detseg.errors import DetsegError, WeightsError
from detseg.runtimes.contract import Doors

INPUT, OUTPUTS = "frames", ["boxes", "scores"]  # of every model that detseg exports
MASKS = "masks"  # of one that outlines its objects
LOGITS = "logits"  # what a segmenter answers with, alone


class OnnxRuntime(Doors):
    """A model exported by detseg. See `contract.Runtime`."""

    name, any_size = "onnx", False

    def __init__(self, weights: Path, *, device: str = "auto", threads: int | None = None) -> None:
        kind, self.card = open_header(weights)
        if kind != "onnx":
            raise WeightsError(f"{weights}: not an ONNX model; make one with: detseg export {weights}")
        self._path = weights
        self._session, self.device = _session(weights, device, threads)
        self._expect_contract()

    def _run(
        self,
        frames: NDArray[np.uint8],
        sizes_hw: NDArray[np.int64] | None,
        proposals: Sequence[NDArray[np.float32]] | None,
    ) -> list[Any]:
        """H, W: the export's, all shown, whatever `sizes_hw` says."""
        if frames.shape[1:3] != self.card.preprocess.frame_hw:
            height, width = self.card.preprocess.frame_hw
            raise WeightsError(
                f"{self._path}: exported for frames of {height}x{width} pixels, given "
                f"{frames.shape[1]}x{frames.shape[2]}; use the .safetensors weights, or export with --imgsz"
            )
        answer: list[Any] = self._session.run(self._outputs, {INPUT: np.ascontiguousarray(frames)})
        return answer

    def _expect_contract(self) -> None:
        """The graph must be what its card says, so that a wrong file fails here and not among the boxes."""
        inputs = [(i.name, i.type, i.shape[1:]) for i in self._session.get_inputs()]
        outputs = {o.name: o.shape for o in self._session.get_outputs()}
        frame_hw, classes = self.card.preprocess.frame_hw, len(self.card.categories)
        if self.card.task == "segment":
            self._outputs = [LOGITS]
            fits = outputs.get(LOGITS, [])[1:] == [classes, *frame_hw]
        else:
            self._outputs = [*OUTPUTS, *([MASKS] if MASKS in outputs else [])]
            fits = (
                set(OUTPUTS) <= set(outputs)
                and outputs["boxes"][2:] == [4]
                and outputs["scores"][2:] == [classes]
                and len(outputs.get(MASKS, [1] * 4)) == 4
            )
        if inputs != [(INPUT, "tensor(uint8)", [*frame_hw, 3])] or not fits:
            raise WeightsError(f"{self._path}: its inputs and outputs are not those of a model detseg exports")


def _session(weights: Path, device: str, threads: int | None) -> tuple[Any, str]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what is wrong is told by the exception
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    if threads is not None:
        options.intra_op_num_threads = threads
    provider, name = _provider(device, onnxruntime.get_available_providers())
    try:
        return onnxruntime.InferenceSession(str(weights), options, providers=provider), name
    except Exception as error:  # ONNX Runtime has a class of its own for every way a model can be wrong
        cause = " ".join(str(error).split())[:200]
        raise WeightsError(f"{weights}: ONNX Runtime cannot load it: {cause}") from error


def _provider(device: str, available: list[str]) -> tuple[list[Any], str]:
    if device in ("auto", "cpu"):
        return ["CPUExecutionProvider"], "cpu"
    kind, _, index = device.partition(":")
    if kind == "cuda" and "CUDAExecutionProvider" in available:
        return [("CUDAExecutionProvider", {"device_id": index or "0"})], f"cuda:{index or 0}"
    raise DetsegError(
        f"this ONNX Runtime cannot use the device '{device}'; use --device cpu, or the .safetensors weights"
    )
