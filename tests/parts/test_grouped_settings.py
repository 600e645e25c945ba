"""Groups of settings written flat, by hand-written cases."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from detseg.parts.grouped_settings import flat, grouped


@dataclass(frozen=True)
class Group:
    count: int = 512
    sizes: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class Whole:
    classes: int
    group: Group = field(default_factory=lambda: Group(count=64))


def test_flat_and_grouped_undo_each_other():
    config = Whole(3, Group(7, (5,)))
    assert flat(config) == {"classes": 3, "group.count": 7, "group.sizes": (5,)}
    assert grouped({"classes": 3, "group.count": 7, "group.sizes": [5]}, Whole(1)) == config


def test_naming_one_of_a_group_leaves_the_others_as_the_config_wants_them():
    assert grouped({"classes": 3, "group.sizes": [9]}, Whole(1)) == Whole(3, Group(64, (9,)))
    assert grouped({}, Whole(2)) == Whole(2)


def test_what_does_not_fit_is_told_by_name():
    with pytest.raises(ValueError, match=r"no option group.cuont; there are: classes, group.count, group.sizes"):
        grouped({"group.cuont": 3}, Whole(1))
    with pytest.raises(ValueError, match=r"group.count: .*integer"):
        grouped({"group.count": "many"}, Whole(1))
