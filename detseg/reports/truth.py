"""Pictures with their truth on one page: by class, one file, nothing loaded from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detseg.annotations import Categories
from detseg.reports.markup import Html, joined, name, tag
from detseg.reports.page import head
from detseg.reports.pictures import embedded, embedded_map
from detseg.reports.truth_style import SCRIPT, STYLE
from detseg.writers.overlay import class_colour, map_colours
from detseg.writers.truth_scene import Scene, Thing

_NAMED = 15  # more names than that would hide a picture; the tips of the objects have them too
_BUTTONS = 40  # more classes than that are chosen from a list


@dataclass(frozen=True)
class About:
    """What the page is of: the data set, the part of it, the pictures there are, and how those shown were chosen."""

    data: str
    split: str | None
    pictures: int
    chosen: str
    left_out: Sequence[str] = ()


def truth_page(scenes: Sequence[Scene], categories: Categories, about: About) -> str:
    """The document. Without its script all pictures are shown; with it, those of one class can be chosen."""
    present = sorted({label for scene in scenes for label in scene.labels})
    title = f"Truth of {about.data}"
    part = f", split {about.split}" if about.split else ""
    told = f"{len(scenes)} of {about.pictures} pictures{part}: {about.chosen}"
    left_out = tag("p", "Could not be shown: " + "; ".join(about.left_out), class_="soft") if about.left_out else None
    body = tag(
        "body",
        tag("header", tag("h1", title), tag("p", told, class_="soft"), left_out, _filters(scenes, categories, present)),
        tag("main", *(_figure(scene, categories) for scene in scenes)),
        tag("footer", tag("p", "Written by detseg. This file holds everything it shows and loads nothing.")),
        tag("script", Html(SCRIPT)),
    )
    return "<!doctype html>\n" + tag("html", head(title, STYLE, SCRIPT), body, lang="en") + "\n"


def _filters(scenes: Sequence[Scene], categories: Categories, present: Sequence[int]) -> Html:
    """The classes of the page with their colours and pictures; they become buttons when the script runs."""
    counts = {label: sum(label in scene.labels for scene in scenes) for label in present}
    entries = [
        tag("li", _swatch(label), name(categories.names[label]), tag("span", str(counts[label]), class_="soft"),
            data_class=str(label))
        for label in present
    ]  # fmt: skip
    maps = any(scene.label_map is not None for scene in scenes)
    options = [("outlines", "label maps")] if maps else [("outlines", "outlines and boxes"), ("names", "names")]
    switches = [
        tag("label", tag("input", type="checkbox", checked=True, data_switch=word), " " + words)
        for word, words in options
    ]
    listed = tag("ul", *entries, class_="classes many" if len(entries) > _BUTTONS else "classes")
    dashed = any(thing.ignored for scene in scenes for thing in scene.things)
    legend = tag("p", "Dashed: ignored (crowd or difficult).", class_="soft") if dashed else None
    return tag("nav", listed, tag("p", *switches, class_="switches", hidden=True), legend)


def _swatch(label: int) -> Html:
    return tag("svg", tag("rect", width=12, height=12, rx=3, fill=_hex(label)), viewBox="0 0 12 12", class_="swatch")


def _figure(scene: Scene, categories: Categories) -> Html:
    h, w = scene.image.shape[:2]
    uri, _ = embedded(scene.image, max(h, w))
    shapes: list[Html] = [tag("image", href=uri, width=w, height=h)]
    if scene.label_map is not None:
        shapes.append(_map(scene.label_map, categories, w, h))
    ordered = sorted(scene.things, key=lambda t: -float((t.box[2:] - t.box[:2]).prod()))
    shapes += [_thing(thing, categories) for thing in ordered]
    if len(ordered) <= _NAMED:
        shapes += [_name(thing, categories, w, h) for thing in ordered]
    drawn = tag("svg", *shapes, viewBox=f"0 0 {w} {h}", role="img", aria_label=scene.name, tabindex="0")
    return tag(
        "figure", drawn, tag("figcaption", name(scene.name), tag("span", _told(scene, categories), class_="soft")),
        data_classes=" ".join(map(str, scene.labels)),
    )  # fmt: skip


def _told(scene: Scene, categories: Categories) -> str:
    """The size of the picture, and how many there are of each class."""
    size = f" {scene.full_hw[1]}×{scene.full_hw[0]}"
    if scene.label_map is not None:
        return f"{size}, {len(scene.labels)} classes"
    labels = [thing.label for thing in scene.things if not thing.ignored]
    counts = [f"{labels.count(label)} {categories.names[label]}" for label in dict.fromkeys(sorted(labels))]
    ignored = len(scene.things) - len(labels)
    words = counts[:4] + ([f"{len(counts) - 4} more classes"] if len(counts) > 4 else [])
    return ", ".join([size, *words, *([f"{ignored} ignored"] if ignored else [])] if scene.things else [size, "empty"])


def _thing(thing: Thing, categories: Categories) -> Html:
    """One object; a dark line below the coloured one is seen on any ground."""
    tip = tag("title", categories.names[thing.label] + (" (ignored)" if thing.ignored else ""))
    colour = _hex(thing.label)
    x1, y1, x2, y2 = thing.box.tolist()
    box = {"x": x1, "y": y1, "width": max(x2 - x1, 0.5), "height": max(y2 - y1, 0.5)}
    if thing.rings:
        path = "".join("M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in _thinned(ring)) + "Z" for ring in thing.rings)
        shapes = [tag("path", d=path, class_="under"), tag("path", d=path, stroke=colour, fill=colour, class_="fill")]
    else:
        shapes = [tag("rect", **box, class_="under"), tag("rect", **box, stroke=colour)]
    return tag("g", tip, *shapes, class_="thing ignored" if thing.ignored else "thing", data_class=str(thing.label))


def _thinned(ring: NDArray[np.float64]) -> list[list[float]]:
    """The points of a ring without those that are nearer than a pixel to the last."""
    kept = [ring[0]]
    for point in ring[1:]:
        if np.abs(point - kept[-1]).max() >= 1:
            kept.append(point)
    points: list[list[float]] = np.stack(kept).tolist() if len(kept) > 2 else ring.tolist()
    return points


def _name(thing: Thing, categories: Categories, w: int, h: int) -> Html:
    """The class, in letters that grow with the picture, above its box where there is room."""
    size = max(10.0, max(w, h) / 36)
    x1, y1 = thing.box.tolist()[:2]
    y = y1 - 3 if y1 > size + 3 else min(y1 + size, h - 2)
    words = categories.names[thing.label]
    x = min(max(x1 + 1, 0.0), max(0.0, w - 0.62 * size * len(words)))
    return tag(
        "text", words, x=x, y=y, font_size=size, stroke_width=size / 4, class_="name", data_class=str(thing.label)
    )


def _map(label_map: NDArray[np.uint8], categories: Categories, w: int, h: int) -> Html:
    """The label map over the picture, each class a layer of its own, so that one can be seen alone."""
    colours = map_colours(label_map, categories)
    layers = []
    for value in np.unique(label_map).tolist():
        if not colours[label_map == value][0, 3]:
            continue
        layer = np.where((label_map == value)[..., None], colours, 0).astype(np.uint8)
        uri = embedded_map(layer, max(h, w))
        words = categories.names[value] if value < len(categories) else "does not count"
        image = tag("image", href=uri, width=w, height=h, class_="layer")
        layers.append(tag("g", tag("title", words), image, class_="thing", data_class=str(value)))
    return joined(layers)


def _hex(label: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*class_colour(label))
