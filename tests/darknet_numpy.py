"""Darknet's forward pass in plain numpy, written from its layers' definitions, with a reader of its own.

Slow and simple: the oracle for the network that detseg builds. `forward` answers every layer's output (C, H, W).
"""

from __future__ import annotations

import math

import numpy as np

ACTIVATIONS = {
    "linear": lambda x: x,
    "logistic": lambda x: 1 / (1 + np.exp(-x)),
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "leaky": lambda x: np.where(x > 0, x, 0.1 * x),
    "elu": lambda x: np.where(x >= 0, x, np.expm1(x)),
    "selu": lambda x: np.where(x >= 0, 1.0507 * x, 1.0507 * 1.6732 * np.expm1(x)),
    "gelu": lambda x: 0.5 * x * (1 + np.tanh(0.797885 * x + 0.035677 * x**3)),
    "mish": lambda x: x * np.tanh(np.logaddexp(0, x)),
    "hard_mish": lambda x: np.where(x > 0, x, np.where(x > -2, x * x / 2 + x, 0)),
    "swish": lambda x: x / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "loggy": lambda x: 2 / (1 + np.exp(-x)) - 1,
    "relie": lambda x: np.where(x > 0, x, 0.01 * x),
    "ramp": lambda x: x * (x > 0) + 0.1 * x,
    "plse": lambda x: np.where(x < -4, 0.01 * (x + 4), np.where(x > 4, 0.01 * (x - 4) + 1, 0.125 * x + 0.5)),
    "lhtan": lambda x: np.where(x < 0, 0.001 * x, np.where(x > 1, 0.001 * (x - 1) + 1, x)),
    "hardtan": lambda x: np.clip(x, -1, 1),
    "hard_swish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "hard_sigmoid": lambda x: np.clip(x + 3, 0, 6) / 6,
}


def sections(cfg: str) -> list[tuple[str, dict[str, str]]]:
    found: list[tuple[str, dict[str, str]]] = []
    for line in cfg.splitlines():
        line = line.replace(" ", "").replace("\t", "").replace("\r", "")
        if not line or line[0] in "#;":
            continue
        if line[0] == "[":
            found.append(({"conv": "convolutional"}.get(line[1:-1], line[1:-1]), {}))
        else:
            key, value = line.split("=", 1)
            found[-1][1][key] = value
    return found


def random_file(cfg: str, rng: np.random.Generator, version: tuple[int, int, int] = (0, 2, 5)) -> bytes:
    """A weight file of plausible random numbers for `cfg`: what flows through stays near 1."""
    numbers = [np.array(version, "<i4").tobytes()]
    numbers.append(np.array([7], "<u8" if version[0] * 10 + version[1] >= 2 else "<u4").tobytes())
    for filters, channels, size, norm in kernels(cfg):
        numbers.append(rng.normal(0, 0.3, filters))
        if norm:
            numbers += [rng.uniform(0.5, 1.5, filters), rng.normal(0, 0.3, filters), rng.uniform(0.5, 1.5, filters)]
        spread = (1.0 if norm else 0.3) * (channels * size * size) ** -0.5  # predictions near 0: no box of many frames
        numbers.append(rng.normal(0, spread, filters * channels * size * size))
    return b"".join(part if isinstance(part, bytes) else part.astype("<f4").tobytes() for part in numbers)


