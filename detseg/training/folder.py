"""`RunFolder`: what a run leaves behind, and what a resumed run finds.

    config.yaml            repeats the run
    results.csv            a line an epoch
    curves.png             the same as a picture
    weights/last, best     .safetensors with their card
    state.pt               model, average, optimiser and counters at the end of the last epoch
Everything is replaced in one step, so a run that dies at any moment leaves the last full epoch.
"""

from __future__ import annotations

import csv
import io
import pickle
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from detseg.checkpoints import save
from detseg.checkpoints.card import Card
from detseg.errors import DetsegError
from detseg.files import replacing, write_text
from detseg.training.schedule import MovingAverage


@dataclass
class RunState:
    """Where a run stands: epochs done, the best score so far (AP, mean IoU) and when, evaluations since then."""

    epoch: int = 0
    best: float = -1.0
    best_epoch: int = 0
    stale: int = 0


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run; `card` is what its checkpoints say of themselves, metrics aside."""

    path: Path
    card: Card

    @property
    def state_file(self) -> Path:
        """The state at the end of the last full epoch."""
        return self.path / "state.pt"

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

    def save_state(
        self,
        state: RunState,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        average: MovingAverage | None,
        row: dict[str, float],
    ) -> None:
        """Writes the state; the table of results goes with it, so that the two never disagree."""
        rows = [*self._rows_before(state.epoch), {name: repr(value) for name, value in row.items()}]
        bundle = {
            "state": asdict(state),
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "average": None if average is None else {"steps": average.steps, "state": average.state},
            "rows": rows,
        }
        with replacing(self.state_file) as temporary:
            torch.save(bundle, temporary)
        write_text(self.results_file, _to_csv(rows))
        if any(name.startswith("val/") for name in row):
            draw_curves(rows, self.path / "curves.png")

    def load_state(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, average: MovingAverage | None
    ) -> RunState | None:
        """Puts the saved state back into the given objects; None when the run has not saved any yet."""
        bundle = self._read_state()
        if bundle is None:
            return None
        model.load_state_dict(bundle["model"])
        optimizer.load_state_dict(bundle["optimizer"])
        if average is not None:
            average.steps = bundle["average"]["steps"]
            for name, value in bundle["average"]["state"].items():
                average.state[name].copy_(value)
        # a run killed between the two files left a table that is an epoch behind its state
        write_text(self.results_file, _to_csv(bundle["rows"]))
        return RunState(**bundle["state"])

    def _read_state(self) -> dict[str, Any] | None:
        if not self.state_file.exists():
            return None
        try:
            bundle: dict[str, Any] = torch.load(self.state_file, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise DetsegError(f"{self.state_file}: cannot be resumed from: {error}") from error
        return bundle

    def _rows_before(self, epoch: int) -> list[dict[str, str]]:
        """The lines of the epochs before `epoch`, as they stand in the table."""
        if not self.results_file.exists():
            return []
        with open(self.results_file, newline="", encoding="utf-8") as file:
            return [
                {name: value for name, value in row.items() if value}
                for row in csv.DictReader(file)
                if int(row["epoch"]) < epoch
            ]


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
