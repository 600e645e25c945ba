"""Which class of a model is which of a data set, by name."""

from __future__ import annotations

from detseg.annotations import Categories, ClassMatch


def match(model: list[str], data: list[str]) -> ClassMatch:
    return ClassMatch.of(Categories.from_names(model), Categories.from_names(data))


def test_darknets_names_of_coco_are_cocos_classes():
    words = ["person", "aeroplane", "motorbike", "pottedplant", "sofa", "diningtable", "tvmonitor", "Hair-Drier", "bed"]
    found = match(
        words, ["tv", "airplane", "potted plant", "couch", "person", "motorcycle", "dining table", "hair drier"]
    )
    assert found.pairs == ((0, 4), (1, 1), (2, 5), (3, 2), (4, 3), (5, 6), (6, 0), (7, 7))
    assert found.unused == ("bed",)
    assert ("sofa", "couch") in found.respelled


def test_equal_names_come_first_and_doubt_is_no_match():
    assert match(["sofa", "couch"], ["couch", "sofa"]).pairs == ((0, 1), (1, 0))
    assert match(["sofa", "Couch"], ["couch"]).pairs == ()
    assert match(["+", "-"], ["-", "*"]).pairs == ((1, 0),)
