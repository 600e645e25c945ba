"""What is wrong with the pictures of the parts: unreadable, of another size than they are said to be, given twice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detseg.annotations.split_names import canonical
from detseg.checks.finding import Findings
from detseg.checks.survey import PictureFacts, alike, same_bytes

_SUBSETS = {"minival": "val", "testdev": "test"}  # splits that lie inside another on purpose


@dataclass(frozen=True, eq=False)
class Pictures:
    """The pictures of a part: N paths, (N, 2) the sizes that the annotations say, 0 where they do not.

    `source` is the file or folder that the part was read from; `contents` a word for the truth of each picture, by
    which equal pictures with different truth are told.
    """

    split: str | None
    source: str
    paths: Sequence[Path]
    hw: NDArray[np.int32]
    contents: Sequence[str]

    @property
    def shown(self) -> str:
        """The name of the part."""
        return self.split or "the data set"


def check_files(part: Pictures, facts: Mapping[Path, PictureFacts], found: Findings) -> None:
    """Files that cannot be read, or are not as large as the annotations say."""
    for path, (h, w) in zip(part.paths, part.hw.tolist(), strict=True):
        fact = facts[path]
        if fact.cause:
            found.add("unreadable-picture", path, fact.cause, split=part.split)
        elif min(h, w) > 0 and fact.hw != (h, w):
            said, real = f"{w}x{h}", f"{fact.hw[1]}x{fact.hw[0]}"
            if fact.turned and fact.hw == (w, h):
                message = f"{part.source} says {said}, which it is before EXIF turns it; upright it is {real}"
                found.add("exif", path, message, split=part.split)
            else:
                found.add("size-mismatch", path, f"{part.source} says {said}, it is {real}", split=part.split)


def check_repeats(parts: Sequence[Pictures], facts: Mapping[Path, PictureFacts], found: Findings) -> None:
    """The same picture in two parts or twice in one: by path, by content, by looks."""
    parts = apart(parts)
    _check_paths(parts, found)
    where: dict[Path, tuple[Pictures, int]] = {}  # the part that a picture is in, the first where it is in several
    for part in parts:
        for i, path in enumerate(part.paths):
            where.setdefault(path, (part, i))
    files = [path for path in where if not facts[path].cause]
    same = {pair for group in same_bytes([facts[path] for path in files]) for pair in combinations(group, 2)}
    similar = {pair for pair in alike([facts[path] for path in files]) if pair not in same}
    for pairs, how in ((same, "same"), (similar, "similar")):
        for first, second in _worth_telling(pairs, [where[path][0] for path in files]):
            _tell_of_pair(files[first], files[second], where, how, found)


def apart(parts: Sequence[Pictures]) -> list[Pictures]:
    """The parts that are to share no picture: unions of others (trainval) and subsets by name (minival) left out."""
    sets = [set(part.paths) for part in parts]
    names = {canonical(part.split or "") for part in parts}
    kept = []
    for i, part in enumerate(parts):
        inside = [s for j, s in enumerate(sets) if j != i and s and s < sets[i]]
        is_union = len(inside) > 1 and set.union(*inside) == sets[i]
        if not is_union and canonical(part.split or "") != "trainval" and _SUBSETS.get(part.split or "") not in names:
            kept.append(part)
    return kept


def _check_paths(parts: Sequence[Pictures], found: Findings) -> None:
    for part in parts:
        seen: set[Path] = set()
        for path in part.paths:
            if path in seen:
                message = f"{part.source} has more than one entry for this picture"
                found.add("duplicate-file-name", path, message, split=part.split)
            seen.add(path)
    for a, b in combinations(parts, 2):
        others = set(b.paths)
        for path in dict.fromkeys(a.paths):
            if path in others:
                found.add("picture-in-two-splits", path, f"it is in {a.shown} and in {b.shown}", split=a.split)


def _tell_of_pair(
    first: Path, second: Path, where: Mapping[Path, tuple[Pictures, int]], how: str, found: Findings
) -> None:
    (a, i), (b, j) = where[first], where[second]
    like = "the same file as" if how == "same" else "nearly the same picture as"
    differ = "; their annotations differ" if a.contents[i] != b.contents[j] else ""
    if a is b:
        kind = "duplicate-picture" if how == "same" else "similar-picture"
        found.add(kind, second, f"{like} {first}{differ}", split=b.split, other=first)
    else:
        kind = f"{'duplicate' if how == 'same' else 'similar'}-across-splits"
        message = f"in {b.shown} is {like} {first} in {a.shown}{differ}"
        found.add(kind, second, message, split=b.split, other=first)


def _worth_telling(pairs: Iterable[tuple[int, int]], parts: Sequence[Pictures]) -> list[tuple[int, int]]:
    """For every file with a like before it: the first one of its own part, and the first one of another part.

    A leak is so never hidden behind a mere repetition.
    """
    first: dict[tuple[int, bool], int] = {}
    for a, b in pairs:
        key = b, parts[a] is parts[b]
        first[key] = min(first.get(key, a), a)
    return sorted((a, b) for (b, _), a in first.items())
