"""What became of a training run, as one page: how losses and validation went, and pictures as the model saw them."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detseg.reports.charts import COLOURS, Line, curve_key, line_chart
from detseg.reports.markup import Html, joined, name, tag
from detseg.reports.page import Cell, Section, cards, legend, page, shown, table
from detseg.reports.pictures import MAX_BYTES, Album

PANELS = 4  # of a picture: the truth, and what was found after so many epochs at most, less one


@dataclass(frozen=True)
class Snapshot:
    """A picture, as JPEG, with what the model found in it after an epoch drawn on; after epoch 0: the truth."""

    file: str
    epoch: int
    jpeg: bytes


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """Where a run stands.

    `rows`: the lines of results.csv; `decisive`: the column by which the best weights are kept; `called`: what people
    call a number ("ap50" -> "AP50"); `facts`: named values about the run.
    """

    title: str
    subtitle: str
    epochs: int
    rows: Sequence[Mapping[str, str]]
    decisive: str
    called: Callable[[str], str]
    snapshots: Sequence[Snapshot]
    facts: Sequence[tuple[str, object]]


def training_report(run: TrainingRun) -> str:
    """The whole document."""
    sections = [_validation(run), _losses(run), _numbers(run), *_pictures(run)]
    return page(run.title, run.subtitle, _headline(run), sections, run.facts)


def _headline(run: TrainingRun) -> Html:
    epochs, values = _column(run, run.decisive)
    best = int(np.argmax(values)) if len(values) else None
    called = run.called(run.decisive.removeprefix("val/"))
    seconds = sum(float(row["seconds"]) for row in run.rows)
    return cards(
        [
            (f"best {called}", shown(None if best is None else float(values[best])), "", _after(best, epochs)),
            ("epochs", f"{len(run.rows)} of {run.epochs}", "", "each shows every picture that is drawn for it"),
            ("minutes", f"{seconds / 60:.1f}", "", "of training, without validation"),
        ]
    )


def _after(best: int | None, epochs: NDArray[np.float64]) -> str:
    return "not validated yet" if best is None else f"after epoch {int(epochs[best])}: weights/best.safetensors"


def _validation(run: TrainingRun) -> Section:
    lines = []
    for number, column in enumerate(_columns(run, "val/")):
        epochs, values = _column(run, column)
        best = (float(epochs[values.argmax()]), float(values.max())) if column == run.decisive else None
        lines.append(Line(run.called(column.removeprefix("val/")), epochs, values, _style(number), best))
    meaning = (
        "Measured on pictures that are not learnt from, with the moving average of the weights where there is one."
    )
    return Section("validation", "Validation", meaning, _chart(run, lines, "score"))


def _losses(run: TrainingRun) -> Section:
    lines = []
    for number, column in enumerate(_columns(run, "loss/")):
        epochs, values = _column(run, column)
        lines.append(Line(column.removeprefix("loss/"), epochs, values / max(values.max(), 1e-12), _style(number)))
    meaning = (
        "The mean over the pictures of each epoch, each loss as a share of its highest value, so that all can be seen."
    )
    return Section("losses", "Training losses", meaning, _chart(run, lines, "share of the highest"))


def _chart(run: TrainingRun, lines: Sequence[Line], y_name: str) -> Html:
    if not lines:
        return tag("p", "Nothing yet.", class_="soft")
    drawn = line_chart(lines, "epoch", y_name, y_name, (0.0, float(max(run.epochs, 1))))
    return joined([drawn, legend((curve_key(line.style), name(line.name)) for line in lines)])


def _numbers(run: TrainingRun) -> Section:
    """The epochs that were validated, and the last."""
    validated = [row for row in run.rows if row.get(run.decisive)]
    listed = validated if not run.rows or run.rows[-1] in validated else [*validated, run.rows[-1]]
    columns = [*_columns(run, "val/"), *_columns(run, "loss/"), "lr"]
    rows = [(row["epoch"], [_cell(row.get(column, "")) for column in columns]) for row in listed]
    header = ["epoch", *(_heading(run, column) for column in columns)]
    return Section("epochs", "Epochs", "Those that were validated; all are in results.csv.", table(header, rows))


def _heading(run: TrainingRun, column: str) -> str:
    kind, _, rest = column.partition("/")
    return run.called(rest) if kind == "val" else column if not rest else f"loss: {rest}"


def _cell(text: str) -> Cell:
    return Cell(f"{float(text):.4g}", float(text)) if text else Cell("–")


def _pictures(run: TrainingRun) -> Iterator[Section]:
    if not run.snapshots:
        return
    album = Album(MAX_BYTES)
    by_file: dict[str, list[Snapshot]] = {}
    for snapshot in sorted(run.snapshots, key=lambda s: s.epoch):
        by_file.setdefault(snapshot.file, []).append(snapshot)
    entries = [album.spend(_panels(run, file, taken)) for file, taken in by_file.items()]
    left_out = (
        f"{album.left_out} more would make this file too large; they are in samples/." if album.left_out else None
    )
    meaning = "Some of the pictures that are not learnt from: what is annotated, and what was found after some epochs."
    content = joined([*entries, tag("p", left_out, class_="soft small") if left_out else None])
    yield Section("pictures", "Pictures", meaning, content)


def _panels(run: TrainingRun, file: str, taken: Sequence[Snapshot]) -> Html:
    truth = [snapshot for snapshot in taken if not snapshot.epoch][:1]
    found = [snapshot for snapshot in taken if snapshot.epoch]
    kept = np.unique(np.linspace(0, len(found) - 1, PANELS - 1).round().astype(int)).tolist() if found else []
    figures = [_figure(s) for s in [*truth, *(found[i] for i in kept)]]
    return tag("div", tag("h3", name(file)), tag("div", *figures, class_="sides four"), class_="worst")


def _figure(snapshot: Snapshot) -> Html:
    uri = f"data:image/jpeg;base64,{base64.b64encode(snapshot.jpeg).decode()}"
    caption = f"after epoch {snapshot.epoch}" if snapshot.epoch else "annotated"
    return tag("figure", tag("img", src=uri, alt=caption, class_="photo"), tag("figcaption", caption))


def _columns(run: TrainingRun, kind: str) -> list[str]:
    return sorted({column for row in run.rows for column in row if column.startswith(kind) and row[column]})


def _column(run: TrainingRun, column: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(epochs, values) where there are values."""
    found = [(float(row["epoch"]), float(row[column])) for row in run.rows if row.get(column)]
    epochs, values = np.array(found, np.float64).reshape(-1, 2).T
    return epochs, values


def _style(number: int) -> str:
    return f"s{number % COLOURS}"
