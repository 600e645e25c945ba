"""A real ONNX segmenter whose answer is known: what is red is "red", what is green is "green", the rest background.

Tests of the command line run it on the real ONNX Runtime and need no trained weights.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

from detseg.annotations import Categories
from detseg.checkpoints import Card
from detseg.preprocess import Preprocess

NAMES, IDS = ("background", "red", "green"), (0, 7, 3)
FRAME_HW = (64, 96)


def write_colour_map_model(path: Path, frame_hw: tuple[int, int] = FRAME_HW) -> Path:
    """Writes the model as an export of detseg."""
    # logits: 100, red - green, green - red; a pixel is red where it has 100 more of red than of green
    weight = np.array([[0, 0, 0], [1, -1, 0], [-1, 1, 0]], np.float32).reshape(3, 3, 1, 1)
    constants = {"weight": weight, "bias": np.array([100, 0, 0], np.float32)}
    height, width = frame_hw
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["frames"], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("Conv", ["planes", "weight", "bias"], ["logits"]),
        ],
        "colours",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["batch", height, width, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3, height, width])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    card = Card(
        model="unet",
        config={},
        categories=Categories(IDS, NAMES),
        preprocess=Preprocess(frame_hw=frame_hw),
        task="segment",
    )
    model.metadata_props.add(key="detseg", value=card.to_json_text())
    path.parent.mkdir(parents=True, exist_ok=True)
    save(model, path)
    return path


def colour_picture(hw: tuple[int, int], red: tuple[int, int, int, int], green: tuple[int, int, int, int]) -> np.ndarray:
    """(h, w, 3) RGB grey with a red and a green rectangle (x1, y1, x2, y2)."""
    image = np.full((*hw, 3), 60, np.uint8)
    for (x1, y1, x2, y2), colour in ((red, (250, 20, 20)), (green, (20, 250, 20))):
        image[y1:y2, x1:x2] = colour
    return image
