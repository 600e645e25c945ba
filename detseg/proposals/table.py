"""Files of proposals: what `detseg data proposals --out` writes, and what people bring from elsewhere.

Two forms, each complete in one file (selective_search.md has examples):

- `.npz`, columns: `files` (N,) names of the pictures, `starts` (N + 1,) so that picture i has the rows
  starts[i]:starts[i + 1] of `boxes` (M, 4) xyxy in its pixels, and of `scores` (M,), which may be left out.
- `.json`: {"pictures": [{"file": "a.jpg", "boxes": [[x1, y1, x2, y2], ...], "scores": [...]}, ...]}, scores may be left
  out; or COCO's list of results, [{"image_id": 1, "bbox": [x, y, w, h], "score": 0.9}, ...].
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from detseg import files
from detseg.annotations import AnnotationSet
from detseg.errors import DataError, DetsegError
from detseg.geometry import boxes as box_geometry
from detseg.proposals.contract import Proposals

Named = tuple[str, Proposals]
SUFFIXES = (".npz", ".json")


@dataclass(frozen=True, eq=False)
class ProposalTable:
    """Proposals of many pictures, each under its name; `left_out` counts boxes outside their pictures."""

    file: Path
    names: tuple[str, ...]
    proposals: tuple[Proposals, ...]
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.names)


def write(file: Path, pictures: Iterable[Named]) -> None:
    """Writes names and proposals, picture after picture. Raises DetsegError: no such form, or it cannot be written."""
    check_suffix(file)
    with files.replacing(file) as temporary:
        (_write_npz if file.suffix.lower() == ".npz" else _write_json)(temporary, pictures)


def check_suffix(file: Path) -> None:
    """Raises DetsegError where the name tells of no form that can be written."""
    if file.suffix.lower() not in SUFFIXES:
        raise DetsegError(f"{file}: proposals are written as {' or '.join(SUFFIXES)}; give the file such an ending")


def read(file: Path, truth: AnnotationSet) -> ProposalTable:
    """The proposals of the pictures of `truth`, in its order, cut to each picture, best first.

    Pictures are told by their path in the data set, or by their name where that is enough; others in the file are left
    aside. Raises DataError, naming file and place: what cannot be read, boxes that are none, a picture without entry.
    """
    return _for_truth(file, _entries(file, truth), truth)


def read_by_name(file: Path) -> dict[str, Proposals]:
    """All proposals of a file under the pictures' paths, and under their names where only one has it; not yet cut.

    Raises DataError: what cannot be read, boxes that are none, and COCO's results, which know no names.
    """
    found: dict[str, Proposals] = {}
    for name, boxes, scores, where in _entries(file, None):
        kept, kept_scores = _checked(boxes, scores, [0, 0], f"{file}: {where}")
        found[posix(name)] = Proposals.of(kept, kept_scores)
    paths = list(found)
    return {name: found[paths[i]] for name, i in _places(paths).items()}


def cut(proposals: Proposals, image_hw: tuple[int, int]) -> Proposals:
    """Boxes cut to a picture of this size, without those of which nothing is left."""
    boxes = box_geometry.clip(proposals.boxes, image_hw)
    kept = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    return Proposals(boxes[kept], proposals.scores[kept])


def _entries(file: Path, truth: AnnotationSet | None) -> Iterator[Entry]:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from error
    return _from_npz(file) if content.startswith(b"PK") else _from_json(file, content, truth)


# ---- writing ----


def _write_npz(temporary: Path, pictures: Iterable[Named]) -> None:
    """Boxes and scores go through temporary files: a large data set's do not fit into memory."""
    names, counts = [], [0]
    with tempfile.TemporaryFile(dir=temporary.parent) as boxes, tempfile.TemporaryFile(dir=temporary.parent) as scores:
        for name, proposals in pictures:
            names.append(name)
            counts.append(len(proposals))
            boxes.write(proposals.boxes.astype("<f4").tobytes())
            scores.write(proposals.scores.astype("<f4").tobytes())
        starts = np.cumsum(counts, dtype=np.int64)
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            _add_array(archive, "files", np.array(names, np.str_))
            _add_array(archive, "starts", starts)
            _add_rows(archive, "boxes", boxes, (int(starts[-1]), 4))
            _add_rows(archive, "scores", scores, (int(starts[-1]),))


def _add_array(archive: zipfile.ZipFile, name: str, array: NDArray[Any]) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array(member, array, allow_pickle=False)


