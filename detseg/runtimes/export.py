"""Trained models as ONNX: one file that needs no torch, checked against its source before it is kept."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from detseg.checkpoints.card import Card
from detseg.checkpoints.header import KEY
from detseg.detectors.contract import Detector
from detseg.errors import DetsegError, ExportError
from detseg.files import replacing
from detseg.postprocess.label_maps import shares
from detseg.preprocess import Preprocess
from detseg.preprocess.placement import MULTIPLE
from detseg.results import RawDetections
from detseg.runtimes.network import FrameNetwork, fused, read_network
from detseg.runtimes.onnx_runtime import INPUT, LOGITS, MASKS, OUTPUTS, OnnxRuntime
from detseg.segmenters.contract import Segmenter

OPSET = 18
_HALVED_FROM = 256  # elements; a smaller tensor is not worth its Cast


@dataclass(frozen=True)
class Difference:
    """The largest difference between two answers: of a score (a part of a mask, a class's share of a pixel), and of a
    box in pixels.

    A box whose longer side is over 100 px counts in proportion, since its error grows with it.
    """

    box_px: float
    score: float

    def within(self, other: Difference) -> bool:
        """Whether neither number is above the other's."""
        return self.box_px <= other.box_px and self.score <= other.score

    def __str__(self) -> str:
        return f"boxes {self.box_px:.2g} px, scores {self.score:.2g}"


GRAPH_TOLERANCE = Difference(box_px=0.01, score=1e-4)  # the same numbers through another program
HALF_TOLERANCE = Difference(box_px=1.0, score=0.02)  # the numbers of half-precision weights


@dataclass(frozen=True)
class ExportReport:
    """What was written and how it was checked.

    `graph`: ONNX Runtime against torch with the very weights of the file; `rounding`: against the source as
    trained, which differs by what half precision takes from the weights.
    """

    path: Path
    bytes: int
    half: bool
    opset: int
    frame_hw: tuple[int, int]
    frames_checked: int
    graph: Difference
    rounding: Difference


def export_onnx(
    weights: Path,
    out: Path,
    *,
    half: bool = True,
    frame_hw: tuple[int, int] | None = None,
    opset: int = OPSET,
) -> ExportReport:
    """Writes the model of a .safetensors file as ONNX: uint8 `frames` (N, H, W, 3) RGB -> `boxes`, `scores`.

    Of a segmenter it answers with `logits` (N, K, H, W).

    Any batch size, one frame size: `frame_hw`, or the card's; a model whose frames have their pictures' shape is
    letterboxed from then on. The normalisation and the card are inside.
    `half` stores kernels and matrices as float16, computed with as float32. Nothing is kept unless torch and
    ONNX Runtime agree. Raises ExportError when they do not, WeightsError for bad weights, DetsegError without
    the onnx package or for a model of two stages.
    """
    _expect_packages()
    card, source = read_network(weights)
    _expect_one_stage(weights, card, source.model)
    card = replace(card, preprocess=_at_one_size(card.preprocess, frame_hw))
    network = fused(source, card.preprocess.frame_hw)
    if half:
        network = _rounded(network)
    model = _converted(network, card, opset)
    if half:
        _store_as_half(model)
    with replacing(out) as temporary:
        temporary.write_bytes(model.SerializeToString())
        graph, rounding, count = _check(temporary, network, source, half)
        return ExportReport(
            out, temporary.stat().st_size, half, opset, card.preprocess.frame_hw, count, graph, rounding
        )


def _expect_one_stage(weights: Path, card: Card, model: Detector | Segmenter) -> None:
    if isinstance(model, Segmenter):
        return
    if model.takes_proposals:
        raise DetsegError(
            f"{weights}: {card.model} looks at proposals that are made beside the network, and an exported graph has "
            "none; use the .safetensors weights as they are, or export a one-stage model (yolo, ssd)"
        )
    if model.takes_sizes:
        raise DetsegError(
            f"{weights}: {card.model} takes frames of any shape and chooses boxes inside, which an exported graph of "
            "one frame size cannot; use the .safetensors weights as they are, or export a one-stage model (yolo, ssd)"
        )


def _at_one_size(preprocess: Preprocess, frame_hw: tuple[int, int] | None) -> Preprocess:
    """What the graph is made for: where frames have their pictures' shape, the one that holds its limits."""
    if preprocess.fit != "shorter":
        return preprocess if frame_hw is None else replace(preprocess, frame_hw=frame_hw)
    height, width = (-(-side // MULTIPLE) * MULTIPLE for side in preprocess.frame_hw)
    return replace(preprocess, fit="letterbox", frame_hw=frame_hw or (height, width))


def _expect_packages() -> None:
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise DetsegError(
            f'exporting needs the package {" and ".join(missing)}; install with: pip install "detseg[export]"'
        )


@torch.no_grad()
def _rounded(network: FrameNetwork) -> FrameNetwork:
    """A copy whose kernels and matrices are numbers that float16 holds exactly."""
    twin = copy.deepcopy(network)
    for parameter in twin.parameters():
        rounded = parameter.half().float()
        if parameter.ndim >= 2 and bool(torch.isfinite(rounded).all()):
            parameter.copy_(rounded)
    return twin


def _converted(network: FrameNetwork, card: Card, opset: int) -> Any:
    """The ModelProto of `network`, free of traces of this machine, with the card."""
    frames = torch.zeros((2, *card.preprocess.frame_hw, 3), dtype=torch.uint8)  # 1 would be taken for a constant
    try:
        with _silence(), torch.no_grad():
            names = [LOGITS] if card.task == "segment" else [*OUTPUTS, MASKS][: len(network(frames))]
            program = torch.onnx.export(
                network,
                (frames,),
                input_names=[INPUT],
                output_names=names,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                opset_version=opset,
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        cause = str(error.__cause__ or error).strip().splitlines()[0]
        raise ExportError(f"'{card.model}' cannot be written as ONNX: {cause}") from error
    assert program is not None
    model = program.model_proto
    _strip(model)
    model.metadata_props.add(key=KEY, value=card.to_json_text())
    return model


@contextmanager
def _silence() -> Iterator[None]:
    """The exporter talks to its developers, by warnings and by logging."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _strip(model: Any) -> None:
    """Takes out what the exporter notes for debugging: stack traces with this machine's paths."""
    for thing in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.functions):
        thing.ClearField("metadata_props")
        thing.ClearField("doc_string")
    for thing in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        thing.ClearField("metadata_props")
    model.graph.ClearField("value_info")  # shapes within; they are inferred again when loaded


def _store_as_half(model: Any) -> None:
    """Stores as float16 what it holds exactly, with a Cast that ONNX Runtime computes once, when it loads."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            halved = values.astype(np.float16)
        if values.size < _HALVED_FROM or not np.array_equal(halved.astype(np.float32), values):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(halved, f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], f"{name}.cast", to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    model.graph.ClearField("node")
    model.graph.node.extend(nodes)


def _check(path: Path, network: FrameNetwork, source: FrameNetwork, half: bool) -> tuple[Difference, Difference, int]:
    """The two differences over batches of 1 and 3; ExportError when one is too large."""
    runtime = OnnxRuntime(path, device="cpu")
    batches = [_test_frames(n, runtime.card.preprocess.frame_hw) for n in (1, 3)]
    given = [_asked(runtime, frames) for frames in batches]
    graph = _largest(difference(a, _answer(network, f)) for a, f in zip(given, batches, strict=True))
    if not graph.within(GRAPH_TOLERANCE):
        raise ExportError(
            f"the exported model differs from its source: {graph} (allowed: {GRAPH_TOLERANCE}); nothing was written"
        )
    rounding = _largest(difference(a, _answer(source, f)) for a, f in zip(given, batches, strict=True))
    if not rounding.within(HALF_TOLERANCE):
        remedy = "export with --no-half" if half else "this is a defect of detseg"
        raise ExportError(
            f"the exported model differs from its source: {rounding} (allowed: {HALF_TOLERANCE}); "
            f"nothing was written; {remedy}"
        )
    return graph, rounding, sum(map(len, batches))


Answer = RawDetections | NDArray[np.float32]


def difference(a: Answer, b: Answer) -> Difference:
    """Between two answers to the same frames; infinite where shapes differ or numbers are not finite."""
    if isinstance(a, RawDetections) and isinstance(b, RawDetections):
        return _of_detections(a, b)
    mine, other = np.asarray(a), np.asarray(b)
    if mine.shape != other.shape or not (np.isfinite(mine).all() and np.isfinite(other).all()):
        return Difference(np.inf, np.inf)
    return Difference(0.0, float(np.abs(shares(mine) - shares(other)).max(initial=0)))


def _of_detections(a: RawDetections, b: RawDetections) -> Difference:
    arrays = [array for array in (*a, *b) if array is not None]
    if [np.shape(array) for array in a] != [np.shape(array) for array in b]:
        return Difference(np.inf, np.inf)
    if not all(np.isfinite(array).all() for array in arrays):
        return Difference(np.inf, np.inf)
    side = (b.boxes[..., 2:] - b.boxes[..., :2]).max(axis=-1, keepdims=True)
    boxes = np.abs(a.boxes - b.boxes) / np.maximum(1, side / 100)
    sure = [(a.scores, b.scores), *([] if a.masks is None else [(a.masks, b.masks)])]
    return Difference(float(boxes.max(initial=0)), max(float(np.abs(x - y).max(initial=0)) for x, y in sure))


def _largest(differences: Iterator[Difference]) -> Difference:
    listed = list(differences)
    return Difference(max(d.box_px for d in listed), max(d.score for d in listed))


def _asked(runtime: OnnxRuntime, frames: NDArray[np.uint8]) -> Answer:
    return runtime.segment(frames) if runtime.card.task == "segment" else runtime.predict(frames)


@torch.no_grad()
def _answer(network: FrameNetwork, frames: NDArray[np.uint8]) -> Answer:
    parts = [part.numpy() for part in network(torch.from_numpy(frames))]
    return parts[0] if isinstance(network.model, Segmenter) else RawDetections(*parts)


def _test_frames(count: int, frame_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """Coloured patches with noise: edges and flat places, as pictures have them."""
    random = np.random.default_rng(count)
    height, width = frame_hw
    patches = random.integers(0, 256, (count, -(-height // 32), -(-width // 32), 3))
    large = patches.repeat(32, axis=1).repeat(32, axis=2)[:, :height, :width]
    return np.clip(large + random.normal(0, 20, large.shape), 0, 255).astype(np.uint8)
