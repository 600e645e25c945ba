"""Sources: what is found, under which names, and that no two pictures ever share one."""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detseg.errors import DetsegError
from detseg.images import ImageFile, find_images, sources
from detseg.images.image_file import unique_folders, unique_stems
from tests.bad_inputs import ODD_NAMES, make_bad_inputs

Tree = Callable[..., Path]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """Makes empty files by relative path in a new current folder; sources only look at names."""
    monkeypatch.chdir(tmp_path)

    def make(*names: str) -> Path:
        for name in names:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).touch()
        return tmp_path

    return make


def names(*given: str | Path, **options: object) -> list[str]:
    return [str(image.name) for image in find_images([str(one) for one in given], **options)]  # type: ignore[arg-type]


def outputs(*given: str | Path) -> list[str]:
    return [str(image.output) for image in find_images([str(one) for one in given])]


def test_a_folder_gives_its_pictures_sorted_then_its_folders(tree: Tree) -> None:
    tree(
        "p/b.jpg",
        "p/a.PNG",
        "p/z/1.webp",
        "p/c/2.tiff",
        "p/.hidden.jpg",
        "p/.git/x.jpg",
        "p/notes.txt",
        "p/x.jpg~",
    )
    assert names("p") == ["a.PNG", "b.jpg", "c/2.tiff", "z/1.webp"]
    assert [image.path for image in find_images("p")][:1] == [Path("p/a.PNG")]


def test_the_folder_of_bad_inputs_is_found_whole(tmp_path: Path) -> None:
    expected = make_bad_inputs(tmp_path / "in")
    found = list(find_images([tmp_path / "in"]))
    assert sorted(str(image.name) for image in found) == sorted(expected)
    assert [str(image.name) for image in found if image.fault] == ["links/up"]
    _all_differ(found)


def test_an_unreadable_folder_is_named_and_the_rest_is_found(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree("p/a.jpg", "p/closed/b.jpg", "p/open/c.jpg")
    scan = os.scandir

    def refuse(path: str | Path) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = [(str(image.name), image.fault) for image in find_images("p")]
    assert found == [
        ("a.jpg", None),
        ("closed", "the folder cannot be read: Permission denied"),
        ("open/c.jpg", None),
    ]


def test_listing_is_lazy(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(*(f"p/{i:02}/a.jpg" for i in range(50)))
    listed = []
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or scan(path))
    assert len(list(itertools.islice(find_images("p"), 3))) == 3
    assert len(listed) == 4  # p and the first three


def test_several_sources_are_named_from_the_folder_they_share(tree: Tree) -> None:
    root = tree("x/imgs/1.jpg", "y/imgs/1.jpg", "1.jpg")
    assert names("x/imgs", "y/imgs") == ["x/imgs/1.jpg", "y/imgs/1.jpg"]
    assert names("x/imgs/1.jpg", "y/imgs/1.jpg") == ["x/imgs/1.jpg", "y/imgs/1.jpg"]
    assert names(root / "x", "1.jpg") == ["x/imgs/1.jpg", "1.jpg"]
    assert names("x/../y/imgs") == ["1.jpg"]
    assert names("x/imgs/1.jpg") == ["1.jpg"]


def test_the_same_picture_by_two_ways_is_done_once(tree: Tree) -> None:
    tree("p/a.jpg", "p/q/b.jpg", "p/.shown.jpg", "p/odd.heic")
    assert names("p", "p/q", "p/q/b.jpg", "p/q/../a.jpg") == ["a.jpg", "q/b.jpg"]
    assert names("p/a.jpg", "p/a.jpg", "p/q/../a.jpg") == ["a.jpg"]
    assert names("p/*.jpg", "p") == ["a.jpg", "q/b.jpg"]
    assert names("p", "p/.shown.jpg", "p/odd.heic") == ["a.jpg", "q/b.jpg", ".shown.jpg", "odd.heic"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("p/*.jpg", ["a.jpg", "b.jpg"]),
        ("p/[ab].*", ["a.jpg", "a.png", "b.jpg"]),
        ("p/**/*.jpg", ["a.jpg", "b.jpg", "q/c.jpg", "q/r/d.jpg"]),
        ("p/**", ["a.jpg", "a.png", "b.jpg", "q/c.jpg", "q/r/d.jpg"]),
        ("p/q*", ["q/c.jpg", "q/r/d.jpg", "q/r/up"]),
        ("p/?/r/d.jpg", ["q/r/d.jpg"]),
        ("p/*.txt", ["note.txt"]),
        ("**/r/*.jpg", ["p/q/r/d.jpg"]),
        ("**/**/d.jpg", ["p/q/r/d.jpg"]),
    ],
)
def test_patterns(tree: Tree, pattern: str, expected: list[str]) -> None:
    tree("p/a.jpg", "p/a.png", "p/b.jpg", "p/q/c.jpg", "p/q/r/d.jpg", "p/note.txt", "p/.h/e.jpg")
    (Path("p/q/r/up")).symlink_to("../..")
    assert names(pattern) == expected


