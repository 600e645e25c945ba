"""Masks from data to numbers: a model whose masks are known is trained, used, measured; pycocotools counts again."""

from __future__ import annotations

import contextlib
import io
import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detseg.checkpoints import read_card
from detseg.cli.journal import FILE_NAME as JOURNAL
from detseg.cli.main import main
from detseg.geometry import rle as run_lengths

spec = spec_from_file_location("mask_model", Path(__file__).resolve().parents[1] / "mask_model.py")
mask_model = module_from_spec(spec)
spec.loader.exec_module(mask_model)

HW = (160, 160)


def shapes() -> dict[str, np.ndarray]:
    """A red ring and a green triangle: neither is its box."""
    ys, xs = np.mgrid[: HW[0], : HW[1]]
    distance = np.hypot(ys - 50, xs - 45)
    return {"red": (distance < 40) & (distance > 15), "green": (xs + ys > 210) & (xs > 70) & (ys > 80)}


def write_data(root: Path, *, segmentations: bool = True, splits: tuple[str, ...] = ("train", "val")) -> Path:
    """Three pictures a split: both, red alone, nothing; ids with holes."""
    categories = [{"id": 4, "name": "red"}, {"id": 9, "name": "green"}]
    for split in splits:
        images, annotations = [], []
        for number, names in enumerate((("red", "green"), ("red",), ())):
            image = np.full((*HW, 3), 60, np.uint8)
            for name in names:
                mask = shapes()[name]
                image[mask] = (255, 0, 0) if name == "red" else (0, 255, 0)
                annotations.append(entry(len(annotations) + 1, number, 4 if name == "red" else 9, mask, segmentations))
            file = root / split / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(file), image[..., ::-1])
            images.append({"id": number, "file_name": f"{number}.png", "height": HW[0], "width": HW[1]})
        text = json.dumps({"images": images, "annotations": annotations, "categories": categories})
        (root / split / "_annotations.coco.json").write_text(text)
    return root


def entry(id_: int, image: int, category: int, mask: np.ndarray, segmentation: bool) -> dict[str, object]:
    coded = run_lengths.encode(mask)
    box, area = coco_mask.toBbox(coded).tolist(), int(mask.sum())
    found = {"id": id_, "image_id": image, "category_id": category, "bbox": box, "area": area, "iscrowd": 0}
    if segmentation:
        found["segmentation"] = {"size": list(HW), "counts": coded["counts"].decode()}
    return found


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    mask_model.install(monkeypatch)
    monkeypatch.chdir(tmp_path)
    return write_data(tmp_path / "data")


TRAIN = ("-m", mask_model.NAME, "--imgsz", "160", "--epochs", "2", "--batch", "2", "--workers", "0", "--device", "cpu")


@pytest.fixture
def weights(data, capsys) -> str:
    assert main(["train", str(data), *TRAIN, "-o", "run", "--quiet"]) == 0
    capsys.readouterr()
    return "run/weights/best.safetensors"


