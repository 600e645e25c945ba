"""What two sets of results differ in, whatever was measured."""

from __future__ import annotations

from collections.abc import Sequence

from detseg.evaluation.bootstrap import Interval, in_words, verdict
from detseg.reports.markup import Html, joined, name, tag
from detseg.reports.page import Cell, Section, shown, span


def comparison_section(other: str, headlines: Sequence[tuple[str, Interval]], content: Html, intervals: str) -> Section:
    """What two sets of results differ in; `headlines` are the differences that are said in a sentence."""
    said = " ".join(in_words(number, difference) for number, difference in headlines)
    against = tag("p", "The others are those of ", name(other), ".", class_="soft small")
    meaning = (
        "Paired: both sides are measured on the same draws of pictures. Where the range of the difference holds 0, the "
        f"pictures do not tell which is better. {intervals} The more classes are looked at, the more of them differ by "
        "chance: of 20, about one."
    )
    return Section("comparison", "Comparison", meaning, joined([tag("p", said, class_="verdict"), against, content]))


def difference_cells(other: Interval, these: Interval, apart: Interval) -> list[Cell]:
    """One line of a comparison."""
    said = verdict(apart)
    style = {"better": "better", "worse": "worse"}.get(said)
    value = apart.value or 0.0
    return [
        Cell(shown(these.value), these.value),
        Cell(shown(other.value), other.value),
        Cell(f"{value:+.3f}", value, span(apart.low, apart.high, signed=True)),
        Cell(said, value if apart.excludes_zero else 0.0, style=style),
    ]
