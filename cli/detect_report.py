"""What `detseg detect` tells: a table or JSON lines on stdout, failures in failures.csv and on stderr."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from detseg.annotations.categories import Categories
from detseg.images import ImageFile
from detseg.results import Detections

from .folder_run import Tally
from .tables import counted, table

FEW_PICTURES, FEW_OBJECTS = 20, 60  # up to these, every object is shown; beyond, a line per class


class DetectTally(Tally):
    """The objects found so far; of the pictures themselves only the first few are kept."""

    def __init__(self, categories: Categories) -> None:
        super().__init__(categories)
        self.with_objects = 0
        self.objects: Counter[int] = Counter()  # class index -> objects
        self.pictures_with: Counter[int] = Counter()  # class index -> pictures
        self.best: dict[int, float] = {}  # class index -> highest score
        self.first: list[tuple[ImageFile, Detections]] = []

    def count(self, file: ImageFile, found: Detections) -> None:
        """Counts the objects of one picture."""
        self.with_objects += len(found) > 0
        labels = found.labels.tolist()
        self.objects.update(labels)
        self.pictures_with.update(set(labels))
        for label, score in zip(labels, found.scores.tolist(), strict=True):
            self.best[label] = max(score, self.best.get(label, 0.0))
        if self.pictures <= FEW_PICTURES:
            self.first.append((file, found))

    def table(self) -> str:
        """Every object of a few pictures, else a line per class."""
        if self.pictures <= FEW_PICTURES and self.objects.total() <= FEW_OBJECTS:
            return self._objects_table()
        return self._classes_table()

    def sentence(self) -> str:
        """The counts in words."""
        objects = self.objects.total()
        return f"{counted(objects, 'object')} in {self.with_objects} of {counted(self.pictures, 'picture')}"

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


def in_words(found: Detections, categories: Categories) -> str:
    """How many of each class."""
    counts = Counter(found.labels.tolist())
    return ", ".join(f"{count} {categories.names[label]}" for label, count in counts.most_common()) or "nothing found"
