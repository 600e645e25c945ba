"""Progress on stderr: a bar on a terminal, now and then a plain line elsewhere; nothing at all when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

T = TypeVar("T")

PATIENCE_S = 0.5  # what is done sooner shows no progress (and does not pay for importing the bar)
LINE_EVERY_S = 5.0  # between two plain lines


class Progress:
    """Counts steps and shows them: `with Progress("detecting", total=300) as bar: bar.advance()`.

    `total` may be unknown (None). `say` writes a line to stderr without tearing the bar.
    """

    def __init__(self, label: str, total: int | None = None, *, unit: str = "pictures", quiet: bool = False) -> None:
        self.label, self.total, self.unit, self.quiet = label, total, unit, quiet
        self.done = 0
        self._started = time.monotonic()
        self._last_line = self._started
        self._bar: RichProgress | None = None
        self._on_terminal = sys.stderr.isatty()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._last_line > self._started and kind is None:
            self._write_line()

    def advance(self, steps: int = 1, note: str = "") -> None:
        """`steps` more are done; `note` is shown beside the count."""
        self.done += steps
        if self.quiet:
            return
        now = time.monotonic()
        if self._on_terminal:
            if now - self._started >= PATIENCE_S:
                self._show_bar(note)
        elif now - self._last_line >= LINE_EVERY_S:
            self._last_line = now
            self._write_line(note)

    def say(self, line: str) -> None:
        """A line on stderr, above the bar where there is one."""
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            click.echo(line, err=True)

    def _show_bar(self, note: str) -> None:
        if self._bar is None:
            self._bar = _rich_bar()
            self._bar.start()
            self._bar.add_task(self.label, total=self.total, unit=self.unit, note="")
        self._bar.update(self._bar.task_ids[0], completed=self.done, note=note)

    def _write_line(self, note: str = "") -> None:
        seconds = max(time.monotonic() - self._started, 1e-9)
        rate = self.done / seconds
        parts = [f"{self.label}: {self.done}"]
        if self.total:
            parts[0] += f" of {self.total} {self.unit} ({100 * self.done // self.total} %)"
            if 0 < self.done < self.total:
                parts.append(f"{_clock((self.total - self.done) / rate)} left")
        else:
            parts[0] += f" {self.unit}"
        parts.append(f"{rate:.3g} a second")
        click.echo(", ".join([*parts, note] if note else parts), err=True)


def track(
    items: Iterable[T], label: str, total: int | None = None, *, unit: str = "pictures", quiet: bool = False
) -> Iterator[T]:
    """The same items, with progress while they are gone through."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Progress(label, total, unit=unit, quiet=quiet) as bar:
        for item in items:
            yield item
            bar.advance()


def _rich_bar() -> RichProgress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}", markup=False),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=Console(stderr=True),
        transient=True,
    )


def _clock(seconds: float) -> str:
    """1:05, or 2:03:09."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
