"""The report of a segmenter: numbers, what was taken for what, and maps beside the truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detseg.annotations.semantic import IGNORE, SemanticSet
from detseg.evaluation.bootstrap import Interval
from detseg.evaluation.diagnosis_maps import LabelMap, MapComparison, MapDiagnosis, WorstMap
from detseg.evaluation.label_maps import SemanticClass, SemanticMetrics
from detseg.reports import charts
from detseg.reports.comparison import comparison_section, difference_cells
from detseg.reports.markup import Html, joined, name, tag
from detseg.reports.page import Cell, Section, cards, legend, page, shown, span, table
from detseg.reports.pictures import MAX_BYTES, Album, Image, embedded, embedded_map, opened, reader
from detseg.writers.overlay import class_colour

WORST = 12
_OUTSIDE = (128, 136, 144)  # where the truth says nothing


@dataclass(frozen=True, eq=False)
class EvaluatedMaps:
    """All that a report is about; `read` gives the predicted map of a picture.

    `compared`: (name of the other maps, comparison), whose difference is these maps less the others.
    """

    truth: SemanticSet
    read: Callable[[int], LabelMap]
    metrics: SemanticMetrics
    diagnosis: MapDiagnosis
    compared: tuple[str, MapComparison] | None = None


def label_map_report(
    title: str, told: EvaluatedMaps, facts: Sequence[tuple[str, object]], max_bytes: int = MAX_BYTES
) -> str:
    """The whole page as text, of at most `max_bytes` bytes as far as pictures are what makes it large."""
    numbers = [*_comparison(told), _classes(told), _confusion(told.metrics, told.truth.categories.names)]
    album = Album(max_bytes - sum(len(s.content.encode()) for s in numbers) - 40_000)
    counts = f"{told.metrics.pixels:,} pixels on {told.metrics.images:,} pictures; label maps"
    return page(title, counts, _headline(told), [*numbers, _worst(told, album)], facts)


def _headline(told: EvaluatedMaps) -> Html:
    metrics, sure = told.metrics, told.diagnosis
    accuracy = span(sure.pixel_accuracy.low, sure.pixel_accuracy.high)
    return cards(
        [
            ("mIoU", shown(metrics.miou), span(sure.miou.low, sure.miou.high), "mean over classes"),
            ("Pixel accuracy", shown(metrics.pixel_accuracy), accuracy, "share of right pixels"),
            ("Mean accuracy", shown(metrics.mean_accuracy), "", "mean over classes"),
            ("fwIoU", shown(metrics.fwiou), "", "IoU weighted by how frequent a class is"),
            ("Dice", shown(metrics.dice), "", "mean over classes"),
            ("Boundary F", shown(metrics.boundary_f), "", "how well edges agree"),
        ]
    )


def _interval_words(told: MapDiagnosis) -> str:
    return (
        f"Ranges are {told.level:.0%} intervals of a bias-corrected bootstrap over pictures ({told.resamples:,} draws, "
        f"seed {told.seed}): how far the numbers could move with other pictures of the same kind."
    )


def _classes(told: EvaluatedMaps) -> Section:
    header = ("class", "pictures", "pixels", "IoU", "Dice", "accuracy", "precision", "boundary F")
    both = zip(told.metrics.per_class, told.diagnosis.class_iou, strict=True)
    rows = [(each.name, _class_cells(each, sure)) for each, sure in both]
    return Section("classes", "Classes", _interval_words(told.diagnosis), table(header, rows))


def _class_cells(each: SemanticClass, sure: Interval) -> list[Cell]:
    counts = [Cell(f"{count:,}", count) for count in (each.images, each.pixels)]
    values = (each.dice, each.accuracy, each.precision, each.boundary_f)
    rest = [Cell(shown(value), None if value < 0 else value) for value in values]
    return [*counts, Cell(shown(each.iou), None if each.iou < 0 else each.iou, span(sure.low, sure.high)), *rest]


def _comparison(told: EvaluatedMaps) -> Iterator[Section]:
    if told.compared is None:
        return
    other, comparison = told.compared
    a, b, apart = comparison.first, comparison.second, comparison.difference
    sides = [("mIoU", a.miou, b.miou, apart.miou)]
    sides.append(("pixel accuracy", a.pixel_accuracy, b.pixel_accuracy, apart.pixel_accuracy))
    names = (f"{each}, IoU" for each in told.truth.categories.names)
    sides += zip(names, a.class_iou, b.class_iou, apart.class_iou, strict=True)
    rows = [(label, difference_cells(first, second, d)) for label, first, second, d in sides if d.value is not None]
    content = table(("number", "these", "other", "difference", "these are"), rows)
    yield comparison_section(other, [("mIoU", apart.miou)], content, _interval_words(told.diagnosis))


def _confusion(metrics: SemanticMetrics, names: Sequence[str]) -> Section:
    matrix, columns = metrics.confusion, [*names, "nothing"]
    if not matrix[:, -1].any():
        matrix, columns = matrix[:, :-1], columns[:-1]
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    wrong = [(i, j) for i, j in np.argwhere(matrix > 0).tolist() if i != j]
    wrong.sort(key=lambda at: -int(matrix[at[0], at[1]]))
    counts = [(i, j, int(matrix[i, j]), float(shares[i, j])) for i, j in wrong[:15]]
    rows = [
        (names[i], [Cell(name(columns[j]), style="words"), Cell(f"{count:,}", count), Cell(f"{share:.1%}", share)])
        for i, j, count, share in counts
    ]
    chart = charts.heat_map(names, columns, matrix, "What was taken for what, in pixels")
    most = (
        table(("annotated", "said", "pixels", "share"), rows) if rows else tag("p", "No pixel was taken for another.")
    )
    content = tag("div", tag("figure", chart), tag("div", tag("h3", "Most often confused"), most), class_="pair")
    meaning = "In pixels. Rows: what is annotated; columns: what was said there. Shades are shares of a row."
    return Section("confusion", "What was taken for what", meaning, content)


# ---- pictures ----


def _worst(told: EvaluatedMaps, album: Album) -> Section:
    parts: list[object] = []
    left_out, seen = 0, set[int]()
    for worst in told.diagnosis.worst[:WORST]:
        content, labels = _worst_map(told, worst)
        entry = album.spend(content)
        left_out += entry is None
        seen |= labels if entry is not None else set()
        parts.append(entry)
    if left_out:
        words = f"{left_out} more would make this file too large; diagnosis.json names them."
        parts.append(tag("p", words, class_="soft small"))
    names = told.truth.categories.names
    keys = legend((_swatch(_hex(class_colour(k))), name(names[k])) for k in sorted(seen))
    meaning = (
        "The pictures with the lowest mean IoU over the classes that they show or were said to show. The last panel "
        "marks wrong pixels red; what the truth leaves out is grey everywhere."
    )
    return Section("pictures", "Worst pictures", meaning, joined([keys, *parts]))


def _worst_map(told: EvaluatedMaps, worst: WorstMap) -> tuple[Html, set[int]]:
    """The picture, truth, prediction and difference side by side; and the classes that are to be seen."""
    there, found = told.truth.label_map(worst.picture), told.read(worst.picture)
    image, cause = opened(reader(told.truth.image_path(worst.picture)))
    counted = there != IGNORE
    labels = set(np.unique(there).tolist()) | set(np.unique(found[counted]).tolist())
    panels = [
        tag("figure", _photo(image, cause, there.shape), tag("figcaption", "picture")),
        _map_figure(_painted(there), "annotated"),
        _map_figure(_painted(np.where(counted, found, np.uint8(IGNORE))), "predicted"),
        _map_figure(_difference(image, there, found), "difference"),
    ]
    told_numbers = f"mean IoU {worst.miou:.3f}, {worst.accuracy:.1%} of its pixels right"
    heading = tag("h3", name(worst.file), " ", tag("span", told_numbers, class_="soft"))
    return tag("div", heading, tag("div", *panels, class_="sides four"), class_="worst"), labels - {IGNORE}


def _photo(image: Image | None, cause: str, hw: tuple[int, ...]) -> Html:
    if image is not None:
        uri, _ = embedded(image, _SIDE)
        return tag("img", src=uri, alt="", class_="photo")
    h, w = hw
    blank = tag("rect", width=w, height=h, class_="blank")
    words = tag("text", f"no picture: {cause}", x=w / 2, y=h / 2, text_anchor="middle", font_size=w / 24)
    return tag("svg", blank, words, viewBox=f"0 0 {w} {h}", class_="photo")


_SIDE = 480  # of an embedded map: it is small, there are four of each picture


def _map_figure(colours: NDArray[np.uint8], caption: str) -> Html:
    picture = tag("img", src=embedded_map(colours, _SIDE), alt=caption, class_="photo map")
    return tag("figure", picture, tag("figcaption", caption))


def _painted(labels: LabelMap) -> NDArray[np.uint8]:
    """(h, w, 3) each class in its colour."""
    palette = np.array([class_colour(k) for k in range(IGNORE)] + [_OUTSIDE], np.uint8)
    painted: NDArray[np.uint8] = palette[labels]
    return painted


def _difference(image: Image | None, there: LabelMap, found: LabelMap) -> NDArray[np.uint8]:
    """(h, w, 3) wrong pixels red on a pale picture."""
    if image is not None and image.shape[:2] == there.shape:
        grey = image.mean(axis=2) * 0.45 + 130
    else:
        grey = np.full(there.shape, 225.0)
    drawn = np.repeat(np.clip(grey, 0, 255)[..., None], 3, axis=2).astype(np.uint8) // 8 * 8  # fewer shades pack better
    drawn[(there != IGNORE) & (there != found)] = (222, 45, 38)
    drawn[there == IGNORE] = _OUTSIDE
    return drawn


def _hex(colour: tuple[int, int, int]) -> str:
    return "#" + "".join(f"{part:02x}" for part in colour)


def _swatch(colour: str) -> Html:
    return tag("svg", tag("rect", width=22, height=12, rx=2, fill=colour, class_="swatch"), viewBox="0 0 22 12")
