"""Who looks at pictures, and what became of one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from detseg.errors import ImageError
from detseg.images import ImageFile
from detseg.postprocess import Selection, Views
from detseg.preprocess import Preprocess
from detseg.proposals import Proposer
from detseg.results import Detections, LabelMap
from detseg.runtimes import Runtime

Found = TypeVar("Found", Detections, LabelMap)


@dataclass(frozen=True, eq=False)
class Outcome(Generic[Found]):
    """What became of one picture: what was `found`, or the `fault` that kept it from being read; never both.

    `image` (h, w, 3) uint8 RGB upright, only where it was asked for.
    """

    file: ImageFile
    image: NDArray[np.uint8] | None
    found: Found | None
    fault: ImageError | None


@dataclass(frozen=True, eq=False)
class Member:
    """A network among those that look at every picture; most often there is only one.

    `recipe` takes the place of its card's, for frames of another size; `views`: test-time augmentation, a call of the
    network for each. `weight`: how much its word counts beside the others'. `classes` (K,): the index, among all
    members' classes, of each of its own; None where they are the same.

    Of a detector: `selection`, what is kept of its candidates, in its own class indices; `proposals`: where it gets
    them from if it looks at such, selective search unless somebody says otherwise.
    """

    runtime: Runtime
    selection: Selection = field(default_factory=Selection)
    recipe: Preprocess | None = None
    views: Views = field(default_factory=Views)
    proposals: Proposer | None = None
    weight: float = 1.0
    classes: NDArray[np.int64] | None = None

    @property
    def plain(self) -> Preprocess:
        """How it wants a picture."""
        return self.recipe or self.runtime.card.preprocess

    @property
    def known(self) -> NDArray[np.int64]:
        """(K,) `classes`, whoever's they are."""
        return np.arange(len(self.runtime.card.categories)) if self.classes is None else self.classes

    @property
    def planes(self) -> NDArray[np.int64] | None:
        """(K,) its own class of each of all members' classes; None where they are the same."""
        return None if self.classes is None else np.argsort(self.classes)

    @property
    def weight_of_view(self) -> float:
        """How much the word of one of its views counts."""
        return self.weight / len(self.views.views)
