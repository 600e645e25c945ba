"""Markup that cannot be broken from outside: whatever is not `Html` already is escaped when it enters an element."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable

from detseg.writers.text import readable

_VOID = frozenset({"meta", "br", "img", "input"})
_OUTER = {"class_": "class", "for_": "for"}


class Html(str):
    """Text that is markup already, made by `tag` and nothing else."""

    __slots__ = ()


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """`<name attribute="...">children</name>`; children that are None are left out, text is escaped.

    In names of attributes `class_` is class and `_` is `-`; True is written without value, None and False not at all.
    """
    written = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{joined(children)}</{name}>")


def joined(children: Iterable[object]) -> Html:
    """Children one after the other."""
    return Html(
        "".join(child if isinstance(child, Html) else escaped(child) for child in children if child is not None)
    )


def escaped(value: object) -> str:
    """Any text as text of a page: markup loses its meaning, control characters and stray bytes are spelt out."""
    plain = "".join(_visible(c) for c in readable(str(value)))
    return html.escape(plain, quote=True)


def name(value: object) -> Html:
    """A name from outside (of a file, a class): set apart, so that its writing direction stays its own."""
    return tag("bdi", value)


def _visible(letter: str) -> str:
    if unicodedata.category(letter) in ("Cc", "Cs") and letter not in "\n\t":
        return letter.encode("unicode_escape").decode("ascii")
    return letter


def _attribute(key: str, value: object) -> str:
    if value is None or value is False:
        return ""
    key = _OUTER.get(key, key.replace("_", "-"))
    return f" {key}" if value is True else f' {key}="{escaped(_short(value))}"'


def _short(value: object) -> object:
    """Numbers of drawings to a hundredth of a pixel: more cannot be seen and only makes the file large."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
