"""Archives, good and hostile: what they may write, and where."""

from __future__ import annotations

import io
import random
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detseg.downloads import Limits, archives, unpack
from detseg.errors import DataError, DetsegError

COMPRESSIONS: dict = {".tgz": "w:gz", ".gz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}
TREE = {"set/a.txt": b"one", "set/deep/b.bin": bytes(range(256)) * 100, "set/empty": b""}


def zip_of(path: Path, tree: dict[str, bytes], **kinds: int) -> Path:
    """A zip; `kinds` gives a member, `/` written as `_`, its type of file."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in tree.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (kinds.get(name.replace("/", "_"), stat.S_IFREG) | 0o777) << 16
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return path


def tar_of(path: Path, tree: dict[str, bytes], *more: tarfile.TarInfo) -> Path:
    """A tar, compressed as its name says; `more` are members without content."""
    with tarfile.open(path, COMPRESSIONS.get(path.suffix, "w")) as archive:
        for name, content in tree.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o4777
            archive.addfile(info, io.BytesIO(content))
        for info in more:
            archive.addfile(info)
    return path


def member(name: str, type: bytes, linkname: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = type, linkname
    return info


def tree_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tgz", "a.tar.gz", "a.tar.bz2", "a.tar.xz"])
def test_what_went_in_comes_out(tmp_path: Path, name: str):
    make = zip_of if name.endswith(".zip") else tar_of
    heard = []
    archive = make(tmp_path / name, TREE).rename(tmp_path / "no ending at all")  # its bytes tell what it is
    assert unpack(archive, tmp_path / "out", progress=lambda *s: heard.append(s)) == len(TREE)
    assert tree_of(tmp_path / "out") == TREE
    assert heard
    assert all(0 <= done <= total for done, total in heard)
    assert not any(p.stat().st_mode & (stat.S_ISUID | 0o111) for p in (tmp_path / "out").rglob("*") if p.is_file())


def test_only_what_is_asked_for(tmp_path: Path):
    tree = {"ann/x_val.json": b"1", "ann/x_train.json": b"2", "val/1.jpg": b"3", "__MACOSX/val/._1.jpg": b""}
    assert unpack(zip_of(tmp_path / "a.zip", tree), tmp_path / "out", only=["ann/*_val.json", "val/*"]) == 2
    assert set(tree_of(tmp_path / "out")) == {"ann/x_val.json", "val/1.jpg"}


CLIMBING = ["../evil", "a/../../evil", "/tmp/detseg-evil", "..\\evil", "C:\\evil", "a/..\\..\\evil", ".."]


@pytest.mark.parametrize("name", CLIMBING)
@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_what_climbs_out_is_refused(tmp_path: Path, make: Callable[..., Path], name: str):
    (tmp_path / "in").mkdir()
    archive = make(tmp_path / "in" / "a.zip", TREE | {name: b"x"})
    with pytest.raises(DataError, match="leads out of the folder") as caught:
        unpack(archive, tmp_path / "in" / "out" / "deep")
    assert str(archive) in str(caught.value)
    assert repr(name) in str(caught.value)
    assert "\n" not in str(caught.value)
    written = {p for p in tmp_path.rglob("*") if p.is_file()} - {archive}
    assert all(p.is_relative_to(tmp_path / "in" / "out" / "deep") for p in written)
    assert make is tar_of or not written
    assert not Path("/tmp/detseg-evil").exists()


SYM, HARD = tarfile.SYMTYPE, tarfile.LNKTYPE


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([member("out", SYM, "../..")], "outside the folder"),
        ([member("out", SYM, "/etc")], "outside the folder"),
        ([member("deep/out", SYM, "../../x")], "outside the folder"),
        ([member("out", HARD, "../../etc/passwd")], "outside the folder"),
        ([member("out", HARD, "nothing")], "no file of the archive"),
        ([member("a", SYM, "b"), member("b", SYM, "a")], "link"),
        # seen from its own folder the link stays inside, seen through the first link it does not
        ([member("d", SYM, "."), member("d/e/f/out", SYM, "../../../x")], "another link"),
        ([member("pipe", tarfile.FIFOTYPE)], "device or a pipe"),
        ([member("disk", tarfile.BLKTYPE)], "device or a pipe"),
        ([member("set", SYM, "set/deep")], "link"),
    ],
)
def test_links_and_devices_that_lead_astray_are_refused(tmp_path: Path, members: list, words: str):
    with pytest.raises(DataError, match=words):
        unpack(tar_of(tmp_path / "a.tar", TREE, *members), tmp_path / "out")


def test_no_file_is_written_through_a_link(tmp_path: Path):
    (tmp_path / "outside").mkdir()
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(member("set", SYM, "elsewhere"))
        info = tarfile.TarInfo("set/a.txt")
        archive.addfile(info)
    with pytest.raises(DataError, match="link and a folder at once"):
        unpack(tmp_path / "a.tar", tmp_path / "out")
    zip_of(tmp_path / "a.zip", {"set/link": b"../../outside", "set/link/x": b"1"}, set_link=stat.S_IFLNK)
    with pytest.raises(DataError, match="outside"):
        unpack(tmp_path / "a.zip", tmp_path / "out2")
    assert not list((tmp_path / "outside").iterdir())


def test_links_that_stay_inside_are_kept(tmp_path: Path):
    links = [
        member("set/soft", SYM, "deep/b.bin"),
        member("set/deep/up", SYM, "../a.txt"),
        member("hard", HARD, "set/a.txt"),
    ]
    assert unpack(tar_of(tmp_path / "a.tar", TREE, *links), tmp_path / "out") == len(TREE) + 3
    assert tree_of(tmp_path / "out") == TREE | {
        "set/soft": TREE["set/deep/b.bin"], "set/deep/up": b"one", "hard": b"one",
    }  # fmt: skip
    (tmp_path / "out").rename(tmp_path / "moved")  # as the folder of a data set is, at the end
    assert (tmp_path / "moved" / "set" / "soft").read_bytes() == TREE["set/deep/b.bin"]


@pytest.mark.parametrize("make", [zip_of, lambda path, tree: tar_of(path.with_suffix(".tgz"), tree)])
def test_a_bomb_is_stopped_before_it_fills_the_disk(tmp_path: Path, make: Callable[..., Path]):
    bomb = make(tmp_path / "bomb.zip", {"zeros": bytes(30_000_000)})
    assert bomb.stat().st_size < 40_000
    with pytest.raises(DataError, match="decompression bomb"):
        unpack(bomb, tmp_path / "out", limits=Limits(ratio=100, floor=1_000_000))
    assert sum(p.stat().st_size for p in (tmp_path / "out").rglob("*")) < 6_000_000
    with pytest.raises(DataError, match="bomb"):
        unpack(bomb, tmp_path / "out", limits=Limits(total=1_000_000))
    with pytest.raises(DataError, match="more than 2 members"):
        unpack(make(tmp_path / "many.zip", TREE), tmp_path / "out", limits=Limits(members=2))
    assert unpack(bomb, tmp_path / "out") == 1  # 30 MB of zeros are fine by themselves


def test_a_header_that_would_fill_the_memory_is_refused(tmp_path: Path):
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 33
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    with pytest.raises(DataError, match="a header of 8589934592 bytes"):
        unpack(tmp_path / "a.tar", tmp_path / "out")


def test_what_is_no_archive_is_told_apart(tmp_path: Path):
    path = tmp_path / "a.zip"
    for content, words in ((b"", "neither zip nor tar"), (b"text", "neither"), (b"\n<!DOCTYPE html><p>", "a web page")):
        path.write_bytes(content)
        with pytest.raises(DataError, match=words):
            unpack(path, tmp_path / "out")
    with pytest.raises(DataError, match="there is no such file"):
        unpack(tmp_path / "gone.zip", tmp_path / "out")


def test_a_password_and_an_unknown_compression_are_named(tmp_path: Path):
    plain = zip_of(tmp_path / "a.zip", {"a": b"x" * 99}).read_bytes()
    for place, value, words in ((6, 1, "password"), (8, 99, "compressed in a way")):
        changed = bytearray(plain)
        for at in (plain.index(b"PK\x03\x04") + place, plain.index(b"PK\x01\x02") + place + 2):
            changed[at] = value
        (tmp_path / "b.zip").write_bytes(changed)
        with pytest.raises(DataError, match=words):
            unpack(tmp_path / "b.zip", tmp_path / "out")


def seeds() -> list[bytes]:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = [zip_of(folder / "a.zip", TREE), *(tar_of(folder / f"a.{s}", TREE) for s in ("tar", "tgz", "tar.xz"))]
        return [path.read_bytes() for path in made]


SEEDS = seeds()


@settings(max_examples=300)
@given(st.sampled_from(SEEDS), st.integers(0, 2**32))
def test_a_damaged_archive_never_gives_a_traceback(tmp_path_factory: pytest.TempPathFactory, seed: bytes, number: int):
    dice, content = random.Random(number), bytearray(seed)
    for _ in range(dice.randint(1, 6)):
        at = dice.randrange(len(content))
        how = dice.randrange(4)
        if how == 0:
            content[at] = dice.randrange(256)
        elif how == 1:
            del content[at:]
        elif how == 2:
            del content[at : at + dice.randint(1, 40)]
        else:
            content[at:at] = dice.randbytes(dice.randint(1, 40))
        content = content or bytearray(b"x")
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "a").write_bytes(content)
    words = ""
    try:
        unpack(folder / "a", folder / "out" / "in")
    except DetsegError as error:
        words = str(error)
    assert not words or str(folder) in words
    assert "\n" not in words
    assert {p.name for p in folder.iterdir()} <= {"a", "out"}
    assert {p.name for p in (folder / "out").iterdir()} <= {"in"}


def test_the_limits():
    assert Limits().of(10) == 1 << 26
    assert Limits().of(1 << 30) == 100 << 30
    assert Limits(total=5).of(1 << 30) == 5
    assert archives.Limits is Limits