def kernels(cfg: str) -> list[tuple[int, int, int, bool]]:
    """(filters, channels of a group, size, batch norm) of every convolution."""
    found: list[tuple[int, int, int, bool]] = []
    layers = sections(cfg)[1:]
    shapes: list[int] = []
    for i, (name, o) in enumerate(layers):
        before = shapes[-1] if shapes else 3
        if name == "convolutional":
            filters, groups = int(o["filters"]), int(o.get("groups", 1))
            found.append((filters, before // groups, int(o["size"]), o.get("batch_normalize", "0") == "1"))
            before = filters
        elif name == "route":
            before = sum(shapes[at(i, j)] for j in o["layers"].split(",")) // int(o.get("groups", 1))
        elif name.startswith("reorg"):
            before *= int(o["stride"]) ** 2
        elif name in ("scale_channels", "sam"):
            before = shapes[at(i, o["from"])]
        shapes.append(before)
    return found


def at(here: int, number: str) -> int:
    return int(number) + (here if int(number) < 0 else 0)


def forward(cfg: str, weights: bytes, picture: np.ndarray) -> list[np.ndarray]:
    """picture (3, H, W) in 0..1 -> the output of every layer; of [yolo] and [region] what they are given."""
    major, minor = np.frombuffer(weights, "<i4", 2)
    flat = np.frombuffer(weights, "<f4", offset=20 if major * 10 + minor >= 2 else 16).astype(np.float64)
    used = 0

    def take(*shape: int) -> np.ndarray:
        nonlocal used
        used += math.prod(shape)
        return flat[used - math.prod(shape) : used].reshape(shape)

    outputs: list[np.ndarray] = []
    for i, (name, o) in enumerate(sections(cfg)[1:]):
        x = outputs[-1] if outputs else picture.astype(np.float64)
        named = [outputs[at(i, j)] for j in o.get("from", "").split(",") if j]
        if name == "convolutional":
            x = convolution(x, o, take)
        elif name in ("maxpool", "local_avgpool"):
            x = pooled(x, o, np.max if name == "maxpool" else np.mean)
        elif name == "avgpool":
            x = x.mean(axis=(1, 2), keepdims=True)
        elif name == "route":
            groups, group = int(o.get("groups", 1)), int(o.get("group_id", 0))
            maps = [outputs[at(i, j)] for j in o["layers"].split(",")]
            x = np.concatenate([m[len(m) // groups * group : len(m) // groups * (group + 1)] for m in maps])
        elif name == "shortcut":
            x = x.copy()
            for other in named:
                common = min(len(x), len(other))
                x[:common] += other[:common]
        elif name == "upsample":
            x = x.repeat(int(o["stride"]), axis=1).repeat(int(o["stride"]), axis=2) * float(o.get("scale", 1))
        elif name == "reorg":
            x = reorg(x, int(o["stride"]))
        elif name == "reorg3d":
            s = int(o["stride"])
            x = np.concatenate([x[:, dy::s, dx::s] for dy in range(s) for dx in range(s)])
        elif name in ("scale_channels", "sam"):
            x = x * named[0]
        elif name not in ("dropout", "cost", "yolo", "region"):
            raise ValueError(name)
        if name in ("shortcut", "scale_channels", "sam"):
            x = ACTIVATIONS[o.get("activation", "linear")](x)
        outputs.append(x)
    assert used == len(flat), (used, len(flat))
    return outputs


def convolution(x: np.ndarray, o: dict[str, str], take) -> np.ndarray:
    filters, size, groups = int(o["filters"]), int(o["size"]), int(o.get("groups", 1))
    stride_y, stride_x = (int(o.get(f"stride_{axis}", o.get("stride", 1))) for axis in "yx")
    dilation = int(o.get("dilation", 1))
    padding = (size // 2 if o.get("pad", "0") == "1" else int(o.get("padding", 0))) * dilation
    beta = take(filters)
    norm = [take(filters) for _ in range(3)] if o.get("batch_normalize", "0") == "1" else None
    kernel = take(groups, filters // groups, len(x) // groups, size, size)
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    rows = (x.shape[1] - dilation * (size - 1) - 1) // stride_y + 1
    cols = (x.shape[2] - dilation * (size - 1) - 1) // stride_x + 1
    out = np.zeros((groups, filters // groups, rows * cols))
    for dy in range(size):
        for dx in range(size):
            top, left = dy * dilation, dx * dilation
            seen = x[
                :, top : top + (rows - 1) * stride_y + 1 : stride_y, left : left + (cols - 1) * stride_x + 1 : stride_x
            ]
            out += kernel[..., dy, dx] @ seen.reshape(groups, -1, rows * cols)
    out = out.reshape(filters, rows, cols)
    each = (slice(None), None, None)
    if norm:
        scale, mean, variance = norm
        out = (out - mean[each]) / np.sqrt(variance[each] + 1e-5) * scale[each]
    return ACTIVATIONS[o["activation"].replace("-", "_")](out + beta[each])


def pooled(x: np.ndarray, o: dict[str, str], how) -> np.ndarray:
    """Windows begin `padding // 2` outside; what lies outside counts for nothing."""
    stride_y, stride_x = (int(o.get(f"stride_{axis}", o.get("stride", 1))) for axis in "yx")
    size = int(o["size"])
    padding = int(o.get("padding", size - 1))
    _, h, w = x.shape
    rows, cols = (h + padding - size) // stride_y + 1, (w + padding - size) // stride_x + 1
    out = np.zeros((len(x), rows, cols))
    for row in range(rows):
        for col in range(cols):
            top, left = row * stride_y - padding // 2, col * stride_x - padding // 2
            window = x[:, max(top, 0) : max(top + size, 0), max(left, 0) : max(left + size, 0)]
            out[:, row, col] = how(window, axis=(1, 2))
    return out


def reorg(x: np.ndarray, stride: int) -> np.ndarray:
    """Darknet's loop over flat memory, number by number."""
    c, h, w = x.shape
    flat, out = x.reshape(-1), np.zeros(x.size)
    out_c = c // stride**2
    for k in range(c):
        for j in range(h):
            for i in range(w):
                part = k // out_c
                col, row = i * stride + part % stride, j * stride + part // stride
                out[i + w * (j + h * k)] = flat[col + w * stride * (row + h * stride * (k % out_c))]
    return out.reshape(c * stride**2, h // stride, w // stride)


def boxes_and_scores(x: np.ndarray, name: str, o: dict[str, str], frame_hw: tuple[int, int]) -> list[tuple]:
    """What a [yolo] or [region] layer finds in its input: (box xyxy in pixels, class scores), cell by cell."""
    logistic = ACTIVATIONS["logistic"]
    flat = [float(v) for v in o["anchors"].split(",")]
    pairs = list(zip(flat[::2], flat[1::2], strict=True))
    mask = [int(v) for v in o["mask"].split(",")] if "mask" in o else range(len(pairs))
    classes, (_, rows, cols), (height, width) = int(o["classes"]), x.shape, frame_hw
    new, scale = o.get("new_coords", "0") == "1", float(o.get("scale_x_y", 1))
    found = []
    for a, m in enumerate(mask):
        for row in range(rows):
            for col in range(cols):
                t = x[a * (5 + classes) : (a + 1) * (5 + classes), row, col]
                px, py = (t[:2] if new else logistic(t[:2])) * scale - 0.5 * (scale - 1)
                side = (t[2:4] * 2) ** 2 if new else np.exp(t[2:4])
                unit = (width / cols, height / rows) if name == "region" else (1, 1)
                w, h = side * np.array(pairs[m]) * unit
                cx, cy = (col + px) / cols * width, (row + py) / rows * height
                objectness = t[4] if new else logistic(t[4])
                if o.get("softmax", "0") == "1":
                    share = np.exp(t[5:] - t[5:].max())
                    share /= share.sum()
                else:
                    share = t[5:] if new else logistic(t[5:])
                found.append(((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), objectness * share))
    return found
