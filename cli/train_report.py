"""report.html of a run, and the pictures in it: what the model finds in some validation pictures, epoch after epoch.

Everything lies in the run's folder (samples/, results.csv), so that a run that goes on goes on here, too.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from detseg import __version__, files
from detseg.annotations import AnnotationSet
from detseg.errors import DataError, ImageError
from detseg.images import read_image
from detseg.postprocess import Selection
from detseg.reports.training import Snapshot, TrainingRun, training_report
from detseg.results import Detections, LabelMap
from detseg.writers.label_map_files import draw_map
from detseg.writers.overlay import draw
from detseg.writers.truth_scene import draw_scene, scene_of_map, scene_of_objects

from .train_validation import decisive_column, metric_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from detseg.training.setup import Prepared

Show = Callable[[str, Any], None]  # a name, and (h, w, 3) RGB
SAMPLES = "samples"
COUNT, SIDE = 6, 480  # pictures, and the longer side of each as it is kept
_QUALITY = 82
_NAME = re.compile(r"(\d+)-epoch-(\d+)\.jpg")


class RunReport:
    """Collects what is found in the sample pictures, and writes the page after each validation.

    `show` is given the pictures, too, each under the name of its file in the data set.
    """

    def __init__(self, prepared: Prepared, folder: Path, title: str, show: Show | None = None) -> None:
        self.prepared, self.folder, self.title, self.show = prepared, folder, title, show
        self.truth = prepared.validation or prepared.truth
        count = len(self.truth)
        self.samples = frozenset(np.linspace(0, count - 1, min(COUNT, count)).round().astype(int).tolist())
        self._found: dict[int, Detections | LabelMap] = {}

    def see(self, index: int, found: Detections | LabelMap) -> None:
        """What was found in a picture of the validation; kept where it is a sample."""
        if index in self.samples:
            self._found[index] = found

    def write(self, epoch: int) -> None:
        """After `epoch`, from 1, was validated: pictures, and the page."""
        for index in sorted(self.samples):
            if not self._file(index, 0).exists():
                self._keep(index, 0, self._annotated(index), "annotated")
            if index in self._found:
                self._keep(index, epoch, self._drawn(index), "found")
        self._found.clear()
        files.write_text(self.folder / "report.html", training_report(self._run()))

    def _run(self) -> TrainingRun:
        prepared, config = self.prepared, self.prepared.config
        with open(self.folder / "results.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return TrainingRun(
            title=self.title,
            subtitle=f"{config.model} on {len(prepared.truth)} pictures",
            epochs=config.epochs,
            rows=rows,
            decisive=f"val/{decisive_column(prepared)}",
            called=metric_name,
            snapshots=list(self._snapshots()),
            facts=[
                ("command", prepared.card.training["command"]),
                ("data", config.data),
                ("detseg", __version__),
                *((key, value) for key, value in config.model_dump().items() if key not in ("data", "options")),
                *((f"option {key}", value) for key, value in config.options.items()),
            ],
        )

    def _snapshots(self) -> list[Snapshot]:
        found = []
        for path in sorted((self.folder / SAMPLES).glob("*.jpg")):
            match = _NAME.fullmatch(path.name)
            if match and int(match[1]) in self.samples:
                found.append(Snapshot(self.truth.image_files[int(match[1])], int(match[2]), path.read_bytes()))
        return found

    def _file(self, index: int, epoch: int) -> Path:
        return self.folder / SAMPLES / f"{index}-epoch-{epoch:04d}.jpg"

    def _keep(self, index: int, epoch: int, image: NDArray[np.uint8] | None, group: str) -> None:
        if image is None:
            return
        if self.show is not None:
            self.show(f"{group}/{self.truth.image_files[index]}", image)
        _, coded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        files.write_bytes(self._file(index, epoch), coded.tobytes())

    def _annotated(self, index: int) -> NDArray[np.uint8] | None:
        truth = self.truth
        try:
            scene: Any = scene_of_objects(truth, index, SIDE) if isinstance(truth, AnnotationSet) else None
            return draw_scene(scene or scene_of_map(truth, index, SIDE), truth.categories)  # type: ignore[arg-type]
        except (ImageError, DataError):  # named where training comes to it
            return None

    def _drawn(self, index: int) -> NDArray[np.uint8] | None:
        found, names = self._found[index], self.truth.categories
        try:
            image = read_image(self.truth.image_path(index))
        except ImageError:
            return None
        if isinstance(found, Detections):
            drawn = draw(image, found[found.scores >= Selection().conf], names)
        else:
            drawn = draw_map(image, found, names)
        h, w = drawn.shape[:2]
        scale = min(1.0, SIDE / max(h, w))
        size = (max(1, round(w * scale)), max(1, round(h * scale)))
        return drawn if scale == 1 else np.asarray(cv2.resize(drawn, size, interpolation=cv2.INTER_AREA), np.uint8)
