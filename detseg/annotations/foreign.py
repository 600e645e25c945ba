"""Formats of other tools, through hotcoco: CVAT for images (XML), DOTA (txt), Open Images (CSV).

What hotcoco is given was looked at first: XML without entities, text that is text. What it gives is checked like
any other COCO data. An oriented box (DOTA) that is not upright is its object's outline, and its hull the box; DOTA's
`difficult` stays that, Open Images' groups are crowds. Boxes are what hotcoco reads and writes: see `write_foreign`
for the digits.
"""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from xml.etree.ElementTree import Element, ParseError, SubElement, tostring

from detseg.annotations.categories import Categories
from detseg.annotations.dataset import AnnotationSet
from detseg.annotations.draft import Draft
from detseg.annotations.joining import agreed, together
from detseg.annotations.pictures import MAX_SIDE, SUFFIXES, Folders, header_hw
from detseg.annotations.split_names import SPLITS, canonical, choose_split, split_of
from detseg.annotations.xml_files import ForbiddenXml, parse_xml
from detseg.errors import DataError

ForeignFormat = Literal["cvat", "dota", "openimages"]

LABEL_FOLDERS = ("labelTxt", "labelTxt-v1.0", "labelTxt-v1.5", "labelTxt-v2.0")
_IMAGE_FOLDERS = ("images", "JPEGImages", "")
_UPRIGHT = 1e-3  # pixels by which the corners of an upright box may miss its sides
_HEAD = 4096  # bytes that tell what a file is
_SHAPE_KEYS = ("label", "xtl", "ytl", "xbr", "ybr", "points")
_IMAGE_KEYS = ("name", "width", "height")
_OID_COLUMNS = ("imageid", "labelname", "xmin", "xmax", "ymin", "ymax")
_DESCRIPTIONS = ("class-descriptions-boxable.csv", "class-descriptions.csv", "oidv7-class-descriptions-boxable.csv")


@dataclass(frozen=True)
class ForeignReader:
    """The reader of one format: `parts` gives split name -> its file or folder, `read` what is in it."""

    format: ForeignFormat
    parts: Callable[[Path], dict[str, Path]]
    read: Callable[[Path, Path, Draft, bool], Categories]

    def splits(self, path: Path) -> tuple[str, ...]:
        """The names of the splits; none where everything is together."""
        found = self.parts(path)
        return tuple(name for name in found if name) if path.is_dir() and len(found) > 1 else ()

    def load(self, path: Path, split: str | None = None, *, need_images: bool = True) -> AnnotationSet:
        """The data set, or one split of it. Raises DataError when nothing can be used."""
        found = self.parts(path)
        if not found:
            raise DataError(f"{path}: nothing of this format in it")
        root = path if path.is_dir() else path.parent
        # every part is read, so that all agree on the classes
        sets = dict(zip(found, agreed([self._load_part(root, p, need_images) for p in found.values()]), strict=True))
        return together(root, list(sets.values())) if split is None else sets[choose_split(path, split, tuple(found))]

    def _load_part(self, root: Path, part: Path, need_images: bool) -> AnnotationSet:
        draft = Draft(root, self.format)
        categories = self.read(root, part, draft, need_images)
        result = draft.finish(categories)
        if not len(result):
            why = f"; the first fault: {draft.faults[0]}" if draft.faults else ""
            raise DataError(f"{part}: no picture of it can be used{why}")
        return result


def format_of(folder: Path) -> ForeignFormat | None:
    """Which of the formats a folder holds."""
    return next((name for name, reader in READERS.items() if reader.parts(folder)), None)


def _cvat_parts(path: Path) -> dict[str, Path]:
    files = [path] if path.is_file() else sorted([*path.glob("*.xml"), *path.glob("annotations/*.xml")])
    return {split_of(file): file for file in files if path.is_file() or b"<annotations" in _head(file)}


def _read_cvat(root: Path, file: Path, draft: Draft, need_images: bool) -> Categories:
    tree = _cvat_tree(file)
    unread = sum(shape.tag == "mask" for image in tree.iterfind("image") for shape in image)
    if unread:
        draft.warn("left-out-shapes", file, f"{unread} masks are left out; export the task as polygons, or as COCO")
    plain_tree, names = _plain(tree)
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder, "plain.xml")
        plain.write_bytes(tostring(plain_tree))
        content, told = _through_hotcoco(file, lambda coco: coco.from_cvat(str(plain)), str(plain))
    for message in told:
        draft.warn("left-out-shapes", file, message)
    for category in content["categories"]:
        category["name"] = names[int(category["name"][1:])]
    return _add_content(content, root, file, draft, need_images)


