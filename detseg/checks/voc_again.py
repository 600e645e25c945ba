"""A VOC page written again: size and objects as a set has them, all else as it stood."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import defusedxml.ElementTree

from detseg.annotations import AnnotationSet
from detseg.annotations.voc_write import CORNERS, corners, one_line

_NEAR = 1.01  # pixels that reading may have moved a corner


def page_of(page: Path, truth: AnnotationSet, image: int) -> bytes:
    """The page's XML text for picture `image` of the set."""
    root = defusedxml.ElementTree.fromstring(page.read_bytes())
    h, w = truth.image_hw[image].tolist()
    size = root.find("size")
    if size is None:
        size = SubElement(root, "size")
    for tag, value in (("width", w), ("height", h)):
        _set(size, tag, str(value))
    _set(root, "filename", Path(truth.image_files[image]).name)
    old = root.findall("object")
    for element in old:
        root.remove(element)
    rows = truth.rows(image)
    boxes = corners(truth.boxes[rows], (h, w)).tolist()
    for box, label, ignored in zip(boxes, truth.labels[rows].tolist(), truth.ignored[rows].tolist(), strict=True):
        name = truth.categories.names[label]
        element = _taken(old, name, box)
        _set(element, "name", one_line(name))
        _set(element, "difficult", str(int(ignored)))
        bounds = element.find("bndbox")
        bounds = SubElement(element, "bndbox") if bounds is None else bounds
        for tag, value in zip(CORNERS, box, strict=True):
            _set(bounds, tag, str(value))
        root.append(element)
    indent(root, "\t")
    return tostring(root, "utf-8") + b"\n"


def _taken(old: list[Element], name: str, box: list[int]) -> Element:
    """The old object of this name and place, which is taken from `old`; else a new one."""
    for i, element in enumerate(old):
        if (element.findtext("name") or "").strip() == name and _is_near(element, box):
            return old.pop(i)
    return Element("object")


def _is_near(element: Element, box: list[int]) -> bool:
    try:
        given = [float(element.findtext(f"bndbox/{tag}") or "nan") for tag in CORNERS]
    except ValueError:
        return False
    return all(abs(a - b) <= _NEAR for a, b in zip(given, box, strict=True))


def _set(parent: Element, tag: str, text: str) -> None:
    child = parent.find(tag)
    if child is None:
        child = SubElement(parent, tag)
    child.text = text