def numbers(truth: Path, results: Path, kind: str) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO(str(truth))
        evaluation = COCOeval(known, known.loadRes(str(results)), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats.tolist()


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_training_is_given_masks_and_keeps_the_best_by_their_ap(data, capsys):
    assert main(["train", str(data), *TRAIN, "-o", "run"]) == 0
    told = capsys.readouterr()
    metrics = read_card("run/weights/best.safetensors").training["metrics"]
    assert metrics["ap"] > 0.99  # the boxes are exact, the masks are drawn from 8 by 8 parts
    assert 0.5 < metrics["mask_ap"] < metrics["mask_ap50"] <= 1
    assert f"best mask AP {metrics['mask_ap']:.3f}" in told.out
    assert f"mask AP {metrics['mask_ap']:.3f}, mask AP50 1.000" in told.err


def test_a_set_without_masks_is_refused_with_a_remedy(tmp_path, data, capsys):
    boxes = write_data(tmp_path / "boxes", segmentations=False)
    assert main(["train", str(boxes), *TRAIN, "-o", "other"]) == 3
    told = capsys.readouterr().err
    assert "colour-masks learns from masks, and its 3 objects have boxes only" in told
    assert "give them outlines" in told
    assert not Path("other").exists()


def test_results_of_every_kind_give_the_same_mask_ap(weights, data, capsys):
    formats = "coco,jsonl,yolo-seg,image,csv"
    command = ["detect", str(data / "val"), "-w", weights, "--save", formats, "-o", "found", "--conf", "0.01", "-q"]
    assert main([*command, "--save-conf"]) == 0
    rows = json.loads(Path("found/predictions.json").read_text())
    assert len(rows) == 3
    for row in rows:
        mask = run_lengths.decode({**row["segmentation"], "counts": row["segmentation"]["counts"].encode()})
        assert row["area"] == mask.sum()
        assert iou(mask, shapes()["red" if row["category_id"] == 4 else "green"]) > 0.85
    found = {}
    for name in ("predictions.json", "predictions.jsonl", "labels"):
        out = f"eval-{name}"
        capsys.readouterr()
        assert main(["eval", "--predictions", f"found/{name}", str(data), "-o", out, "--json", "-q"]) == 0
        found[name] = json.loads(capsys.readouterr().out)["masks"]["ap"]
        stats = numbers(Path(out, "truth.json"), Path(out, "predictions.json"), "segm")
        assert stats[0] == found[name]
    capsys.readouterr()
    assert main(["eval", weights, str(data), "-o", "measured", "--json", "-q"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["metrics"]["ap50"] > 0.99
    assert 0.5 < measured["masks"]["ap"] < 1
    assert set(found.values()) == {measured["masks"]["ap"]}
    drawn = cv2.imread("found/images/0.png")[..., ::-1].astype(int)
    plain = cv2.imread(str(data / "val" / "0.png"))[..., ::-1].astype(int)
    inside = cv2.erode(shapes()["red"].astype(np.uint8), np.ones((9, 9))) > 0
    inside[:30] = False  # the label lies there
    assert (np.abs(drawn - plain)[inside].sum(axis=1) > 60).all()  # shaded
    assert np.array_equal(drawn[150:, :60], plain[150:, :60])


def test_only_boxes_are_measured_where_that_is_asked_or_masks_are_missing(tmp_path, weights, data, capsys):
    assert main(["eval", weights, str(data), "-o", "a", "--task", "boxes", "--json", "-q"]) == 0
    assert "masks" not in json.loads(capsys.readouterr().out)
    boxes = write_data(tmp_path / "boxes", segmentations=False)
    assert main(["eval", weights, str(boxes), "-o", "b", "--json", "-q"]) == 0
    assert "masks" not in json.loads(capsys.readouterr().out)
    assert main(["eval", weights, str(boxes), "-o", "c", "--task", "masks", "-q"]) == 3
    assert f"{boxes}: holds no masks" in capsys.readouterr().err


def test_masks_of_another_size_than_the_annotations_say_are_refused(weights, data, capsys):
    file = data / "val" / "_annotations.coco.json"
    written = json.loads(file.read_text())
    written["images"][0] |= {"height": 150, "width": 170}
    for row in written["annotations"]:
        row["segmentation"] = [[10, 10, 60, 10, 60, 60]]
    file.write_text(json.dumps(written))
    assert main(["eval", weights, str(data), "-o", "a", "-q"]) == 3
    assert "0.png: is 160x160, its annotations say 170x150" in capsys.readouterr().err
    assert main(["eval", weights, str(data), "-o", "b", "-q", "--task", "boxes"]) == 0


def test_a_resumed_run_keeps_the_masks(weights, data, capsys):
    command = ["detect", str(data / "val"), "-w", weights, "--save", "coco,jsonl"]
    assert main([*command, "-o", "whole", "-q"]) == 0
    assert main([*command, "-o", "parts", "-q"]) == 0
    journal = Path("parts", JOURNAL)
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:2]))  # one picture was finished
    for name in ("predictions.json", "predictions.jsonl", "images.json"):
        Path("parts", name).unlink()
    assert main([*command, "-o", "parts", "--resume", "-q"]) == 0
    for name in ("predictions.json", "predictions.jsonl"):
        assert Path("parts", name).read_bytes() == Path("whole", name).read_bytes()
    assert b'"segmentation"' in Path("whole/predictions.json").read_bytes()


def test_boxes_and_outlines_cannot_both_be_yolo_labels(weights, data, capsys):
    command = ["detect", str(data / "val"), "-w", weights, "-q", "-o"]
    assert main([*command, "a", "--save", "yolo,yolo-seg"]) == 2
    assert "choose one of them" in capsys.readouterr().err
    assert main([*command, "b", "--save", "yolo-seg", "--save-txt"]) == 0
    assert all(len(line.split()) > 5 for line in Path("b/labels/0.txt").read_text().splitlines())


def test_views_mirror_masks_with_their_boxes(weights, data, capsys):
    for merge in ("nms", "wbf"):
        out = f"tta-{merge}"
        assert main(["eval", weights, str(data), "-o", out, "--tta", "--tta-flips", "all", "--tta-merge", merge,
                     "--json", "-q"]) == 0  # fmt: skip
        measured = json.loads(capsys.readouterr().out)
        assert measured["masks"]["ap50"] > 0.99
        assert measured["masks"]["ap"] > 0.5