def _cvat_tree(file: Path) -> Element:
    try:
        tree = parse_xml(file.read_bytes())
    except ForbiddenXml:
        raise DataError(f"{file}: declares entities, which is refused") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error
    except (ParseError, ValueError, LookupError, RecursionError) as error:
        raise DataError(f"{file}: is not XML that can be read: {error}; is it complete?") from error
    if tree.tag != "annotations":
        raise DataError(f"{file}: not CVAT's XML: it begins with <{tree.tag[:40]}>, not <annotations>")
    if tree.find("image") is None:
        raise DataError(f"{file}: there is no <image> in it; CVAT's format for videos is another one")
    return tree


def _plain(tree: Element) -> tuple[Element, list[str]]:
    """The same with nothing but pictures and shapes, labels called L0, L1, ...; and the names of those.

    hotcoco takes a name with an entity (`&amp;`) for two, and finds names in places where there should be none.
    """
    images = list(tree.iterfind("image"))
    given = [(label.findtext("name") or "").strip() for label in tree.iterfind("meta//labels/label")]
    used = [shape.get("label", "") for image in images for shape in image]
    names = list(dict.fromkeys(name for name in (*given, *used) if name))
    word = {name: f"L{place}" for place, name in enumerate(names)}
    plain = Element("annotations")
    labels = SubElement(SubElement(SubElement(plain, "meta"), "task"), "labels")
    for label in word.values():
        SubElement(SubElement(labels, "label"), "name").text = label
    for place, image in enumerate(images):
        copy = SubElement(plain, "image", {"id": str(place), **_of(image, _IMAGE_KEYS)})
        for shape in image:
            attributes = _of(shape, _SHAPE_KEYS)
            if "label" in attributes:
                attributes["label"] = word.get(attributes["label"], "")
            turned = _turned(shape)
            tag = str(shape.tag) if turned is None else "polygon"
            SubElement(copy, tag, attributes if turned is None else {**attributes, "points": turned})
    return plain, names


def _of(element: Element, keys: Sequence[str]) -> dict[str, str]:
    return {key: element.get(key, "") for key in keys if key in element.attrib}


