"""What `detseg detect` tells: a table or JSON lines on stdout, failures in failures.csv and on stderr."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

from detseg import files
from detseg.annotations.categories import Categories
from detseg.errors import ImageError
from detseg.images import ImageFile
from detseg.pipeline import Outcome
from detseg.results import Detections
from detseg.writers import json_row
from detseg.writers.text import readable

from .tables import printable, table

FAILURES = "failures.csv"
FEW_PICTURES, FEW_OBJECTS = 20, 60  # up to these, every object is shown; beyond, a line per class
NAMED_FAILURES = 10


@dataclass
class Tally:
    """What was found so far; of the pictures themselves only the first few are kept."""

    categories: Categories
    pictures: int = 0
    with_objects: int = 0
    objects: Counter[int] = field(default_factory=Counter)  # class index -> objects
    pictures_with: Counter[int] = field(default_factory=Counter)  # class index -> pictures
    best: dict[int, float] = field(default_factory=dict)  # class index -> highest score
    first: list[tuple[ImageFile, Detections]] = field(default_factory=list)
    faults: list[tuple[ImageFile, ImageError]] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Counts one picture."""
        if outcome.detections is None:
            assert outcome.fault is not None
            self.faults.append((outcome.file, outcome.fault))
            return
        found = outcome.detections
        self.pictures += 1
        self.with_objects += len(found) > 0
        labels = found.labels.tolist()
        self.objects.update(labels)
        self.pictures_with.update(set(labels))
        for label, score in zip(labels, found.scores.tolist(), strict=True):
            self.best[label] = max(score, self.best.get(label, 0.0))
        if self.pictures <= FEW_PICTURES:
            self.first.append((outcome.file, found))

    def table(self) -> str:
        """Every object of a few pictures, else a line per class."""
        if self.pictures <= FEW_PICTURES and self.objects.total() <= FEW_OBJECTS:
            return self._objects_table()
        return self._classes_table()

    def sentence(self) -> str:
        """The counts in words."""
        objects = self.objects.total()
        told = f"{counted(objects, 'object')} in {self.with_objects} of {counted(self.pictures, 'picture')}"
        return told + (f", {len(self.faults)} not read" if self.faults else "")

    def _objects_table(self) -> str:
        rows: list[Sequence[object]] = []
        for file, found in self.first:
            for box, score, label in found:
                name = self.categories.names[label]
                rows.append((file.name, name, f"{score:.2f}", *(f"{side:.0f}" for side in box)))
            if not len(found):
                rows.append((file.name, "-", "", "", "", "", ""))
        return table(("picture", "class", "score", "x1", "y1", "x2", "y2"), rows, right=range(2, 7))

    def _classes_table(self) -> str:
        rows = [
            (self.categories.names[label], count, self.pictures_with[label], f"{self.best[label]:.2f}")
            for label, count in self.objects.most_common()
        ]
        return table(("class", "objects", "pictures", "best score"), rows, right=(1, 2, 3))


def json_line(outcome: Outcome, categories: Categories) -> str:
    """One picture as a line of JSON, as in predictions.jsonl; with its cause where it could not be done."""
    if outcome.detections is not None:
        return json.dumps(json_row(outcome.file, outcome.detections, categories))
    assert outcome.fault is not None
    file = outcome.file
    return json.dumps({"file": file.name.as_posix(), "path": str(file.path), "error": outcome.fault.cause})


def plain_line(outcome: Outcome, categories: Categories) -> str:
    """One picture as a line for people: what it holds, or why it could not be done."""
    name = printable(outcome.file.name)
    if outcome.detections is None:
        return f"{name}: {printable(outcome.fault.cause) if outcome.fault else 'not done'}"
    counts = Counter(outcome.detections.labels.tolist())
    found = (f"{count} {categories.names[label]}" for label, count in counts.most_common())
    return f"{name}: {', '.join(found) or 'nothing found'}"


def write_failures(folder: Path, faults: Sequence[tuple[ImageFile, ImageError]]) -> None:
    """failures.csv: file, path and cause of every picture that could not be done; gone when there is none."""
    target = folder / FAILURES
    if not faults:
        target.unlink(missing_ok=True)
        return
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("file", "path", "cause"))
    told = ((file.name.as_posix(), str(fault.path), fault.cause) for file, fault in faults)
    rows.writerows([readable(text) for text in row] for row in told)
    files.write_text(target, text.getvalue())


def tell_failures(folder: Path, faults: Sequence[tuple[ImageFile, ImageError]]) -> None:
    """The first failures on stderr, and where all of them stand."""
    if not faults:
        return
    click.echo(f"{counted(len(faults), 'picture')} could not be done ({folder / FAILURES}):", err=True)
    for _, fault in faults[:NAMED_FAILURES]:
        click.echo(f"  {printable(fault.path)}: {printable(fault.cause)}", err=True)
    if len(faults) > NAMED_FAILURES:
        click.echo(f"  ... and {len(faults) - NAMED_FAILURES} more", err=True)


def counted(number: int, word: str) -> str:
    """ "1 picture", "2 pictures"."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"
