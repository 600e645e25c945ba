"""Charts as SVG: text stays text, colours follow the page, and nothing is needed to show them."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detseg.reports.markup import Html, tag

W, H = 460.0, 300.0  # of a chart
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 10.0, 10.0, 38.0
COLOURS = 8  # that the style has
MAX_CELLS_NAMED, MAX_CELLS_NUMBERED = 40, 14


@dataclass(frozen=True, eq=False)
class Line:
    """A curve: its name, points x and y (p,), the style of its stroke, and a point that is marked, if any."""

    name: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    style: str
    marked: tuple[float, float] | None = None


def line_chart(
    lines: Sequence[Line], x_name: str, y_name: str, label: str, x_range: tuple[float, float] = (0.0, 1.0)
) -> Html:
    """Curves with y from 0 to 1; those that come later lie on top."""
    to_x = _scale(x_range, (_LEFT, W - _RIGHT))
    to_y = _scale((0.0, 1.0), (H - _BOTTOM, _TOP))
    drawn = []
    for line in lines:
        points = " ".join(f"{to_x(x):.1f},{to_y(y):.1f}" for x, y in zip(line.x.tolist(), line.y.tolist(), strict=True))
        drawn.append(tag("polyline", tag("title", line.name), points=points, class_=f"curve {line.style}"))
    for line in lines:
        if line.marked is not None:
            x, y = line.marked
            words = tag("title", f"{line.name}: {x:.3f}, {y:.3f}")
            drawn.append(tag("circle", words, cx=to_x(x), cy=to_y(y), r=4.5, class_="mark"))
    style = "chart many" if len(lines) > COLOURS + 1 else "chart"
    return _svg(_axes(x_range, x_name, y_name), *drawn, label=label, style=style)


def reliability_chart(bins: Sequence[tuple[float, float, int, float, float]], label: str) -> Html:
    """Bars of how many are right, (low, high, count, mean score, share right) each; a perfect one ends on the line."""
    to_x, to_y = _scale((0.0, 1.0), (_LEFT, W - _RIGHT)), _scale((0.0, 1.0), (H - _BOTTOM, _TOP))
    drawn = []
    for low, high, count, score, right in bins:
        left, width = to_x(low) + 1, to_x(high) - to_x(low) - 2
        told = f"scores {low:.1f} to {high:.1f}: {count} detections, mean score {score:.3f}, {right:.3f} of them right"
        whole = tag("rect", x=left, y=to_y(1), width=width, height=to_y(0) - to_y(1), fill="transparent")
        bar = tag("rect", x=left, y=to_y(right), width=width, height=to_y(0) - to_y(right), class_="bar")
        drawn.append(tag("g", tag("title", told), whole, bar if count else None))
    ideal = tag("line", x1=to_x(0), y1=to_y(0), x2=to_x(1), y2=to_y(1), class_="ideal")
    return _svg(_axes((0.0, 1.0), "score", "share that is right"), *drawn, ideal, label=label)


def count_chart(bins: Sequence[tuple[float, float, int]], label: str) -> Html:
    """How many there are from low to high, (low, high, count) each, as shares of the largest."""
    to_x, to_y = _scale((0.0, 1.0), (_LEFT, W - _RIGHT)), _scale((0.0, 1.0), (H - _BOTTOM, _TOP + 14))
    most = max((count for _, _, count in bins), default=0) or 1
    drawn = [tag("line", x1=_LEFT, x2=W - _RIGHT, y1=to_y(0), y2=to_y(0), class_="axis")]
    for low, high, count in bins:
        left, width, top = to_x(low) + 1, to_x(high) - to_x(low) - 2, to_y(count / most)
        drawn.append(tag("rect", x=left, y=top, width=width, height=to_y(0) - top, class_="bar second"))
        drawn.append(tag("text", _compact(count), x=left + width / 2, y=top - 4, text_anchor="middle"))
        drawn.append(tag("text", f"{low:.1f}", x=to_x(low), y=H - _BOTTOM + 16, text_anchor="middle"))
    drawn.append(tag("text", "1.0", x=to_x(1), y=H - _BOTTOM + 16, text_anchor="middle"))
    drawn.append(tag("text", "score: number of detections", x=(_LEFT + W - _RIGHT) / 2, y=H - 4, text_anchor="middle"))
    return _svg(*drawn, label=label)


def bars(entries: Sequence[tuple[str, float, str]], label: str) -> Html:
    """Bars to the right, (name, length, what is written behind it) each."""
    left, row, most = 64.0, 28.0, max((value for _, value, _ in entries), default=0.0) or 1.0
    drawn = []
    for i, (name, value, words) in enumerate(entries):
        y, length = i * row + 4, (W - left - 150) * max(value, 0) / most
        drawn.append(tag("text", name, x=left - 8, y=y + 14, text_anchor="end", class_="name"))
        drawn.append(tag("rect", x=left, y=y + 2, width=max(length, 1.0), height=row - 12, rx=2, class_="bar"))
        drawn.append(tag("text", words, x=left + length + 8, y=y + 14))
    return tag(
        "svg", tag("title", label), *drawn, viewBox=f"0 0 {W:g} {len(entries) * row + 4:g}", class_="chart", role="img"
    )


def heat_map(names: Sequence[str], columns: Sequence[str], matrix: NDArray[np.int64], label: str) -> Html:
    """Counts of truth (rows) against what was found (columns), each row shaded by its own shares.

    What lies off the diagonal is an error and has another colour. Names stand beside few classes, numbers in the
    cells of fewer; all are in the tips of the cells.
    """
    rows, count = matrix.shape
    named, numbered = max(rows, count) <= MAX_CELLS_NAMED, max(rows, count) <= MAX_CELLS_NUMBERED
    longest = max(_columns(_cut(n)) for n in (*names, *columns))
    margin = 14 + 7.4 * longest if named else 12.0
    side = min(64.0, max(9.0, (620.0 - margin) / max(rows, count)))
    sums = np.maximum(matrix.sum(axis=1), 1)
    drawn = [tag("rect", x=margin, y=margin, width=side * count, height=side * rows, class_="cell")]
    for i, j in np.argwhere(matrix > 0).tolist():
        share, x, y = float(matrix[i, j] / sums[i]), margin + j * side, margin + i * side
        told = f"{names[i]} → {columns[j]}: {matrix[i, j]:,} ({share:.1%})"
        style = "heat" if i == j else "heat off"
        cell = tag("rect", x=x, y=y, width=side, height=side, fill_opacity=0.06 + 0.74 * share, class_=style)
        words = tag("text", _compact(int(matrix[i, j])), x=x + side / 2, y=y + side / 2 + 4, class_="hot")
        drawn.append(tag("g", tag("title", told), cell, words if numbered else None))
    if named:
        drawn += _names(names, columns, margin, side)
    width, height = margin + side * count + 2, margin + side * rows + 2
    return tag("svg", tag("title", label), *drawn, viewBox=f"0 0 {width:.0f} {height:.0f}", class_="chart", role="img")


def _names(names: Sequence[str], columns: Sequence[str], margin: float, side: float) -> list[Html]:
    across = [
        tag("text", _cut(n), x=margin - 6, y=margin + (i + 0.5) * side + 4, text_anchor="end", class_="name")
        for i, n in enumerate(names)
    ]
    for j, n in enumerate(columns):
        x, y = margin + (j + 0.5) * side + 4, margin - 6
        across.append(tag("text", _cut(n), x=x, y=y, transform=f"rotate(-90 {x:.1f} {y:.1f})", class_="name"))
    return across


def _columns(text: str) -> int:
    """How wide a text is, in letters: those of East Asia take two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _cut(text: str) -> str:
    """At most 18 columns of it."""
    if _columns(text) <= 18:
        return text
    kept = text
    while _columns(kept) > 17:
        kept = kept[:-1]
    return kept + "…"