def _turned(shape: Element) -> str | None:
    """The corners of a box with a rotation (degrees, clockwise, about its middle), which hotcoco passes over."""
    try:
        angle = math.radians(float(shape.get("rotation", "0")))
        x1, y1, x2, y2 = (float(shape.get(key, "nan")) for key in ("xtl", "ytl", "xbr", "ybr"))
    except ValueError:
        return None
    if shape.tag != "box" or not angle or not math.isfinite(angle + x1 + y1 + x2 + y2):
        return None
    points = _corners(((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, angle))
    return ";".join(f"{x:.6f},{y:.6f}" for x, y in zip(points[::2], points[1::2], strict=True))


def _dota_parts(path: Path) -> dict[str, Path]:
    if not path.is_dir():
        return {}
    whole = next((path / name for name in LABEL_FOLDERS if (path / name).is_dir()), None)
    if whole is not None:
        inner = {p.name: p for p in sorted(whole.iterdir()) if p.is_dir() and canonical(p.name) in SPLITS}
        return inner or {"": whole}
    return {
        p.name: p / name
        for p in sorted(path.iterdir())
        if p.is_dir() and canonical(p.name) in SPLITS
        for name in LABEL_FOLDERS
        if (p / name).is_dir()
    }


def _read_dota(root: Path, folder: Path, draft: Draft, need_images: bool) -> Categories:
    names = _dota_names(root)
    with tempfile.TemporaryDirectory() as copies:
        labels = sorted(folder.glob("*.txt"))
        for file in labels:
            _copy_dota(file, Path(copies), draft)
        if not labels:
            raise DataError(
                f"{folder}: no label file in it can be read{f'; {draft.faults[0]}' if draft.faults else ''}"
            )
        content, _ = _through_hotcoco(folder, lambda coco: coco.from_dota(copies, None, names), copies)
    for annotation in content["annotations"]:
        annotation["difficult"] = annotation.pop("iscrowd", 0)
        w, h, angle = annotation["obb"][2:]
        if abs(math.sin(2 * angle)) * max(w, h) > _UPRIGHT:  # the box does not say it all
            annotation["segmentation"] = [_corners(annotation["obb"])]
    return _add_content(content, root, folder, draft, need_images)


def _dota_names(root: Path) -> list[str] | None:
    """The classes of the whole tree, so that splits agree."""
    listed = root / "classes.txt"
    if listed.is_file():
        return list(dict.fromkeys(w for line in _text(listed).splitlines() if (w := line.strip()))) or None
    parts = _dota_parts(root).values()
    words = (line.split() for part in parts for file in part.glob("*.txt") for line in _text(file).splitlines())
    return sorted({line[8] for line in words if len(line) in (9, 10)}) or None


def _copy_dota(file: Path, target: Path, draft: Draft) -> None:
    """Copies the usable lines of a label file; hotcoco refuses a whole folder for one bad line."""
    lines: list[str] = []
    for number, line in enumerate(_text(file).splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith(("imagesource", "gsd")):
            continue
        if (
            len(words) in (9, 10)
            and all(_is_usable(word) for word in words[:8])
            and words[9:] in ([], ["0"], ["1"], ["2"])
        ):
            lines.append(" ".join(words))
        else:
            message = f"line {number}: is not x1 y1 ... x4 y4 class difficult; left out"
            draft.error("bad-line", file, message, number)
    (target / file.name).write_text("".join(line + "\n" for line in lines), "utf-8")


def _corners(obb: Sequence[float]) -> list[float]:
    """Centre, size and angle -> x1, y1, ..., x4, y4."""
    cx, cy, w, h, angle = obb
    c, s = math.cos(angle), math.sin(angle)
    points = [(-w / 2, -h / 2), (w / 2, -h / 2), (w / 2, h / 2), (-w / 2, h / 2)]
    return [value for x, y in points for value in (cx + x * c - y * s, cy + x * s + y * c)]


def _oid_parts(path: Path) -> dict[str, Path]:
    files = [path] if path.is_file() else sorted([*path.glob("*.csv"), *path.glob("annotations/*.csv")])
    files = [f for f in files if f.name not in _DESCRIPTIONS]
    return {split_of(file): file for file in files if path.is_file() or _is_oid(file)}


def _is_oid(file: Path) -> bool:
    head = _head(file).partition(b"\n")[0].decode("utf-8-sig", "replace").lower()
    return {column.strip() for column in head.split(",")} >= set(_OID_COLUMNS)


def _read_oid(root: Path, file: Path, draft: Draft, need_images: bool) -> Categories:
    if not _is_oid(file):
        raise DataError(f"{file}: not Open Images' CSV: its first line must name {', '.join(_OID_COLUMNS)}")
    described = next((p for n in _DESCRIPTIONS if (p := file.parent / n).is_file() or (p := root / n).is_file()), None)
    told = None if described is None else str(described)
    content, _ = _through_hotcoco(file, lambda coco: coco.from_oid(str(file), told), str(file))
    for annotation in content["annotations"]:
        annotation["iscrowd"] = int(bool(annotation.get("is_group_of")))
    return _add_content(content, root, file, draft, need_images, in_parts=True)


def _through_hotcoco(source: Path, read: Callable[[Any], Any], given: str) -> tuple[dict[str, Any], list[str]]:
    """What hotcoco reads, and its warnings. Its errors become DataError."""
    import hotcoco

    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            content: dict[str, Any] = read(hotcoco.COCO).dataset
    except (ValueError, OSError, OverflowError, TypeError) as error:
        cause = " ".join(str(error).replace(given, source.name).split())
        raise DataError(f"{source}: cannot be read: {cause}") from error
    return content, [" ".join(str(w.message).replace(given, source.name).split()) for w in caught]


def _add_content(
    content: dict[str, Any], root: Path, source: Path, draft: Draft, need_images: bool, *, in_parts: bool = False
) -> Categories:
    """Fills the draft from COCO's dict; `in_parts`: boxes are in parts of the picture, whose size is in its header."""
    entries = sorted(content["categories"], key=lambda c: int(c["id"]))
    if not entries:
        raise DataError(f"{source}: there is no class in it")
    categories = Categories(tuple(int(c["id"]) for c in entries), tuple(str(c["name"]) for c in entries))
    places = _picture_folders(root, source)
    folders = Folders()
    index: dict[int, int] = {}
    for picture in content["images"]:
        given = str(picture["file_name"])
        name = _find(given, root, places, folders)
        if name is None and (need_images or in_parts):
            draft.error("missing-picture", source, f"picture {given[:200]!r} is not there; left out")
            continue
        hw = (int(picture.get("height") or 0), int(picture.get("width") or 0))
        # what a file says of the size is believed only where there is no picture to ask
        hw = (0, 0) if in_parts else hw
        if name is not None:
            hw = header_hw(root / name) or (0, 0)
        if (min(hw) < 1 and (need_images or in_parts)) or max(hw) > MAX_SIDE:
            draft.error("unreadable-picture", source, f"picture {name!r}: no size, no readable picture; left out")
            continue
        index[picture["id"]] = draft.add_picture(name or _harmless(given), hw, source)
    for annotation in content["annotations"]:
        if annotation["image_id"] in index:
            _add_annotation(annotation, index[annotation["image_id"]], source, draft, categories, in_parts)
    return categories


def _add_annotation(
    annotation: dict[str, Any], picture: int, source: Path, draft: Draft, categories: Categories, in_parts: bool
) -> None:
    id_ = int(annotation["id"])
    x, y, w, h = (float(value) for value in annotation["bbox"])
    if not math.isfinite(x + y + w + h):
        draft.error("bad-box", source, "its box holds something that is no usable number; left out", id_)
        return
    scale = draft.picture_hw(picture) if in_parts else (1, 1)
    box = (x * scale[1], y * scale[0], (x + w) * scale[1], (y + h) * scale[0])
    outline = annotation.get("segmentation") or None
    if outline is not None and not _is_near(outline, draft.picture_hw(picture)):
        draft.error("bad-outline", source, "its outline lies far outside the picture; left out, the box is kept", id_)
        outline = None
    draft.add_box(
        picture,
        box,
        categories.index_of_id[int(annotation["category_id"])],
        id_,
        crowd=bool(annotation.get("iscrowd")),
        difficult=bool(annotation.get("difficult")),
        segmentation=outline,
    )


def _is_near(rings: Sequence[Sequence[float]], hw: tuple[int, int]) -> bool:
    """Do all points lie within a picture's size of the picture? To draw far ones takes memory without end."""
    h, w = hw
    return all(all(-w <= x <= 2 * w for x in ring[::2]) and all(-h <= y <= 2 * h for y in ring[1::2]) for ring in rings)


def _picture_folders(root: Path, source: Path) -> list[str]:
    """Folders under `root` that pictures may lie in, relative to it."""
    split = source.parent.name if source.name in LABEL_FOLDERS else split_of(source)
    inner = [f"images/{split}", f"{split}/images", split, f"images/{source.name}", *_IMAGE_FOLDERS]
    return list(dict.fromkeys(inner))


def _find(name: str, root: Path, places: Sequence[str], folders: Folders) -> str | None:
    """The picture's path relative to `root`; a name without ending is completed."""
    safe = _harmless(name)
    for place in places:
        for spelling in dict.fromkeys((safe, Path(safe).name)):
            if folders.has(root / place, spelling):
                return str(Path(place, spelling))
            stem = Path(place, spelling)
            for suffix in () if Path(spelling).suffix.lower() in SUFFIXES else sorted(SUFFIXES):
                if f"{stem.name}{suffix}" in folders.names(root / stem.parent):
                    return str(stem.with_name(stem.name + suffix))
    return None


def _harmless(name: str) -> str:
    """A path that cannot lead out of the folder it is taken from."""
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")) or "unnamed"


def _is_usable(word: str) -> bool:
    try:
        return math.isfinite(float(word)) and abs(float(word)) < 1e9
    except ValueError:
        return False


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8-sig", "replace")
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error


def _head(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(_HEAD)
    except OSError:
        return b""


READERS: dict[ForeignFormat, ForeignReader] = {
    "cvat": ForeignReader("cvat", _cvat_parts, _read_cvat),
    "dota": ForeignReader("dota", _dota_parts, _read_dota),
    "openimages": ForeignReader("openimages", _oid_parts, _read_oid),
}
