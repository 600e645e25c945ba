"""`NotKept`: what a format cannot say and a writer therefore changed or left out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class NotKept:
    """One kind of loss: how often, in words, and where it is a distance, the largest in pixels."""

    kind: str  # a short stable word, such as "crowd"
    count: int
    what: str  # follows the count: "crowd regions are left out: ..."
    worst_px: float | None = None

    def __str__(self) -> str:
        far = "" if self.worst_px is None else f" (by {self.worst_px:.3g} px at most)"
        return f"{self.count} {self.what}{far}"

    def to_json(self) -> dict[str, Any]:
        """A dict for `--json`."""
        return {**asdict(self), "message": str(self)}


def merge(lists: Iterable[Iterable[NotKept]]) -> list[NotKept]:
    """The losses of several parts together: equal ones counted as one, those that did not happen left out."""
    together: dict[tuple[str, str], NotKept] = {}
    for loss in (loss for losses in lists for loss in losses if loss.count):
        known = together.get((loss.kind, loss.what))
        if known is None:
            together[loss.kind, loss.what] = loss
        else:
            worst = [px for px in (known.worst_px, loss.worst_px) if px is not None]
            count = known.count + loss.count
            together[loss.kind, loss.what] = NotKept(loss.kind, count, loss.what, max(worst, default=None))
    return list(together.values())
