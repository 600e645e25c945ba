"""The report of a detector: numbers, why they are so, and pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from detseg.annotations import AnnotationSet
from detseg.annotations.outlines import Outlines
from detseg.evaluation.bootstrap import Comparison, Interval
from detseg.evaluation.diagnosis import ERROR_KINDS, Diagnosis
from detseg.evaluation.diagnosis_curves import Curve
from detseg.evaluation.diagnosis_labels import Kind, Suspect, WorstPicture
from detseg.evaluation.matching import Floats
from detseg.evaluation.metrics import ClassMetrics, DetectionMetrics
from detseg.geometry.boxes import xywh_to_xyxy
from detseg.reports import charts
from detseg.reports.comparison import comparison_section, difference_cells
from detseg.reports.markup import Html, joined, name, tag
from detseg.reports.page import Cell, Section, cards, key, legend, page, shown, span, table
from detseg.reports.pictures import MAX_BYTES, Album, Box, Drawn, Image, crop, opened, reader, side_by_side

WORST, CROPS = 12, 12  # pictures, and crops of each kind
_ERRORS = {
    "Cls": "right place, wrong class",
    "Loc": "right class, box too far off",
    "Both": "wrong class and box too far off",
    "Dupe": "an object found twice",
    "Bkg": "found where nothing is",
    "Miss": "not found at all",
}
_SUSPICIONS: dict[Kind, tuple[str, str]] = {
    "missing": ("Perhaps not annotated", "confident detections where nothing is annotated"),
    "class": ("Perhaps the wrong class", "confident detections on objects that are annotated as something else"),
    "place": ("Perhaps badly placed", "confident detections that overlap an unfound object of their class too little"),
    "unseen": ("Never seen", "objects that no detection overlaps, however low its score"),
}
_KEYS = (
    ("truth", "annotated, found"),
    ("missed", "annotated, missed"),
    ("ignored", "ignored region"),
    ("right", "detection, right"),
    ("false", "detection, false"),
)


@dataclass(frozen=True, eq=False)
class Evaluated:
    """All that a report is about. rows (n, 7) picture index, x, y, w, h, score, class index; outlines: n masks or None.

    `compared`: (name of the other results, comparison), whose difference is these results less the others.
    """

    truth: AnnotationSet
    rows: Floats
    metrics: DetectionMetrics
    diagnosis: Diagnosis
    outlines: Outlines | None = None
    compared: tuple[str, Comparison] | None = None


def detection_report(
    title: str, told: Evaluated, facts: Sequence[tuple[str, object]], max_bytes: int = MAX_BYTES
) -> str:
    """The whole page as text, of at most `max_bytes` bytes as far as pictures are what makes it large."""
    metrics = told.metrics
    numbers = [*_comparison(told), _classes(told), *_curves(told.diagnosis), _errors(told), _confusion(told)]
    numbers += [*_calibration(told), _sizes(metrics)]
    album = Album(max_bytes - sum(len(s.content.encode()) for s in numbers) - 40_000)
    # half of the room for the worst pictures, then all that is left for the crops
    album.left, kept_back = album.left // 2, album.left - album.left // 2
    worst = _worst(told, album)
    album.left += kept_back
    sections = [*numbers, worst, _suspects(told, album)]
    what = {"bbox": "boxes", "segm": "masks", "boundary": "masks and their boundaries"}[metrics.kind]
    counts = f"{metrics.detections:,} detections of {metrics.objects:,} objects on {metrics.images:,} pictures; {what}"
    return page(title, counts, _headline(told), sections, facts)


# ---- numbers ----


def _headline(told: Evaluated) -> Html:
    metrics, sure = told.metrics, told.diagnosis.intervals
    best = told.diagnosis.overall.at_best()
    with_interval = [
        ("AP", metrics.ap, sure.ap, "overlap 0.50 to 0.95"),
        ("AP50", metrics.ap50, sure.ap50, "overlap 0.50"),
    ]
    entries = [
        (label, shown(value), span(each.low, each.high), meaning) for label, value, each, meaning in with_interval
    ]
    entries.append(("AP75", shown(metrics.ap75), "", "overlap 0.75"))
    entries.append((f"AR {metrics.max_dets}", shown(metrics.ar_max), "", "recall, overlap 0.50 to 0.95"))
    if best["f1"] is not None:
        meaning = f"precision {shown(best['precision'])}, recall {shown(best['recall'])}"
        entries.append(("Best F1", shown(best["f1"]), f"at score {shown(best['score'])}", meaning))
    return cards(entries)


def _interval_words(told: Diagnosis) -> str:
    """What the intervals are."""
    sure = told.intervals
    return (
        f"Ranges are {sure.level:.0%} intervals of a bias-corrected bootstrap over pictures ({sure.resamples:,} draws, "
        f"seed {sure.seed}): how far the numbers could move with other pictures of the same kind. With few pictures, "
        "say under a hundred, they are somewhat too narrow."
    )


def _classes(told: Evaluated) -> Section:
    header = ("class", "pictures", "objects", "AP", "AP50", "AR", "best score", "precision", "recall", "F1")
    sure = told.diagnosis.intervals
    columns = zip(told.metrics.per_class, told.diagnosis.classes, sure.class_ap, sure.class_ap50, strict=True)
    rows = [(each.name, _class_cells(each, curve, ap, ap50)) for each, curve, ap, ap50 in columns]
    meaning = (
        f"{_interval_words(told.diagnosis)} Best score is the threshold that gives the class its highest F1 at an "
        f"overlap of {told.diagnosis.iou:.2f}; precision, recall and F1 are those at this score."
    )
    return Section("classes", "Classes", meaning, table(header, rows))


def _class_cells(each: ClassMetrics, curve: Curve, ap: Interval, ap50: Interval) -> list[Cell]:
    best = curve.at_best()
    counts = [Cell(f"{count:,}", count) for count in (each.images, each.objects)]
    sure = [
        Cell(shown(value), _defined(value), span(at.low, at.high)) for value, at in ((each.ap, ap), (each.ap50, ap50))
    ]
    names = ("score", "precision", "recall", "f1")
    return [*counts, *sure, Cell(shown(each.ar), _defined(each.ar)), *(Cell(shown(best[n]), best[n]) for n in names)]


def _defined(value: float) -> float | None:
    return None if value < 0 else value


def _sizes(metrics: DetectionMetrics) -> Section:
    rows = [
        ("small", "below 32×32 pixels", metrics.ap_small, metrics.ar_small),
        ("medium", "32×32 to 96×96 pixels", metrics.ap_medium, metrics.ar_medium),
        ("large", "larger", metrics.ap_large, metrics.ar_large),
    ]
    cells = [
        (label, [Cell(words, style="words"), Cell(shown(ap), _defined(ap)), Cell(shown(ar), _defined(ar))])
        for label, words, ap, ar in rows
    ]
    return Section("sizes", "Sizes", None, table(("objects", "area", "AP", "AR"), cells, sortable=False))


def _comparison(told: Evaluated) -> Iterator[Section]:
    if told.compared is None:
        return
    other, comparison = told.compared
    apart = comparison.difference
    sides = [("AP", comparison.first.ap, comparison.second.ap, apart.ap)]
    sides.append(("AP50", comparison.first.ap50, comparison.second.ap50, apart.ap50))
    names = (f"{each.name}, AP50" for each in told.metrics.per_class)
    sides += zip(names, comparison.first.class_ap50, comparison.second.class_ap50, apart.class_ap50, strict=True)
    rows = [(label, difference_cells(a, b, d)) for label, a, b, d in sides if d.value is not None]
    content = table(("number", "these", "other", "difference", "these are"), rows)
    headlines = [("AP", apart.ap), ("AP50", apart.ap50)]
    yield comparison_section(other, headlines, content, _interval_words(told.diagnosis))


# ---- charts ----


def _curves(told: Diagnosis) -> Iterator[Section]:
    drawable = [(i, c) for i, c in enumerate(told.classes) if c.best is not None]
    if told.overall.best is None:
        return
    few = len(drawable) <= charts.COLOURS
    styles = {i: f"s{place % charts.COLOURS}" for place, (i, _) in enumerate(drawable)}
    every = [(curve, styles[i]) for i, curve in drawable]
    if len(drawable) > 1:
        every.append((told.overall, "all"))
    at = told.overall.at_best()
    pr = [
        charts.Line(c.name, c.recall, c.precision, style, _point(c, "recall", "precision") if few else None)
        for c, style in every
    ]
    low = min(0.0, *(float(c.scores.min()) for c, _ in every))
    high = max(1.0, *(float(c.scores.max()) for c, _ in every))
    f1 = [
        charts.Line(c.name, *_stepped(c, low), style, _point(c, "score", "f1") if few else None) for c, style in every
    ]
    left = charts.line_chart(pr, "recall", "precision", "Precision over recall, a curve for each class")
    right = charts.line_chart(f1, "score threshold", "F1", "F1 over the score threshold", (low, high))
    keys = [(charts.curve_key(style), name(c.name)) for c, style in every if few or style == "all"]
    meaning = (
        f"At an overlap of {told.iou:.2f}. Dots are where F1 is highest; over all classes together that is at a score "
        f"of {shown(at['score'])}, the threshold that is used below. Point at a curve for its class."
    )
    pair = tag("div", tag("figure", left), tag("figure", right), class_="pair")
    yield Section("curves", "Precision, recall and the threshold", meaning, joined([legend(keys), pair]))


def _point(curve: Curve, x: str, y: str) -> tuple[float, float] | None:
    at = curve.at_best()
    return None if at[x] is None or at[y] is None else (float(at[x] or 0), float(at[y] or 0))


def _stepped(curve: Curve, low: float) -> tuple[Floats, Floats]:
    """Thresholds from low to high and F1, reaching down to where everything is kept."""
    return np.r_[low, curve.scores[::-1]], np.r_[curve.f1[-1], curve.f1[::-1]]


def _errors(told: Evaluated) -> Section:
    errors = told.diagnosis.errors
    gains = [(kind, errors.gain[kind], f"+{errors.gain[kind]:.3f}   ({errors.counts[kind]:,})") for kind in ERROR_KINDS]
    rows = [
        (kind, [Cell(_ERRORS[kind], style="words"), Cell(f"{count:,}", count), Cell(f"+{gain:.3f}", gain)])
        for kind, count, gain in ((kind, errors.counts[kind], errors.gain[kind]) for kind in ERROR_KINDS)
    ]
    meaning = (
        "TIDE: what AP50 would gain if one kind of error were put right, all else unchanged (and how many there are, "
        f"at any score). Without any false detection AP50 would gain {errors.gain['FP']:.3f}, with nothing missed "
        f"{errors.gain['FN']:.3f}."
    )
    chart = charts.bars(gains, "Gain in AP50 for each kind of error")
    listed = table(("kind", "what happened", "count", "gain"), rows)
    return Section("errors", "Kinds of errors", meaning, tag("div", tag("figure", chart), listed, class_="pair"))


def _confusion(told: Evaluated) -> Section:
    confusion = told.diagnosis.confusion
    names = [*confusion.names, "nothing"]
    shares = confusion.matrix / np.maximum(confusion.matrix.sum(axis=1, keepdims=True), 1)
    wrong = [(i, j) for i, j in np.argwhere(confusion.matrix > 0).tolist() if i != j and max(i, j) < len(names) - 1]
    wrong.sort(key=lambda at: -int(confusion.matrix[at[0], at[1]]))
    counts = [(i, j, int(confusion.matrix[i, j]), float(shares[i, j])) for i, j in wrong[:15]]
    rows = [
        (names[i], [Cell(name(names[j]), style="words"), Cell(f"{count:,}", count), Cell(f"{share:.1%}", share)])
        for i, j, count, share in counts
    ]
    meaning = (
        f"Rows: what is annotated; columns: what was found there with a score of at least {confusion.threshold:.3f}. "
        f"Best score first, each detection takes the free object that it overlaps most, by {confusion.iou:.2f} or "
        "more, whatever its class. The last column are missed objects, the last row detections on nothing. Shades are "
        "shares of a row."
    )
    chart = charts.heat_map(names, names, confusion.matrix, "What was taken for what")
    most = (
        table(("annotated", "found", "count", "share"), rows) if rows else tag("p", "No class was taken for another.")
    )
    content = tag("div", tag("figure", chart), tag("div", tag("h3", "Most often confused"), most), class_="pair")
    return Section("confusion", "What was taken for what", meaning, content)


def _calibration(told: Evaluated) -> Iterator[Section]:
    calibration = told.diagnosis.calibration
    if calibration is None:
        return
    bins = [(b.low, b.high, b.count, b.score, b.right) for b in calibration.bins]
    chart = charts.reliability_chart(bins, "Share of right detections for each range of scores")
    meaning = (
        f"A score is honest when detections of score 0.8 are right in 8 of 10 cases: then the bars end on the line. On "
        f"average the two are {calibration.ece:.3f} apart (expected calibration error), at most {calibration.mce:.3f}. "
        "Beside it: how many detections there are in each range."
    )
    counts = charts.count_chart(
        [(b.low, b.high, b.count) for b in calibration.bins], "Detections for each range of scores"
    )
    pair = tag("div", tag("figure", chart), tag("figure", counts), class_="pair")
    yield Section("calibration", "Are the scores honest", meaning, pair)


# ---- pictures ----


def _worst(told: Evaluated, album: Album) -> Section:
    threshold = told.diagnosis.threshold
    meaning = (
        f"The pictures with most missed objects and false detections together, at a score of at least {threshold:.3f}. "
        f"A detection of the wrong class counts as false, and its object as missed; of each picture and class the "
        f"{told.metrics.max_dets} best detections count. Point at a box for its class."
    )
    shown_ones, left_out = [], 0
    for worst in told.diagnosis.worst[:WORST]:
        entry = album.spend(_worst_picture(told, worst, album))
        left_out += entry is None
        shown_ones.append(entry)
    parts: list[object] = [legend((key(style), words) for style, words in _KEYS), *shown_ones]
    if not told.diagnosis.worst:
        parts = [tag("p", "Every object was found, and nothing else.")]
    if left_out:
        parts.append(_left_out(left_out))
    return Section("pictures", "Worst pictures", meaning, joined(parts))


def _left_out(count: int) -> Html:
    return tag("p", f"{count} more would make this file too large; diagnosis.json names them.", class_="soft small")


def _worst_picture(told: Evaluated, worst: WorstPicture, album: Album) -> Html:
    image, cause = opened(reader(told.truth.image_path(worst.picture)))
    hw = _size(told, worst.picture, image)
    counts = f"{worst.missed} missed, {worst.false} false, {worst.right} of {worst.objects} found"
    heading = tag("h3", name(worst.file), " ", tag("span", counts, class_="soft"))
    panels = [
        (Html("annotated"), _annotated(told, worst.picture, hw)),
        (Html("detected"), _detected(told, worst.picture, hw)),
    ]
    return tag("div", heading, side_by_side(album, image, cause, hw, panels), class_="worst")


def _size(told: Evaluated, picture: int, image: Image | None) -> tuple[int, int]:
    """The picture's size: its own, else the data set's word for it, else what its boxes need."""
    if image is not None:
        return image.shape[0], image.shape[1]
    h, w = told.truth.image_hw[picture].tolist()
    if min(h, w) > 0:
        return h, w
    boxes = told.truth.boxes[told.truth.rows(picture)]
    right, bottom = boxes[:, 2:].max(axis=0).tolist() if len(boxes) else (640, 480)
    return max(1, round(bottom)), max(1, round(right))


def _annotated(told: Evaluated, picture: int, hw: tuple[int, int]) -> list[Drawn]:
    rows = range(*told.truth.rows(picture).indices(len(told.truth.labels)))
    return [_truth_drawn(told, row, hw) for row in rows]


def _truth_drawn(told: Evaluated, row: int, hw: tuple[int, int]) -> Drawn:
    truth, found = told.truth, int(told.diagnosis.matches.found[row])
    if truth.ignored[row]:
        style = "ignored"
    else:
        style = "truth" if found >= 0 and told.rows[found, 5] >= told.diagnosis.threshold else "missed"
    label = truth.categories.names[int(truth.labels[row])]
    return Drawn(_box(truth.boxes[row]), style, label, _mask(truth.outlines, row, hw) if _masks(told) else None)


def _detected(told: Evaluated, picture: int, hw: tuple[int, int]) -> list[Drawn]:
    mine = (told.rows[:, 0] == picture) & (told.rows[:, 5] >= told.diagnosis.threshold)
    mine &= told.diagnosis.matches.counted
    return [_detection_drawn(told, row, hw) for row in np.flatnonzero(mine).tolist()]


def _detection_drawn(told: Evaluated, row: int, hw: tuple[int, int]) -> Drawn:
    matches = told.diagnosis.matches
    style = "ignored" if matches.ignored[row] else "right" if matches.truth[row] >= 0 else "false"
    label = told.truth.categories.names[int(told.rows[row, 6])]
    box = _box(xywh_to_xyxy(told.rows[row : row + 1, 1:5])[0])
    mask = _mask(told.outlines, row, hw) if told.outlines is not None else None
    return Drawn(box, style, f"{label} {told.rows[row, 5]:.2f}", mask)


def _masks(told: Evaluated) -> bool:
    return told.metrics.kind != "bbox"


def _box(values: Floats) -> Box:
    x1, y1, x2, y2 = values.tolist()
    return x1, y1, x2, y2


def _mask(outlines: Outlines, row: int, hw: tuple[int, int]) -> np.ndarray | None:
    """The mask, where there is one that fits the picture."""
    if not outlines.has[row]:
        return None
    try:
        return outlines.mask(row, hw)
    except ValueError:
        return None


def _suspects(told: Evaluated, album: Album) -> Section:
    parts: list[Html] = []
    for kind, (title, words) in _SUSPICIONS.items():
        listed, total = told.diagnosis.suspects[kind], told.diagnosis.suspect_counts[kind]
        if not total:
            continue
        crops = [album.spend(_suspect(told, each)) for each in listed[:CROPS]]
        fitting = [each for each in crops if each is not None]
        count = f"{total:,}" if len(fitting) == total else f"{total:,}, the first {len(fitting)}"
        parts.append(tag("h3", f"{title} ", tag("span", f"{words} ({count})", class_="soft")))
        parts.append(tag("div", *fitting, class_="crops"))
    meaning = (
        "Where a person should look at the annotation, rather than at the detector. Confident is a detection at least "
        "as sure as the better half of the right ones of its class. Blue and orange are "
        "annotations, red is the detection."
    )
    nothing = tag("p", "None.")
    return Section("labels", "Suspicious labels", meaning, joined(parts or [nothing]))


def _suspect(told: Evaluated, suspect: Suspect) -> Html:
    image, cause = opened(reader(told.truth.image_path(suspect.picture)))
    hw = _size(told, suspect.picture, image)
    drawn = []
    if suspect.truth is not None:
        drawn.append(_truth_drawn(told, suspect.truth, hw))
    if suspect.detection is not None:
        drawn.append(_detection_drawn(told, suspect.detection, hw))
    said: list[object] = []
    if suspect.found is not None:
        said += ["found ", name(suspect.found), f" {suspect.score:.2f}"]
    if suspect.annotated is not None:
        said += [", " if said else "", "annotated ", name(suspect.annotated), f" (id {suspect.annotation})"]
    caption = joined([*said, tag("br"), tag("span", name(suspect.file), class_="small")])
    return crop(image, cause, hw, drawn, caption)
