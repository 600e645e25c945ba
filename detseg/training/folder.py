"""`RunFolder`: what a run leaves behind, and what a resumed run finds.

    config.yaml            repeats the run
    results.csv            a line an epoch
    curves.png             the same as a picture
    report.html, samples/  the same as a page, with validation pictures as the model saw them (written by the command)
    tensorboard/           events of the same, where they are asked for (written by the command)
    weights/last, best     .safetensors with their card
    state.pt               all that training goes on from: at the end of an epoch, or within one
Everything is replaced in one step, so a run that dies at any moment leaves a state that goes on to the same end.
"""

from __future__ import annotations

import csv
import io
import pickle
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from detseg.checkpoints import save
from detseg.checkpoints.card import Card
from detseg.errors import DetsegError, ImageError
from detseg.files import replacing, write_text

STATE_FORMAT = 2


class Stateful(Protocol):
    """A part of a run that can be saved and put back: model, optimiser, moving average, gradient scaler."""

    def state_dict(self) -> dict[str, Any]:
        """Its state."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Takes back what `state_dict` gave."""
        ...


@dataclass
class EpochSoFar:
    """What a running epoch has come to: batches and pictures done, sums of the losses over pictures, seconds.

    `lr`: that of the last step. `unreadable`: (path, cause) of the pictures left out.
    """

    batches: int = 0
    pictures: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    lr: float = 0.0
    unreadable: list[tuple[str, str]] = field(default_factory=list)

    def add(self, losses: Mapping[str, float], pictures: int, errors: Iterable[ImageError]) -> None:
        """One batch more: its mean losses, how many pictures it had, and which could not be read."""
        self.batches += 1
        self.pictures += pictures
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value * pictures
        self.unreadable += [(str(error.path), error.cause) for error in errors]

    @property
    def means(self) -> dict[str, float]:
        """The mean losses of a picture."""
        return {name: value / self.pictures for name, value in self.sums.items()}


@dataclass
class RunState:
    """Where a run stands: epochs done, the best score so far (AP, mean IoU) and when, evaluations since then.

    `rows`: the lines of results.csv. `unreadable`: (path, cause) of the pictures left out in the epochs done.
    `running`: what the epoch after them has come to.
    """

    epoch: int = 0
    best: float = -1.0
    best_epoch: int = 0
    stale: int = 0
    rows: list[dict[str, str]] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    running: EpochSoFar = field(default_factory=EpochSoFar)

    def close_epoch(self, row: Mapping[str, float]) -> None:
        """The running epoch is done; `row` is its line of results.csv."""
        self.epoch += 1
        self.rows.append({name: repr(value) for name, value in row.items()})
        self.unreadable = sorted({*self.unreadable, *self.running.unreadable})
        self.running = EpochSoFar()

    @classmethod
    def of_plain(cls, values: dict[str, Any]) -> RunState:
        """What `dataclasses.asdict` made of one."""
        return cls(**{**values, "running": EpochSoFar(**values["running"])})


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run; `card` is what its checkpoints say of themselves, metrics aside.

    `origin`: what the run was started with, see `setup.Prepared.origin`; kept for those who resume it.
    """

    path: Path
    card: Card
    origin: Mapping[str, Any] = field(default_factory=dict)

    @property
    def results_file(self) -> Path:
        """One line an epoch."""
        return self.path / "results.csv"

    def weights_file(self, which: str) -> Path:
        """The checkpoint `which`: last or best."""
        return self.path / "weights" / f"{which}.safetensors"

    def save_weights(self, model: nn.Module, metrics: dict[str, float], epoch: int, *, best: bool) -> None:
        """Writes weights/last, and weights/best where these are the best."""
        training = {**self.card.training, "epoch": epoch, "metrics": metrics}
        for which in ("last", "best") if best else ("last",):
            save(self.weights_file(which), replace(self.card, training=training), model.state_dict())

    def save_state(self, state: RunState, parts: Mapping[str, Stateful]) -> None:
        """Writes the state of the run and of its parts in one step."""
        bundle = {
            "format": STATE_FORMAT,
            "origin": dict(self.origin),
            "state": asdict(state),
            "parts": {name: part.state_dict() for name, part in parts.items()},
        }
        with replacing(state_file(self.path)) as temporary:
            torch.save(bundle, temporary)

    def show(self, state: RunState) -> None:
        """Writes results.csv, and curves.png once there is something to draw."""
        write_text(self.results_file, _to_csv(state.rows))
        if any(name.startswith("val/") for row in state.rows for name in row):
            draw_curves(state.rows, self.path / "curves.png")

    def load_state(self, parts: Mapping[str, Stateful]) -> RunState | None:
        """Puts the saved state back into the parts; None when the run has not saved any yet."""
        bundle = _read_state(self.path)
        if bundle is None:
            return None
        file = state_file(self.path)
        if set(bundle["parts"]) != set(parts):
            was, now = (", ".join(sorted(names)) for names in (bundle["parts"], parts))
            raise DetsegError(f"{file}: holds the state of {was}; this run would go on with {now}")
        for name, part in parts.items():
            try:
                part.load_state_dict(bundle["parts"][name])
            except (RuntimeError, ValueError, KeyError, TypeError) as error:
                why = str(error).splitlines()[0]
                raise DetsegError(f"{file}: its {name} does not fit the run that would go on: {why}") from error
        return RunState.of_plain(bundle["state"])

    def tidy(self) -> None:
        """Deletes what a run that was killed while it wrote has left half written."""
        for folder in (self.path, self.path / "weights"):
            for leftover in folder.glob(".part-*"):
                leftover.unlink(missing_ok=True)


def state_file(run: Path) -> Path:
    """What a run in the folder `run` goes on from."""
    return run / "state.pt"


def origin_of_run(run: Path) -> dict[str, Any] | None:
    """What the run in a folder was started with; None when it has not saved any state yet."""
    bundle = _read_state(run, mmap=True)  # the tensors stay in the file
    return None if bundle is None else bundle["origin"]


def _read_state(run: Path, *, mmap: bool = False) -> dict[str, Any] | None:
    """The bundle that `save_state` wrote."""
    file = state_file(run)
    if not file.exists():
        return None
    try:
        bundle: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
        if bundle.get("format") != STATE_FORMAT:
            raise DetsegError(
                f"{file}: written by another version of detseg, which alone can go on with the run; or start anew "
                "from its weights with -w"
            )
    except (OSError, RuntimeError, EOFError, ValueError, AttributeError, pickle.UnpicklingError) as error:
        raise DetsegError(f"{file}: cannot be resumed from: {error}") from error
    return bundle


def _to_csv(rows: list[dict[str, str]]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def draw_curves(rows: list[dict[str, str]], path: Path) -> None:
    """Draws losses and validation numbers over the epochs into a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, prefix, title in zip(
        figure.subplots(1, 2), ("loss/", "val/"), ("Training loss", "Validation"), strict=True
    ):
        names = sorted({name for row in rows for name in row if name.startswith(prefix)})
        for name in names:
            points = [(int(row["epoch"]), float(row[name])) for row in rows if row.get(name)]
            axes.plot(
                *zip(*points, strict=True),
                label=name.removeprefix(prefix),
                marker="." if len(points) < 40 else None,
            )
        axes.set(title=title, xlabel="epoch")
        axes.grid(alpha=0.3)
        if names:
            axes.legend()
    with replacing(path) as temporary:
        FigureCanvasAgg(figure).print_png(str(temporary))
