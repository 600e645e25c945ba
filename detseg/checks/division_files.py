"""A divided data set on disk: a copy in its own format, or only the lists that say which picture is in which part."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from detseg import files
from detseg.annotations import AnnotationSet, coco, load, load_label_maps
from detseg.annotations.semantic import SemanticSet
from detseg.annotations.yolo import yaml_of
from detseg.checks import rewriting
from detseg.checks.coco_again import content_of
from detseg.checks.division import Division
from detseg.checks.rewriting import NewPart, Pictures

_OF_YOLO = {"path", "names", "nc", "download", "train", "val", "valid", "test", "training", "validation", "testing"}


def load_whole(path: Path, split: str | None, format: str) -> AnnotationSet | SemanticSet:
    """What is to be divided: objects, or label maps where the set has nothing else."""
    return load_label_maps(path, split) if format == "masks" else load(path, split)


def write_copy(
    path: Path, whole: AnnotationSet | SemanticSet, division: Division, out: Path, pictures: Pictures
) -> None:
    """Writes the parts as a data set of the same format, with its pictures. Raises DetsegError."""
    format = rewriting.check_format(path)
    parts = _parts(path, whole, division)
    with rewriting.building(out, path) as folder:
        if format == "coco":
            jsons = {Path("annotations", f"instances_{part.name}.json"): part for part in parts}
            rewriting.write_coco(jsons, _sources(path), folder, pictures)
        elif format == "voc":
            rewriting.write_voc(parts, path, folder, pictures, (), {})
        elif format == "yolo":
            rewriting.write_yolo(parts, folder, pictures, (), extra_keys(path))
        else:
            rewriting.write_masks(parts, path, folder, pictures, {})


def write_lists(path: Path, whole: AnnotationSet | SemanticSet, division: Division, out: Path) -> None:
    """Writes only lists; pictures stay where they are, and are named as their format does.

    VOC: ImageSets/Main/PART.txt. YOLO: PART.txt and a data.yaml that can be trained on. COCO: instances_PART.json.
    Masks: PART.txt. Raises DetsegError.
    """
    format = rewriting.check_format(path)
    with rewriting.building(out, path) as folder:
        for part in _parts(path, whole, division):
            pictures = part.truth if part.truth is not None else part.maps
            assert pictures is not None  # a part has one of them
            _write_list(format, part, pictures, path, folder)
        if format == "yolo" and isinstance(whole, AnnotationSet):
            _write_description(whole, division, path, folder, out)


def extra_keys(path: Path) -> Mapping[str, Any]:
    """What a data.yaml says besides names and splits."""
    file = path if path.is_file() else yaml_of(path)
    if file is None:
        return {}
    content = yaml.safe_load(file.read_bytes())
    return {key: value for key, value in content.items() if key not in _OF_YOLO} if isinstance(content, dict) else {}


def _parts(path: Path, whole: AnnotationSet | SemanticSet, division: Division) -> list[NewPart]:
    parts = []
    for name in division.names:
        chosen = whole.subset(division.pictures(name))
        truth, maps = (chosen, None) if isinstance(chosen, AnnotationSet) else (None, chosen)
        parts.append(NewPart(name, truth, maps, path))
    return parts


def _sources(path: Path) -> list[Path]:
    return [path] if path.is_file() else list(coco.split_files(path).values())


def _write_list(format: str, part: NewPart, pictures: AnnotationSet | SemanticSet, path: Path, folder: Path) -> None:
    names = pictures.image_files
    if format == "coco" and part.truth is not None:
        files.write_bytes(folder / f"instances_{part.name}.json", content_of(part.truth, names, _sources(path)))
        return
    if format == "voc":
        lines, file = [Path(name).stem for name in names], folder / "ImageSets" / "Main" / f"{part.name}.txt"
    elif format == "yolo":
        lines = [str(pictures.image_path(i).resolve()) for i in range(len(pictures))]
        file = folder / f"{part.name}.txt"
    else:
        lines, file = list(names), folder / f"{part.name}.txt"
    files.write_text(file, "".join(f"{line}\n" for line in lines))


def _write_description(whole: AnnotationSet, division: Division, path: Path, folder: Path, out: Path) -> None:
    names = dict(zip(whole.categories.ids, whole.categories.names, strict=True))
    lists = {name: str(out.resolve() / f"{name}.txt") for name in division.names}
    content = {"path": str(whole.root.resolve()), **lists, "names": names, **extra_keys(path)}
    files.write_text(folder / "data.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