def test_a_name_with_wildcards_is_taken_literally_first(tree: Tree) -> None:
    tree("a[1].jpg", "a1.jpg", "f*/b.jpg", "foo/c.jpg")
    assert names("a[1].jpg") == ["a[1].jpg"]
    assert names("f*") == ["b.jpg"]
    assert names("a[[]1].jpg") == ["a[1].jpg"]


def test_a_list_counts_from_its_own_folder_or_from_here(tree: Tree) -> None:
    root = tree("d/imgs/a.jpg", "d/imgs/b b.jpg", "d/more/c.jpg")
    Path("d/list.txt").write_text("imgs/a.jpg\r\n\nimgs/b b.jpg\nmore\nimgs/none.jpg\nimgs/a.jpg\n")
    assert names("d/list.txt") == ["imgs/a.jpg", "imgs/b b.jpg", "more/c.jpg", "imgs/none.jpg"]
    Path("lists").mkdir()
    Path("lists/list.txt").write_text(f"\ufeffd/imgs/a.jpg\n{root}/d/imgs/b b.jpg\n")
    assert names("lists/list.txt") == ["a.jpg", "b b.jpg"]


def test_a_list_keeps_names_that_are_not_utf_8(tree: Tree) -> None:
    odd = [name for name in ODD_NAMES if "\n" not in name]
    tree(*odd)
    Path("list.txt").write_bytes(b"\n".join(os.fsencode(name) for name in odd))
    found = list(find_images("list.txt"))
    assert [str(image.name) for image in found] == odd
    assert all(image.path.exists() for image in found)


