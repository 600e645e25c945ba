"""What R-CNN learns behind fine-tuning, from features that are written down once: SVMs and box regressions.

R. Girshick, J. Donahue, T. Darrell, J. Malik 2014, arXiv 1311.2524v5: sec. 2.3, app. B and C. Hard negative mining:
P. Felzenszwalb, R. Girshick, D. McAllester, D. Ramanan: Object Detection with Discriminatively Trained Part-Based
Models, 2010, sec. 4.5. Numbers that neither tells are those of the authors' program.

    FOLDER/features/NUMBER.npz   the regions of a picture; see `write_features`
    FOLDER/svms.npz              all classes' SVMs
    FOLDER/regression-K.npz      the box regression of class K
Each is written in one step and not made again where it is there.

Shapes: M regions of a picture, its T objects first; K classes; V features that SVMs judge, D that boxes are moved by;
R regions that teach a regression.
"""

from __future__ import annotations

import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detseg.detectors.contract import Lessons, Target
from detseg.errors import DetsegError
from detseg.files import replacing
from detseg.parts.box_coder import BoxCoder
from detseg.parts.ground_truth import Truth
from detseg.parts.overlaps import inside_any, iou

Floats = NDArray[np.float32]

MEAN_NORM = 20.0  # features are scaled so that their norms have this mean (the authors' program)
HARD = -1.0001  # a negative that scores above this is a mistake, or on the margin (likewise)
EASY = -1.2  # one that scores below this is let go of (likewise)
LEARN_AFTER = 2000  # new hard negatives (likewise)
OBJECTS = 1000  # of a class, for which `svm_c` is meant: the paper's have so many; few could not move an SVM
PASSES = 3  # over the pictures at most; the paper's converges after one
_LARGEST = 65504.0  # of half precision
_NORMED = 100  # pictures that tell how long features are


