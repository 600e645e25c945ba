"""The page around a report: one file that needs nothing else, and may load nothing else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from detseg.reports.markup import Html, joined, name, tag
from detseg.reports.style import SCRIPT, STYLE

LONG = 25  # rows: longer tables scroll


@dataclass(frozen=True)
class Section:
    """A part of a report: a heading, what it means in a sentence or two, and its content."""

    id: str
    title: str
    meaning: object
    content: Html


def page(
    title: str, subtitle: object, top: Html, sections: Sequence[Section], facts: Sequence[tuple[str, object]]
) -> str:
    """The whole document. `facts` are named values about the run, written at its end."""
    sections = [*sections, Section("run", "This run", None, _facts(facts))]
    links = (tag("a", s.title, href=f"#{s.id}") for s in sections)
    body = tag(
        "body",
        tag("header", tag("h1", title), tag("p", subtitle, class_="soft"), tag("nav", *links)),
        tag("main", top, *(_section(s) for s in sections)),
        tag("footer", tag("p", "Written by detseg. This file holds everything it shows and loads nothing.")),
        tag("script", Html(SCRIPT)),
    )
    return "<!doctype html>\n" + tag("html", head(title, STYLE, SCRIPT), body, lang="en") + "\n"


def head(title: str, style: str, script: str) -> Html:
    """The head of a page: nothing may be loaded or run but what it holds, style and script named by their hashes."""
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        tag("style", Html(style)),
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _section(section: Section) -> Html:
    meaning = None if section.meaning is None else tag("p", section.meaning, class_="soft small")
    return tag("section", tag("h2", section.title), meaning, section.content, id=section.id)


def _facts(facts: Iterable[tuple[str, object]]) -> Html:
    rows = (joined([tag("dt", label), tag("dd", tag("code", value))]) for label, value in facts)
    return tag("dl", *rows)


# ---- parts that every report has ----


def cards(entries: Iterable[tuple[str, str, str, str]]) -> Html:
    """Headline numbers: (label, number, its interval or nothing, what it says) each."""
    return tag(
        "div",
        *(
            tag(
                "div",
                tag("span", label, class_="label"),
                tag("b", number),
                _range(interval),
                tag("span", meaning),
                class_="card",
            )
            for label, number, interval, meaning in entries
        ),
        class_="cards",
    )


def _range(interval: str) -> Html | None:
    return tag("span", interval, class_="range") if interval else None


@dataclass(frozen=True)
class Cell:
    """A cell of a table: what is shown, what it is sorted by (None: last), a softer addition, a class of the style."""

    shown: object
    value: float | None = None
    beside: str | None = None
    style: str | None = None


def table(header: Sequence[str], rows: Iterable[tuple[str, Sequence[Cell]]], sortable: bool = True) -> Html:
    """A row for each name; on narrow screens it scrolls under its first column, long ones under their head."""
    listed = list(rows)
    styles = [None, *(cell.style for cell in listed[0][1])] if listed else [None] * len(header)
    heads = (tag("th", word, scope="col", class_=_words(style)) for word, style in zip(header, styles, strict=True))
    body = tag("tbody", *(tag("tr", _row_name(label), *(_cell(c) for c in cells)) for label, cells in listed))
    drawn = tag("table", tag("thead", tag("tr", *heads)), body, class_="sortable" if sortable else None)
    return tag("div", drawn, class_="scroll tall" if len(listed) > LONG else "scroll")


def _words(style: str | None) -> str | None:
    """Columns of words begin at the left, as their cells do."""
    return style if style == "words" else None


def _row_name(label: str) -> Html:
    return tag("th", name(label), scope="row", data_value=label, title=label if len(label) > 20 else None)


def _cell(cell: Cell) -> Html:
    beside = None if cell.beside is None else tag("span", cell.beside, class_="soft")
    value = "" if cell.value is None else repr(float(cell.value))
    return tag("td", cell.shown, beside, class_=cell.style, data_value=value)


def legend(entries: Iterable[tuple[Html, object]]) -> Html:
    """(drawing, word) each."""
    return tag("ul", *(tag("li", drawing, word) for drawing, word in entries), class_="legend")


def key(style: str) -> Html:
    """A short line in the style of something that is drawn."""
    return tag("svg", tag("line", x1=1, y1=6, x2=21, y2=6, class_=f"key {style}"), viewBox="0 0 22 12")


def shown(value: float | None, digits: int = 3) -> str:
    """A number; a dash where there is nothing to measure."""
    return "–" if value is None or value < 0 else f"{value:.{digits}f}"


def span(low: float | None, high: float | None, signed: bool = False) -> str:
    """An interval in few characters."""
    if low is None or high is None:
        return ""
    sign = "+" if signed else ""
    return f"{low:{sign}.3f} … {high:{sign}.3f}"
