"""`FileNames` against the tuple that it stands for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from detseg.annotations.file_names import FileNames


@given(st.lists(st.text()), st.slices(8))
def test_like_a_tuple(names: list[str], part: slice) -> None:
    ours = FileNames(names)
    assert ours == tuple(names)
    assert list(ours) == names
    assert [ours[i] for i in range(-len(names), len(names))] == names + names
    assert ours[part] == tuple(names[part])
    assert hash(ours) == hash(tuple(names))
    assert (ours == (*names, "more")) is False


def test_names_that_are_no_unicode() -> None:
    name = b"\xff\xfe.jpg".decode("utf-8", "surrogateescape")
    assert list(FileNames([name])) == [name]