def test_standard_input(tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> None:
    tree("a.jpg", "q/b.jpg")
    elsewhere = tmp_path_factory.mktemp("else") / "a.jpg"
    stdin = io.TextIOWrapper(io.BytesIO(b"a.jpg\nq/b.jpg\n" + os.fsencode(elsewhere) + b"\nnone\xe9.jpg\n"))
    expected = ["a.jpg", "q/b.jpg", str(elsewhere)[1:], "none\udce9.jpg"]
    assert names("-", stdin=stdin) == expected
    assert names("-", stdin=io.StringIO("a.jpg\n")) == ["a.jpg"]


def test_a_path_from_outside_never_takes_a_name_inside(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree("here/data/a.jpg", "data/a.jpg")
    monkeypatch.chdir(root / "here")
    inside = Path(str(root)[1:]) / "data" / "a.jpg"
    inside.parent.mkdir(parents=True)
    inside.touch()
    found = list(find_images("-", stdin=io.StringIO(f"{inside}\n{root}/data/a.jpg\n")))
    assert len({image.name for image in found}) == 2
    assert found[1].name.parts[0] == "outside"


def test_skipped_folders_are_not_entered(tree: Tree) -> None:
    tree("a.jpg", "runs/1/a.jpg", "q/b.jpg")
    for source in (".", "**/*.jpg"):
        assert names(source, skip=["runs"]) == ["a.jpg", "q/b.jpg"]


def test_missing_sources_are_refused_at_once_with_a_near_name(tree: Tree) -> None:
    tree("photos/cat.jpg", "empty/x.txt")
    for given_source, words in {
        "photo": "did you mean 'photos'",
        "photos/cut.jpg": "did you mean 'photos/cat.jpg'",
        "photso/cat.jpg": "did you mean 'photos/cat.jpg'",
        "q/r/s.jpg": "no such file or folder; a source is",
        "photos/*.png": "no picture matches",
        "https://a.b/c.jpg": "download",
        "": "no such file",
    }.items():
        with pytest.raises(DetsegError, match=words.replace("?", r"\?")):
            find_images([given_source])
    with pytest.raises(DetsegError, match="no source"):
        find_images([])
    assert names("empty") == []


def test_stems_of_one_folder() -> None:
    assert unique_stems(["a.jpg", "b.png"]) == ["a", "b"]
    assert unique_stems(["a.jpg", "a.png", "b.jpg"]) == ["a_jpg", "a_png", "b"]
    assert unique_stems(["a.jpg", "a.png", "a_jpg.bmp"]) == ["a_jpg_2", "a_png", "a_jpg"]
    assert unique_stems(["A.jpg", "a.jpg"]) == ["A_jpg", "a_jpg_2"]
    assert unique_stems(["a.jpg"], folders=["a.txt"]) == ["a_jpg"]
    assert unique_stems(["e\u0301.jpg", "\u00e9.jpg"])[1] == "\u00e9_jpg_2"  # one name to some file systems
    assert unique_folders(["A", "a", "b"]) == ["A", "a_2", "b"]


def test_stems_across_sources_in_any_order(tree: Tree) -> None:
    tree("p/a.jpg", "p/a.png", "p/a_png.jpg", "q/a.jpg")
    assert outputs("p/a.jpg", "q/a.jpg", "p/a.png") == ["p/a_jpg", "q/a", "p/a_png"]
    Path("list.txt").write_text("p/a.jpg\np/a.png\np/a_png.jpg\n")
    assert outputs("list.txt") == ["a", "a_png", "a_png_jpg"]
    assert outputs("p/*.png", "p/a.jpg") == ["a", "a_jpg"]


def test_folders_that_differ_in_case_alone_are_written_apart(tree: Tree) -> None:
    tree("p/A/1.jpg", "p/a/1.jpg", "p/b/1.jpg")
    assert names("p") == ["A/1.jpg", "a/1.jpg", "b/1.jpg"]
    assert outputs("p") == ["A/1", "a_2/1", "b/1"]
    assert outputs("p/A/1.jpg", "p/a/1.jpg") == ["A/1_jpg", "a/1_jpg_2"]


_FILE = st.sampled_from(
    [
        "a.jpg",
        "A.jpg",
        "a.JPG",
        "a.png",
        "a_jpg.jpg",
        "a_jpg_2.png",
        "a_png.jpg",
        "b.jpg",
        "a.jpg.png",
        "b.txt.jpg",
    ]
)
_FOLDER = st.sampled_from(["", "d/", "D/", "d/e/", "a.txt/", "b.txt/", "a.jpg.png/"])


@settings(max_examples=60)
@given(st.lists(st.tuples(_FOLDER, _FILE), min_size=1, max_size=25, unique=True), st.data())
def test_no_two_pictures_ever_share_an_output(
    tmp_path_factory: pytest.TempPathFactory, places: list[tuple[str, str]], data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("tree")
    for folder, name in places:
        (root / folder).mkdir(parents=True, exist_ok=True) if not (root / folder).is_file() else None
        if (root / folder).is_dir() and not (root / folder / name).exists():
            (root / folder / name).touch()
    everything = list(root.rglob("*"))
    (root / "all.list").write_text("\n".join(str(path) for path in everything))
    (root / "all.list").rename(root / "list.txt")
    choices = [*everything, root, f"{root}/**/*.*", f"{root}/*", root / "list.txt"]
    chosen = data.draw(st.lists(st.sampled_from(choices), min_size=1, max_size=4))
    _all_differ(list(find_images(chosen)))


def _all_differ(found: list[ImageFile]) -> None:
    written = [image for image in found if image.fault is None]
    assert len({image.name for image in written}) == len(written)
    assert len({str(image.output).casefold() for image in written}) == len(written)
    for image in written:
        for name in (image.name, image.output):
            assert isinstance(name, PurePosixPath)
            assert not name.is_absolute()
            assert ".." not in name.parts


def test_long_names_leave_room_for_endings(tree: Tree) -> None:
    tree(f"p/{'ä' * 120}.jpg", f"p/{'ä' * 119}b.jpg")
    stems = outputs("p")
    assert len(set(stems)) == 2
    assert max(len(os.fsencode(stem)) for stem in stems) < 230


def test_a_missing_source_is_found_missing_even_far_from_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DetsegError, match="no such file"):
        sources.find_images(["/nowhere/at/all/x.jpg"])