def _add_rows(archive: zipfile.ZipFile, name: str, rows: IO[bytes], shape: tuple[int, ...]) -> None:
    """float32 rows from a file."""
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(member, header)
        rows.seek(0)
        shutil.copyfileobj(rows, member)


def _write_json(temporary: Path, pictures: Iterable[Named]) -> None:
    with temporary.open("w", encoding="utf-8", errors="surrogateescape") as out:
        out.write('{"pictures": [')
        for index, (name, proposals) in enumerate(pictures):
            boxes = np.round(proposals.boxes.astype(np.float64), 2).tolist()
            scores = [float(f"{score:.6g}") for score in proposals.scores.tolist()]
            entry = {"file": name, "boxes": boxes, "scores": scores}
            out.write((",\n" if index else "\n") + json.dumps(entry, ensure_ascii=False))
        out.write("\n]}\n")


# ---- reading ----

# name of a picture, its boxes (n, 4), its scores (n,) or None, and where they stand in the file
Entry = tuple[str, NDArray[np.float64], "NDArray[np.float64] | None", str]


def _from_npz(file: Path) -> Iterator[Entry]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            columns = {name: arrays[name] for name in ("files", "starts", "boxes", "scores") if name in arrays}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise DataError(f"{file}: not a usable .npz: {error}; was it copied completely?") from error
    missing = [name for name in ("files", "starts", "boxes") if name not in columns]
    if missing:
        raise DataError(f"{file}: lacks {', '.join(missing)}; files, starts and boxes are expected, and scores may be")
    names, starts, scores = columns["files"], columns["starts"], columns.get("scores")
    boxes = _numbers(columns["boxes"], f"{file}: boxes", (4,))
    scores = None if scores is None else _numbers(scores, f"{file}: scores", ())
    if names.ndim != 1 or names.dtype.kind != "U":
        raise DataError(f"{file}: files must be a list of names, not {names.dtype} of shape {names.shape}")
    if scores is not None and len(scores) != len(boxes):
        raise DataError(f"{file}: {len(scores)} scores for {len(boxes)} boxes; there must be as many")
    fits = starts.shape == (len(names) + 1,) and starts.dtype.kind in "iu"
    if not fits or starts[0] != 0 or starts[-1] != len(boxes) or (starts[1:] < starts[:-1]).any():
        raise DataError(f"{file}: starts must be {len(names) + 1} whole numbers that rise from 0 to {len(boxes)}, the "
                        "number of boxes")  # fmt: skip
    for name, start, end in zip(names.tolist(), starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        yield name, boxes[start:end], None if scores is None else scores[start:end], f"picture {name}"


def _from_json(file: Path, content: bytes, truth: AnnotationSet | None) -> Iterator[Entry]:
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{file}: neither .npz nor JSON ({str(error)[:200]}); a file of proposals is expected"
        ) from error
    if isinstance(parsed, list):
        if truth is None:
            raise DataError(f"{file}: names its pictures by the image_id of a data set, which is not known here; make "
                            "a file that has their names: detseg data proposals DATA --out FILE")  # fmt: skip
        yield from _from_results(file, parsed, truth)
        return
    pictures = parsed.get("pictures") if isinstance(parsed, dict) else None
    if not isinstance(pictures, list):
        raise DataError(
            f'{file}: holds no list "pictures"; {{"pictures": [{{"file": ..., "boxes": ...}}]}} is expected'
        )
    for number, entry in enumerate(pictures, 1):
        if not isinstance(entry, dict) or not isinstance(entry.get("file"), str) or "boxes" not in entry:
            raise DataError(f'{file}: picture {number} needs "file", its name, and "boxes"')
        where = f"picture {number}, {entry['file']}"
        boxes = _numbers(entry["boxes"], f"{file}: {where}: boxes", (4,))
        scores = entry.get("scores")
        scores = None if scores is None else _numbers(scores, f"{file}: {where}: scores", ())
        if scores is not None and len(scores) != len(boxes):
            raise DataError(f"{file}: {where}: {len(scores)} scores for {len(boxes)} boxes; there must be as many")
        yield entry["file"], boxes, scores, where


