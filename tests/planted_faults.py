"""Sample data sets into which faults are planted, and what a check must say of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from detseg.annotations.sample import write_sample

Planted = set[tuple[str, str, int | None]]  # kind, name of the file, annotation


class Coco:
    """A sample with outlines, whose entries can be spoiled by place."""

    def __init__(self, folder: Path) -> None:
        self.root = write_sample(folder, images=40, seed=1)
        self.content: dict[str, Any] = {split: json.loads(self.file(split).read_text()) for split in ("train", "val")}
        for content in self.content.values():
            for a in content["annotations"]:
                x, y, w, h = a["bbox"]
                a["segmentation"], a["area"] = [[x, y, x + w, y, x + w, y + h, x, y + h]], w * h
        self._used: set[tuple[str, int]] = set()

    def file(self, split: str) -> Path:
        return self.root / "annotations" / f"instances_{split}.json"

    def write(self) -> None:
        for split, content in self.content.items():
            self.file(split).write_text(json.dumps(content))

    def objects(self) -> Iterator[dict[str, Any]]:
        """Annotations of train, one of every picture: what is spoiled does not meet what else is."""
        for a in self.content["train"]["annotations"]:
            if ("train", a["image_id"]) not in self._used:
                self._used.add(("train", a["image_id"]))
                yield a

    def take(self, split: str) -> tuple[dict[str, Any], Path]:
        """An untouched picture with objects, and its file."""
        ids = {a["image_id"] for a in self.content[split]["annotations"]} - {i for s, i in self._used if s == split}
        picture = next(p for p in self.content[split]["images"] if p["id"] in ids)
        self._used.add((split, picture["id"]))
        return picture, self.root / "images" / picture["file_name"]


def plant_coco(root: Path) -> Planted:
    """Fills `root` with a COCO data set with faults."""
    coco = Coco(root)
    planted = plant_in_pictures(coco) | plant_in_annotations(coco)
    coco.write()
    return planted


def plant_in_pictures(coco: Coco) -> Planted:
    train, val = coco.file("train").name, coco.file("val").name
    planted: Planted = set()
    # readable pictures only; their entries are right
    picture, file = coco.take("train")
    file.unlink()
    planted.add(("missing-picture", train, None))
    picture, file = coco.take("train")
    file.write_bytes(file.read_bytes()[:3000])
    planted.add(("unreadable-picture", file.name, None))
    picture, file = coco.take("train")
    picture["width"] += 10
    planted.add(("size-mismatch", file.name, None))
    picture, file = coco.take("train")
    exif = Image.Exif()
    exif[0x0112] = 6  # the file's own size is what the entry says; upright it is turned
    Image.open(file).save(file, quality=95, exif=exif)
    planted.add(("exif", file.name, None))
    # the same picture twice: in one split, in two, under another encoding and size
    _, first = coco.take("train")
    _, second = coco.take("train")
    shutil.copy(first, second)
    planted.add(("duplicate-picture", second.name, None))
    _, in_val = coco.take("val")
    _, in_train = coco.take("train")
    shutil.copy(in_train, in_val)
    planted.add(("duplicate-across-splits", in_val.name, None))
    picture, in_val = coco.take("val")
    _, in_train = coco.take("train")
    small = cv2.resize(cv2.imread(str(in_train)), None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(in_val), small, [cv2.IMWRITE_JPEG_QUALITY, 70])
    picture["height"], picture["width"] = small.shape[:2]
    content = coco.content["val"]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != picture["id"]]
    planted.add(("similar-across-splits", in_val.name, None))
    # entries
    listed, file = coco.take("train")
    coco.content["val"]["images"].append({**listed, "id": 5000})
    planted.add(("picture-in-two-splits", file.name, None))
    listed, file = coco.take("train")
    coco.content["train"]["images"].append({**listed, "id": 5001})
    planted.add(("duplicate-file-name", file.name, None))
    coco.content["train"]["images"].append(
        {"id": 5002, "file_name": "../../../etc/passwd.jpg", "width": 9, "height": 9}
    )
    planted.add(("outside-root", train, None))
    coco.content["train"]["images"].append(dict(coco.content["train"]["images"][-4]))
    planted.add(("duplicate-id", train, None))
    coco.content["val"]["images"].append({"file_name": "no_id.jpg"})
    planted.add(("bad-picture", val, None))
    shutil.copy(in_train, coco.root / "images" / "stray.jpg")
    for categories in (c["categories"] for c in coco.content.values()):
        categories += [{"id": 7, "name": "Circle"}, {"id": 8, "name": "star "}]
    planted |= {("similar-names", coco.root.name, None), ("blank-in-name", coco.root.name, None)}
    coco.content["val"]["categories"].append({"id": 9, "name": "hexagon"})
    planted.add(("classes-differ", val, None))
    return planted


def plant_in_annotations(coco: Coco) -> Planted:
    """One fault an annotation; two annotations of one file are faulty twice over."""
    train = coco.file("train").name
    things = coco.objects()
    planted: Planted = set()

    def spoil(kind: str, **values: Any) -> dict[str, Any]:
        thing = next(things)
        thing.update(values)
        planted.add((kind, train, thing["id"]))
        return thing

    spoil("box-outside", bbox=[300, 200, 90, 90], segmentation=[])["area"] = 800
    spoil("degenerate-box", bbox=[50, 50, 0.4, 30], segmentation=[])
    spoil("bad-box", bbox=[10, float("nan"), 30, 30])
    spoil("missing-box", bbox=[], segmentation=[])
    spoil("unknown-category", category_id=99)
    spoil("unknown-picture", image_id=987654)
    spoil("bad-value", iscrowd=2)
    spoil("bad-outline", segmentation=[[1, 2, 3, 4]])
    outside = spoil("outline-outside", bbox=[260, 180, 60, 60], area=3600)
    outside["segmentation"] = [[260, 180, 340, 180, 340, 240, 260, 240]]
    spoil("outline-box", bbox=[5, 5, 30, 30], segmentation=[[5, 5, 95, 5, 95, 35, 5, 35]], area=2700)
    spoil("area", bbox=[5, 5, 30, 30], segmentation=[[5, 5, 35, 5, 35, 35, 5, 35]], area=99)
    spoil("crowd-polygon", iscrowd=1)
    twice = next(things)
    annotations = coco.content["train"]["annotations"]
    annotations.append({**twice, "id": 7000})
    planted.add(("duplicate-annotation", train, 7000))
    other = next(things)
    annotations.append({**other, "bbox": [1, 1, 20, 20], "area": 400, "segmentation": [], "id": other["id"]})
    planted.add(("duplicate-id", train, other["id"]))
    annotations.append("not an annotation")
    planted.add(("bad-annotation", train, len(annotations)))
    return planted


def plant_voc(root: Path) -> Planted:
    """Fills `root` with a VOC tree with faults."""
    write_sample(root, format="voc", images=40, seed=2)
    for folder in ("SegmentationClass", "SegmentationObject", "ImageSets/Segmentation"):  # boxes alone; masks are below
        shutil.rmtree(root / folder)
    lists = root / "ImageSets" / "Main"
    pages = [root / "Annotations" / f"{s}.xml" for s in (lists / "train.txt").read_text().split()]
    full = iter([page for page in pages if "<object>" in page.read_text()])
    planted: Planted = set()

    def spoil(old: str, new: str) -> Path:
        page = next(full)
        text = page.read_text()
        assert old in text
        page.write_text(text.replace(old, new, 1))
        return page

    planted.add(("unreadable-xml", spoil("</annotation>", "").name, None))
    planted.add(("bad-object", spoil("<xmin>", "<xmin>x").name, 1))
    planted.add(("size-mismatch", f"{spoil('<width>320', '<width>330').stem}.jpg", None))
    page = next(full)
    other = next(full)
    page.write_text(page.read_text().replace(f"{page.stem}.jpg", f"{other.stem}.jpg"))
    planted.add(("other-picture-named", page.name, None))
    gone = next(full)
    (root / "JPEGImages" / f"{gone.stem}.jpg").unlink()
    planted.add(("missing-picture", gone.name, None))
    both = next(full)  # two faults in one file
    text = both.read_text()
    sides = "<xmin>{}</xmin><ymin>9</ymin><xmax>{}</xmax><ymax>99</ymax>"
    thing = f"<object><name>circle</name><bndbox>{sides}</bndbox></object>"
    both.write_text(text.replace("</annotation>", thing.format(400, 500) + thing.format(300, 350) + "</annotation>"))
    count = text.count("<object>")
    planted |= {("degenerate-box", both.name, count + 1), ("box-outside", both.name, count + 2)}
    with (lists / "train.txt").open("a") as file:
        file.write("nowhere\n" + f"{page.stem}\n")
    planted |= {("missing-annotation", "train.txt", None), ("repeated-picture", "train.txt", None)}
    with (lists / "val.txt").open("a") as file:
        file.write(f"{other.stem}\n")
    planted.add(("picture-in-two-splits", f"{other.stem}.jpg", None))
    shutil.copy(root / "JPEGImages" / f"{other.stem}.jpg", root / "JPEGImages" / "stray.jpg")
    (lists / "train.txt").write_text((lists / "train.txt").read_text().replace(f"{next(full).stem}\n", ""))
    return planted


def plant_yolo(root: Path) -> Planted:
    """Fills `root` with a YOLO tree with faults."""
    write_sample(root, format="yolo", images=20, seed=2)
    labels = iter([p for p in sorted((root / "labels" / "train").iterdir()) if p.read_text()])
    planted: Planted = set()
    for kind, line in (
        ("bad-line", "0 100 120 30 40"),
        ("bad-line", "0 0.5 nan 0.1 0.1"),
        ("bad-line", "one 0.5 0.5 0.1 0.1"),
        ("bad-line", "0 0.5 0.5 0.1"),
        ("unknown-category", "17 0.5 0.5 0.1 0.1"),
        ("degenerate-box", "0 0.5 0.5 0.001 0.2"),
    ):
        file = next(labels)
        file.write_text(file.read_text() + line + "\n")
        planted.add((kind, file.name, len(file.read_text().splitlines())))
    file = next(labels)
    file.write_text(file.read_text() + file.read_text().splitlines()[0] + "\n")
    planted.add(("duplicate-annotation", f"{file.stem}.jpg", None))
    (root / "labels" / "train" / "lonely.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    planted.add(("stray-labels", "lonely.txt", None))
    next(labels).unlink()
    described = root / "data.yaml"
    described.write_text(described.read_text() + "nc: 5\n")
    planted.add(("wrong-class-count", "data.yaml", None))
    return planted


def plant_masks(root: Path) -> Planted:
    """Fills `root` with a mask folder with faults."""
    write_sample(root, format="masks", images=10)
    masks = sorted((root / "masks" / "train").iterdir())
    pixels = np.asarray(Image.open(masks[0])).copy()
    pixels[5:8, 5:8] = 77
    Image.fromarray(pixels).save(masks[0])
    Image.open(masks[1]).resize((100, 100), Image.Resampling.NEAREST).save(masks[1])
    masks[2].unlink()
    masks[3].write_bytes(masks[3].read_bytes()[:60])
    shutil.copy(masks[4], masks[4].with_name("lonely.png"))
    return {
        ("mask-values", masks[0].name, None),
        ("mask-size", masks[1].name, None),
        ("missing-mask", f"{masks[2].stem}.jpg", None),
        ("unreadable-mask", masks[3].name, None),
        ("stray-mask", "lonely.png", None),
    }


def plant_voc_masks(root: Path) -> Planted:
    """Fills `root` with a VOC tree with a faulty mask."""
    write_sample(root, format="voc", images=20)
    masks = sorted((root / "SegmentationClass").iterdir())
    pixels = np.asarray(Image.open(masks[0])).copy()
    pixels[5:8, 5:8] = 77
    Image.fromarray(pixels).save(masks[0])
    return {("mask-values", masks[0].name, None)}