class Featured(Protocol):
    """A network that says what regions look like."""

    def features(self, image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """(3, H, W), (M, 4) -> (M, D), (M, V)."""


class Settings(Protocol):
    """What the stages are told; see `RCNNConfig`."""

    @property
    def num_classes(self) -> int: ...

    @property
    def svm_negative_iou(self) -> float: ...

    @property
    def svm_c(self) -> float: ...

    @property
    def svm_positive_weight(self) -> float: ...

    @property
    def ridge(self) -> float: ...


# ---- features ----


def write_features(
    model: Featured, lessons: Lessons, folder: Path, *, classes: int, least_iou: float
) -> Iterator[tuple[int, int]]:
    """A file of features for each picture; tells pictures done and pictures in all.

    In each: `seen` (M, V) half precision, of the objects first, whose classes are `labels` (T,); `overlap` (M, K) the
    best IoU with an object of each class; `ignored` (M,) what mostly lies in an ignored region; for regions that
    overlap an object by more than `least_iou`: `pooled` (R, D) half precision, `deltas` (R, 4) to it, `classes` (R,).
    A picture that cannot be read has a file without any region.
    """
    for index in range(len(lessons)):
        file = _features_file(folder, index)
        if not file.exists():
            lesson = lessons[index]
            arrays = _nothing(classes) if lesson is None else _arrays(model, *lesson, classes, least_iou)
            _write(file, arrays)
        yield index + 1, len(lessons)


def _features_file(folder: Path, index: int) -> Path:
    return folder / "features" / f"{index:07d}.npz"


def _arrays(model: Featured, images: Tensor, target: Target, classes: int, least_iou: float) -> dict[str, Any]:
    truth = Truth.of(target)
    proposals = truth.boxes[:0] if target.proposals is None else target.proposals
    boxes = torch.cat([truth.boxes, proposals])
    if not len(boxes):
        return _nothing(classes)
    pooled, seen = model.features(images[0], boxes)
    shared = iou(truth.boxes, boxes)  # (T, M)
    overlap = shared.new_zeros(len(boxes), classes)
    for row, label in zip(shared, truth.labels.tolist(), strict=True):
        overlap[:, label] = torch.maximum(overlap[:, label], row)
    best, nearest = shared.max(dim=0) if len(truth.boxes) else (overlap[:, 0], torch.zeros(0))
    near = (best > least_iou).nonzero()[:, 0]
    chosen = nearest[near].long()
    arrays = {
        "seen": _half(seen),
        "labels": truth.labels,
        "overlap": overlap,
        "ignored": inside_any(boxes, truth.regions),
        "pooled": _half(pooled[near]),
        "deltas": BoxCoder().encode(truth.boxes[chosen], boxes[near]),
        "classes": truth.labels[chosen],
    }
    return {name: array.cpu().numpy() for name, array in arrays.items()}


def _half(x: Tensor) -> Tensor:
    return x.clamp(-_LARGEST, _LARGEST).half()


def _nothing(classes: int) -> dict[str, Any]:
    none = {"seen": (0, 0), "overlap": (0, classes), "pooled": (0, 0), "deltas": (0, 4)}
    arrays: dict[str, Any] = {name: np.zeros(shape, np.float32) for name, shape in none.items()}
    return arrays | {"labels": np.zeros(0, np.int64), "classes": np.zeros(0, np.int64), "ignored": np.zeros(0, bool)}


def _write(file: Path, arrays: Mapping[str, Any]) -> None:
    with replacing(file) as temporary, temporary.open("wb") as out:
        np.savez(out, **arrays)


def _read(file: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DetsegError(f"{file}: cannot be read: {error}; delete it and resume the run") from error


def _pictures(folder: Path) -> list[Path]:
    return sorted((folder / "features").glob("*.npz"))


def _scale(folder: Path, name: str) -> float:
    """What to multiply features with, by the mean of their norms in the first pictures."""
    norms = [np.linalg.norm(_read(file)[name].astype(np.float64), axis=1) for file in _pictures(folder)[:_NORMED]]
    every = np.concatenate([*norms, np.zeros(0)])
    return MEAN_NORM / max(float(every.mean()), 1e-6) if len(every) else 1.0


# ---- SVMs ----


@dataclass(eq=False)
class MinedSVM:
    """A linear SVM that is shown its negatives piece by piece and keeps those that it gets wrong.

    positives (n, V). `weight` (V,) and `bias` minimise |weight|^2 / 2 + (bias / 10)^2 / 2 + c times the sum of the
    hinge losses, a positive's counting `positive_weight` times; of the negatives those that are kept.
    """

    positives: Floats
    c: float
    positive_weight: float
    weight: Floats = field(init=False)
    bias: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.weight = np.zeros(self.positives.shape[1], np.float32)
        self._negatives: Floats = np.zeros((0, self.positives.shape[1]), np.float32)
        self._keys: NDArray[np.int64] = np.zeros(0, np.int64)
        self._new = 0

    def offer(self, negatives: Floats, keys: NDArray[np.int64]) -> int:
        """Negatives (m, V), each known by its key (m,): the hard ones are kept; how many of them are new.

        Learns when there are enough new ones.
        """
        hard = (negatives @ self.weight + self.bias > HARD) & ~np.isin(keys, self._keys)
        self._negatives = np.concatenate([self._negatives, negatives[hard]])
        self._keys = np.concatenate([self._keys, keys[hard]])
        found = int(hard.sum())
        self._new += found
        if self._new >= LEARN_AFTER:
            self.learn()
        return found

    def learn(self) -> None:
        """Fits the positives and the negatives that are kept, then lets go of the easy ones."""
        self._new = 0
        if not len(self.positives):
            self.bias = -10.0  # nothing is of this class
            return
        if not len(self._negatives):
            return
        self.weight, self.bias = _fitted(self.positives, self._negatives, self.c, self.positive_weight)
        stays = self._negatives @ self.weight + self.bias >= EASY
        self._negatives, self._keys = self._negatives[stays], self._keys[stays]


def _fitted(positives: Floats, negatives: Floats, c: float, positive_weight: float) -> tuple[Floats, float]:
    """liblinear, as the authors have it, by way of scikit-learn."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    x = np.concatenate([positives, negatives]).astype(np.float64)
    y = np.concatenate([np.ones(len(positives)), np.zeros(len(negatives))])
    svm = LinearSVC(
        C=c, loss="hinge", dual=True, intercept_scaling=10.0, class_weight={1: positive_weight, 0: 1.0},
        max_iter=5000, tol=1e-3, random_state=0,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # as near as 5,000 rounds come
        svm.fit(x, y)
    return svm.coef_[0].astype(np.float32), float(svm.intercept_[0])


def learn_svms(folder: Path, settings: Settings) -> Iterator[tuple[int, int]]:
    """One SVM a class: objects against whatever overlaps those of the class by less than `svm_negative_iou`.

    Tells pictures done, over all passes. A pass without a new hard negative is the last.
    """
    file = folder / "svms.npz"
    pictures = _pictures(folder)
    total = PASSES * len(pictures)
    if not file.exists():
        scale = _scale(folder, "seen")
        svms = _svms(pictures, scale, settings)
        for number in range(PASSES):
            found = 0
            for index, picture in enumerate(pictures):
                found += _shown(svms, picture, index, scale, settings)
                yield min(number * len(pictures) + index + 1, total - 1), total
            for svm in svms:
                svm.learn()
            if not found:
                break
        weight = np.stack([svm.weight * scale for svm in svms])
        _write(file, {"weight": weight.astype(np.float32), "bias": np.array([svm.bias for svm in svms], np.float32)})
    yield total, total


def _svms(pictures: list[Path], scale: float, settings: Settings) -> list[MinedSVM]:
    """One for each class, which knows its positives: the objects (app. B)."""
    positives: list[list[Floats]] = [[] for _ in range(settings.num_classes)]
    width = 0
    for picture in pictures:
        arrays = _read(picture)
        labels = arrays["labels"]
        width = max(width, arrays["seen"].shape[1])
        for label in np.unique(labels).tolist():
            rows = np.flatnonzero(labels == label)
            positives[label].append(arrays["seen"][rows].astype(np.float32) * np.float32(scale))
    none = np.zeros((0, width), np.float32)
    every = [np.concatenate([none, *found]) for found in positives]
    return [
        MinedSVM(some, settings.svm_c * max(1.0, OBJECTS / max(len(some), 1)), settings.svm_positive_weight)
        for some in every
    ]


def _shown(svms: list[MinedSVM], picture: Path, index: int, scale: float, settings: Settings) -> int:
    """Offers a picture's negatives to all classes; how many new hard ones there were."""
    arrays = _read(picture)
    if not len(arrays["seen"]):
        return 0
    seen = arrays["seen"].astype(np.float32) * np.float32(scale)
    keys = (np.int64(index) << 32) + np.arange(len(seen))
    found = 0
    for label, svm in enumerate(svms):
        rows = np.flatnonzero((arrays["overlap"][:, label] < settings.svm_negative_iou) & ~arrays["ignored"])
        found += svm.offer(seen[rows], keys[rows])
    return found


def read_svms(folder: Path) -> tuple[Tensor, Tensor]:
    """weight (K, V), bias (K,)."""
    arrays = _read(folder / "svms.npz")
    return torch.from_numpy(arrays["weight"]), torch.from_numpy(arrays["bias"])


# ---- box regressions ----


def learn_regressions(folder: Path, settings: Settings) -> Iterator[tuple[int, int]]:
    """One ridge regression a class, from features to deltas (app. C); tells classes done."""
    scale: float | None = None
    for label in range(settings.num_classes):
        file = folder / f"regression-{label}.npz"
        if not file.exists():
            scale = _scale(folder, "pooled") if scale is None else scale
            weight, bias = _regression(folder, label, scale, settings.ridge)
            _write(file, {"weight": weight, "bias": bias})
        yield label + 1, settings.num_classes


def _regression(folder: Path, label: int, scale: float, strength: float) -> tuple[Floats, Floats]:
    """weight (4, D), bias (4,) of one class; 0 where it has nothing to learn from."""
    sums: RidgeSums | None = None
    width = 0
    for picture in _pictures(folder):
        arrays = _read(picture)
        width = max(width, arrays["pooled"].shape[1])
        rows = np.flatnonzero(arrays["classes"] == label)
        if len(rows):
            sums = RidgeSums(width) if sums is None else sums
            sums.add(arrays["pooled"][rows].astype(np.float64) * scale, arrays["deltas"][rows].astype(np.float64))
    if sums is None:
        return np.zeros((4, width), np.float32), np.zeros(4, np.float32)
    weight, bias = sums.solution(strength)
    return (weight.T * scale).astype(np.float32), bias.astype(np.float32)


class RidgeSums:
    """Ridge regression of 4 numbers on D, from what is added piece by piece."""

    def __init__(self, width: int) -> None:
        self._count = 0
        self._xx = np.zeros((width, width))
        self._xy = np.zeros((width, 4))
        self._x, self._y = np.zeros(width), np.zeros(4)

    def add(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
        """x (n, D), y (n, 4)."""
        self._count += len(x)
        self._xx += x.T @ x
        self._xy += x.T @ y
        self._x += x.sum(axis=0)
        self._y += y.sum(axis=0)

    def solution(self, strength: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """weight (D, 4), bias (4,): the least |y - x weight - bias|^2 + strength |weight|^2; the bias is free."""
        x, y = self._x / self._count, self._y / self._count
        covered = self._xx - self._count * np.outer(x, x)
        # the identity keeps it solvable
        held = covered + strength * np.eye(len(x))
        weight: NDArray[np.float64] = np.linalg.solve(held, self._xy - self._count * np.outer(x, y)).astype(np.float64)
        return weight, y - x @ weight


def read_regressions(folder: Path, classes: int) -> tuple[Tensor, Tensor]:
    """weight (K, 4, D), bias (K, 4)."""
    found = [_read(folder / f"regression-{label}.npz") for label in range(classes)]
    weight, bias = (torch.from_numpy(np.stack([one[name] for one in found])) for name in ("weight", "bias"))
    return weight, bias
