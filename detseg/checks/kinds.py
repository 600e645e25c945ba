"""The kinds of findings: how bad each is, and what helps. The words are stable: scripts may rely on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

_FIX = "detseg data fix leaves it out"


@dataclass(frozen=True)
class Kind:
    """Errors lose or falsify truth or measurements; warnings may; notes are for knowing."""

    severity: Severity
    meaning: str
    remedy: str


KINDS: dict[str, Kind] = {
    # ---- the data set as a whole ----
    "unreadable-part": Kind("error", "a part of the data set cannot be read", "repair or replace the file"),
    "classes-differ": Kind("error", "parts have different classes", "give all parts the same list of classes"),
    "bad-category": Kind("error", "a class has no usable id and name", "give it both"),
    "duplicate-name": Kind("warning", "two classes have one name", "rename or merge them"),
    "similar-names": Kind("warning", "class names differ only by case or blanks", "merge them if they are one class"),
    "blank-in-name": Kind("warning", "a class name begins or ends with a blank", "remove the blank"),
    "no-names": Kind("warning", "classes have no names", "name them in data.yaml or classes.txt"),
    "wrong-class-count": Kind("warning", "the count of classes is not that of the names", "correct nc or names"),
    "empty-class-list": Kind("warning", "the list of classes is empty", "write one name a line, or remove it"),
    "class-without-objects": Kind("note", "a class has no object", "label some, or remove the class"),
    "assumed-void": Kind("note", "one value more than classes is taken for void", "write `void` as the last class"),
    "binary-masks": Kind("note", "masks hold 0 and 255 alone: two classes", "nothing, if that was meant"),
    "odd-filename": Kind("note", "an annotation file names a picture that is not there", "correct its filename"),
    "no-label-file": Kind("note", "pictures without a label file count as empty", "nothing, if they are"),
    "unsupported-key": Kind("note", "something in the description is not used", "nothing, if that was meant"),
    # ---- pictures ----
    "missing-picture": Kind("error", "a picture is not there", f"put it back; {_FIX}"),
    "unreadable-picture": Kind("error", "a picture cannot be read", f"replace it; {_FIX}"),
    "outside-root": Kind("error", "a name leads out of the data set", "name pictures relative to it"),
    "outside-picture": Kind("error", "a listed picture lies outside the data set", "set `path`, or list it inside"),
    "bad-picture": Kind("error", "an entry of a picture cannot be used", f"give it an id and a file name; {_FIX}"),
    "size-mismatch": Kind("error", "a picture is not as large as its annotations say", "look at its boxes; fix scales"),
    "exif": Kind("error", "the size is that of the picture before it is turned upright", "fix turns the boxes"),
    "picture-in-two-splits": Kind("error", "a picture is in two splits", "keep it in one"),
    "duplicate-across-splits": Kind("error", "the same picture file is in two splits", "keep it in one"),
    "similar-across-splits": Kind("warning", "nearly the same picture is in two splits", "look, and keep it in one"),
    "duplicate-picture": Kind("warning", "the same picture file is there twice", "keep one"),
    "similar-picture": Kind("note", "nearly the same picture is there twice", "look, and keep one"),
    "duplicate-file-name": Kind("warning", "two entries name the same picture", "join them"),
    "repeated-picture": Kind("warning", "a list names a picture twice", "remove one line"),
    "empty-picture": Kind("note", "pictures without objects", "nothing, if there is nothing on them"),
    "stray-picture": Kind("note", "no annotation file speaks of a picture", "annotate it, or move it away"),
    "unlisted-picture": Kind("note", "a picture is in no split", "add it to a list, or nothing"),
    "other-picture-named": Kind("warning", "an annotation file names another picture", "correct its filename"),
    # ---- annotation files ----
    "unreadable-xml": Kind("error", "an annotation file cannot be read", f"repair it; {_FIX}"),
    "unreadable-labels": Kind("error", "a label file cannot be read", "repair it, or its permissions"),
    "missing-annotation": Kind("error", "a listed picture has no annotation file", f"annotate it; {_FIX}"),
    "stray-labels": Kind("warning", "a label file has no picture", "put the picture back, or remove the file"),
    "bad-line": Kind("error", "a line cannot be used", f"correct it; {_FIX}"),
    "duplicate-key": Kind("warning", "a key is given twice", "keep one"),
    # ---- objects ----
    "duplicate-id": Kind("error", "an id is given twice", "number anew; fix does"),
    "unknown-picture": Kind("error", "an annotation speaks of no picture", f"correct image_id; {_FIX}"),
    "unknown-category": Kind("error", "an annotation has a class that is not there", f"add the class; {_FIX}"),
    "bad-annotation": Kind("error", "an annotation cannot be used", f"correct it; {_FIX}"),
    "bad-object": Kind("error", "an object cannot be used", f"correct it; {_FIX}"),
    "bad-value": Kind("error", "a value is none that is allowed", f"correct it; {_FIX}"),
    "bad-box": Kind("error", "a box is not four usable numbers", f"correct it; {_FIX}"),
    "missing-box": Kind("error", "an annotation has no box", f"give it one; {_FIX}"),
    "degenerate-box": Kind("warning", "a box has no area inside its picture", f"draw it again; {_FIX}"),
    "box-outside": Kind("warning", "a box reaches out of its picture", "fix cuts it"),
    "duplicate-annotation": Kind("warning", "an object is annotated twice", "keep one; fix does"),
    "two-classes": Kind("note", "one box has two classes", "keep one, unless both are true"),
    "bad-outline": Kind("error", "an outline cannot be drawn", "draw it again; fix keeps the box alone"),
    "outline-outside": Kind("warning", "an outline reaches out of its picture", "fix cuts it"),
    "outline-box": Kind("warning", "an outline and its box disagree", "look which is right"),
    "area": Kind("warning", "the area is not that of the outline", "fix computes it"),
    "left-out-shapes": Kind("warning", "shapes that are no boxes or polygons are left out", "draw them as polygons"),
    "crowd-polygon": Kind("warning", "a crowd region is given as polygons", "crowds are run lengths in COCO"),
    # ---- label maps ----
    "missing-mask": Kind("error", "a picture has no label map", f"draw it; {_FIX}"),
    "unmasked-picture": Kind("note", "pictures of a VOC tree have no label map", "nothing, if that was meant"),
    "stray-mask": Kind("warning", "a label map has no picture", "put the picture back, or remove it"),
    "unreadable-mask": Kind("error", "a label map cannot be read", f"replace it; {_FIX}"),
    "mask-size": Kind("error", "a label map is not as large as its picture", "draw it again at the picture's size"),
    "mask-values": Kind("error", "a label map has values that are no class", "correct them; fix ignores such pixels"),
    "unmatched-mask": Kind("warning", "masks of objects lie on no box", "give them boxes, or remove them"),
    "empty-mask": Kind("note", "label maps in which nothing counts", "nothing, if that was meant"),
}

_UNKNOWN = Kind("warning", "something is wrong", "look at the file")


def kind_of(word: str) -> Kind:
    """The kind of that name; one for all that readers may say besides."""
    return KINDS.get(word, _UNKNOWN)