def _from_results(file: Path, results: list[Any], truth: AnnotationSet) -> Iterator[Entry]:
    """COCO's results. Pictures that have none cannot be told from pictures that were left out: they have no boxes."""
    name_of = dict(zip(truth.image_ids.tolist(), truth.image_files, strict=True))
    found: dict[str, list[list[float]]] = {name: [] for name in truth.image_files}
    for number, entry in enumerate(results, 1):
        try:
            x, y, w, h = (float(side) for side in entry["bbox"])
            name, row = name_of.get(entry["image_id"]), [x, y, x + w, y + h, float(entry.get("score", 1))]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f'{file}: object {number} is no COCO result: "image_id", "bbox" of four numbers '
                            'and "score" are expected') from error  # fmt: skip
        if name is not None:
            found[name].append(row)
    if results and not any(found.values()):
        raise DataError(f"{file}: none of its image_ids is one of the data set; was it made from another one?")
    for name, rows in found.items():
        table = _numbers(rows, f"{file}: picture {name}", (5,))
        yield name, table[:, :4], table[:, 4], f"picture {name}"


def _numbers(values: Any, where: str, row: tuple[int, ...]) -> NDArray[np.float64]:
    """(n, *row) finite numbers. Raises DataError naming `where`."""
    expected = "rows of four numbers, x1, y1, x2, y2" if row == (4,) else "a list of numbers"
    try:
        array = np.asarray(values)
        if array.size and array.dtype.kind not in "iuf":
            raise ValueError
        array = array.astype(np.float64).reshape(-1, *row) if array.size == 0 else array.astype(np.float64)
    except (ValueError, TypeError, OverflowError):
        raise DataError(f"{where}: {expected}, are expected") from None
    if array.shape[1:] != row or array.ndim != 1 + len(row):
        raise DataError(f"{where}: {expected}, are expected, not numbers of shape {array.shape}")
    if not np.isfinite(array).all() or (np.abs(array) > 1e9).any():
        raise DataError(f"{where}: hold a number that is not finite, or beyond all pictures")
    return array


# ---- which picture is meant ----


def _for_truth(file: Path, entries: Iterator[Entry], truth: AnnotationSet) -> ProposalTable:
    places = _places(truth.image_files)
    found: dict[int, Proposals] = {}
    left_out = 0
    for name, boxes, scores, where in entries:
        place = places.get(posix(name), places.get(posix(name).rsplit("/", 1)[-1]))
        if place is None:
            continue
        if place in found:
            raise DataError(f"{file}: {where}: is there twice; each picture may be named once")
        kept, kept_scores = _checked(boxes, scores, truth.image_hw[place].tolist(), f"{file}: {where}")
        left_out += len(boxes) - len(kept)
        found[place] = Proposals.of(kept, kept_scores)
    missing = [truth.image_files[i] for i in range(len(truth)) if i not in found]
    if missing:
        some = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise DataError(f"{file}: has nothing of {len(missing)} of {len(truth)} pictures ({some}); make a file "
                        "of the same data: detseg data proposals DATA --out FILE")  # fmt: skip
    return ProposalTable(file, tuple(truth.image_files), tuple(found[i] for i in range(len(truth))), left_out)


def _places(image_files: Sequence[str]) -> dict[str, int]:
    """Path -> picture, and name -> picture where only one picture has it."""
    names: dict[str, int] = {}
    for i, path in enumerate(image_files):
        name = posix(path).rsplit("/", 1)[-1]
        names[name] = -1 if name in names else i
    unique = {name: i for name, i in names.items() if i >= 0}
    return unique | {posix(path): i for i, path in enumerate(image_files)}


def posix(path: str) -> str:
    """A picture's path as files of proposals have it."""
    return path.replace("\\", "/").removeprefix("./")


def _checked(
    boxes: NDArray[np.float64], scores: NDArray[np.float64] | None, hw: list[int], where: str
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Boxes cut to their picture, without those of which nothing is left. Raises DataError for what is no box."""
    inverted = np.flatnonzero((boxes[:, 2:] < boxes[:, :2]).any(axis=1))
    if len(inverted):
        raise DataError(f"{where}: box {inverted[0] + 1} is {boxes[inverted[0]].tolist()}, its end before its start; "
                        "x1, y1, x2, y2 are expected, not x, y, w, h")  # fmt: skip
    if len(boxes) and boxes.max() <= 1 and min(hw) > 1:
        raise DataError(f"{where}: all boxes lie between 0 and 1; pixels are expected, not fractions")
    cut = box_geometry.clip(boxes, (hw[0], hw[1])) if min(hw) > 0 else boxes
    cut = cut.astype(np.float32).astype(np.float64)  # as they will be: a box that vanishes when rounded is none
    kept = (cut[:, 2:] > cut[:, :2]).all(axis=1)
    return cut[kept], None if scores is None else scores[kept]
