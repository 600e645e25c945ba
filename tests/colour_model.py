"""A real ONNX model whose answer is known: it boxes what is red, and what is green, in a picture.

Two candidates, two classes: the box around all red pixels as "red", around all green ones as "green", each
with a score of 0.9, or 0 where there are none. Tests of the command line run it on the real ONNX Runtime and
need no trained weights.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

from detseg.annotations import Categories
from detseg.checkpoints import Card
from detseg.preprocess import Preprocess

NAMES, IDS = ("red", "green"), (7, 3)  # ids with holes and not in order
FRAME_HW = (160, 192)


def card(frame_hw: tuple[int, int] = FRAME_HW, names: tuple[str, str] = NAMES) -> Card:
    """The card of the model."""
    return Card(model="yolo", config={}, categories=Categories(IDS, names), preprocess=Preprocess(frame_hw=frame_hw))


def write_colour_model(
    path: Path,
    frame_hw: tuple[int, int] = FRAME_HW,
    names: tuple[str, str] = NAMES,
    scores: tuple[float, float] = (0.9, 0.9),
) -> Path:
    """Writes the model as an export of detseg; `names` and `scores`: of what is red, and of what is green."""
    constants = _constants(frame_hw)
    constants |= {"class0": np.array([scores[0], 0], np.float32), "class1": np.array([0, scores[1]], np.float32)}
    nodes = [helper.make_node("Cast", ["frames"], ["pixels"], to=TensorProto.FLOAT)]
    for colour, (strong, weak) in enumerate(((0, 1), (1, 0))):
        nodes += _one_colour(colour, strong, weak)
    nodes += [
        helper.make_node("Concat", ["box0", "box1"], ["boxes"], axis=1),
        helper.make_node("Concat", ["score0", "score1"], ["scores"], axis=1),
    ]
    height, width = frame_hw
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["batch", height, width, 3])],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["batch", 2, 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 2, 2]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    model.metadata_props.add(key="detseg", value=card(frame_hw, names).to_json_text())
    path.parent.mkdir(parents=True, exist_ok=True)
    save(model, path)
    return path


def _constants(frame_hw: tuple[int, int]) -> dict[str, np.ndarray]:
    height, width = frame_hw
    return {
        "channel0": np.int64(0),
        "channel1": np.int64(1),
        "channel2": np.int64(2),
        "high": np.float32(150),
        "low": np.float32(100),
        "xs": np.arange(1, width + 1, dtype=np.float32),
        "ys": np.arange(1, height + 1, dtype=np.float32),
        "xs_back": np.arange(width, 0, -1, dtype=np.float32),
        "ys_back": np.arange(height, 0, -1, dtype=np.float32),
        "width": np.float32(width),
        "height": np.float32(height),
        "axis1": np.array([1], np.int64),
        "axis2": np.array([2], np.int64),
        "axes12": np.array([1, 2], np.int64),
    }


def _one_colour(i: int, strong: int, weak: int) -> list[object]:
    """box{i} (N, 1, 4), score{i} (N, 1, 2) of the pixels with much of one channel, little of the others."""

    def node(kind: str, inputs: list[str], output: str, **attributes: object) -> object:
        return helper.make_node(kind, [f"{n}.{i}" if n[0] == "_" else n for n in inputs], [output], **attributes)

    def own(kind: str, inputs: list[str], output: str, **attributes: object) -> object:
        return node(kind, inputs, f"{output}.{i}", **attributes)

    nodes = [
        own("Gather", ["pixels", f"channel{strong}"], "_strong", axis=3),
        own("Gather", ["pixels", f"channel{weak}"], "_weak", axis=3),
        own("Gather", ["pixels", "channel2"], "_blue", axis=3),
        own("Greater", ["_strong", "high"], "_is_strong"),
        own("Less", ["_weak", "low"], "_is_not_weak"),
        own("Less", ["_blue", "low"], "_is_not_blue"),
        own("And", ["_is_strong", "_is_not_weak"], "_both"),
        own("And", ["_both", "_is_not_blue"], "_all"),
        own("Cast", ["_all"], "_mask", to=TensorProto.FLOAT),
        own("ReduceMax", ["_mask", "axis1"], "_columns", keepdims=0),  # (N, W)
        own("ReduceMax", ["_mask", "axis2"], "_rows", keepdims=0),  # (N, H)
        own("ReduceMax", ["_mask", "axes12"], "_any", keepdims=1),  # (N, 1, 1)
    ]
    for side, line, positions in (("x", "_columns", "xs"), ("y", "_rows", "ys")):
        nodes += [
            own("Mul", [line, positions], f"_{side}_ends"),
            own("ReduceMax", [f"_{side}_ends", "axis1"], f"_{side}2", keepdims=1),
            own("Mul", [line, f"{positions}_back"], f"_{side}_starts"),
            own("ReduceMax", [f"_{side}_starts", "axis1"], f"_{side}_from_end", keepdims=1),
            own("Sub", ["width" if side == "x" else "height", f"_{side}_from_end"], f"_{side}1"),
        ]
    return [
        *nodes,
        own("Concat", ["_x1", "_y1", "_x2", "_y2"], "_flat", axis=1),
        node("Unsqueeze", ["_flat", "axis1"], f"box{i}"),
        node("Mul", ["_any", f"class{i}"], f"score{i}"),
    ]