def _compact(count: int) -> str:
    """5 characters at most."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if count >= size:
            return f"{count / (1e3 if letter == 'k' else size):.3g}{letter}"
    return str(count)


def curve_key(style: str) -> Html:
    """A short piece of a curve, for a legend."""
    return tag("svg", tag("line", x1=1, y1=6, x2=21, y2=6, class_=f"curve {style}"), viewBox="0 0 22 12")


class _scale:
    """From numbers to places."""

    def __init__(self, numbers: tuple[float, float], places: tuple[float, float]) -> None:
        self._from, self._to = numbers, places

    def __call__(self, number: float) -> float:
        (a, b), (left, right) = self._from, self._to
        return left + (right - left) * (number - a) / ((b - a) or 1.0)


def _axes(x_range: tuple[float, float], x_name: str, y_name: str) -> Html:
    to_x, to_y = _scale(x_range, (_LEFT, W - _RIGHT)), _scale((0.0, 1.0), (H - _BOTTOM, _TOP))
    parts = []
    for step in np.linspace(0, 1, 6).tolist():
        y, number = to_y(step), x_range[0] + step * (x_range[1] - x_range[0])
        parts.append(tag("line", x1=_LEFT, x2=W - _RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(tag("text", f"{step:.1f}", x=_LEFT - 6, y=y + 4, text_anchor="end"))
        parts.append(tag("text", f"{number:.1f}", x=to_x(number), y=H - _BOTTOM + 16, text_anchor="middle"))
    parts.append(tag("text", x_name, x=(_LEFT + W - _RIGHT) / 2, y=H - 4, text_anchor="middle"))
    middle = (H - _BOTTOM + _TOP) / 2
    parts.append(tag("text", y_name, x=11, y=middle, text_anchor="middle", transform=f"rotate(-90 11 {middle:g})"))
    return tag("g", *parts)


def _svg(*parts: Html, label: str, style: str = "chart") -> Html:
    return tag("svg", tag("title", label), *parts, viewBox=f"0 0 {W:g} {H:g}", class_=style, role="img")
