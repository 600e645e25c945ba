"""Darknet's two files: what a cfg may say, what a weight file must hold, and what is told of those that are wrong."""

from __future__ import annotations

import resource
import struct
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from detseg.checkpoints.darknet_cfg import MAX_SECTIONS, from_json, parse_cfg, read_cfg, to_json
from detseg.checkpoints.darknet_plan import Plan, plan, unused
from detseg.checkpoints.darknet_weights import read_weights
from detseg.errors import WeightsError
from tests import darknet_numpy as plain
from tests.darknet_cfgs import NETWORKS

SMALL = """\
# a comment
[net]
width=32
height = 64
[convolutional]
filters=4
size=3
stride=2
pad=1
batch_normalize=1
activation=leaky
[convolutional]
filters=12
size=1
activation=linear
[yolo]
mask=0,1
anchors=4,8, 16,16
classes=1
"""
HEADER = struct.pack("<3iQ", 0, 2, 5, 64)
NUMBERS = 4 * 4 + 4 * 27 + 12 + 12 * 4


def made(cfg: str) -> Plan:
    return plan(parse_cfg(cfg, "net.cfg"))


def test_a_cfg_is_read_as_darknet_reads_it():
    odd = "\ufeff; old style\r\n[ net ]\r\n wid th = 3 2 # pixels\r\nheight=64\r\nheight=7\n\n[conv]\nfilters=3\n"
    net, conv = parse_cfg(odd.lstrip("\ufeff"))
    assert (net.name, dict(net.options)) == ("net", {"width": "32", "height": "64"})
    assert (conv.name, conv.place, conv.lines) == ("convolutional", "line 7", {"filters": 8})
    assert from_json(to_json([net, conv]))[1].options == conv.options


def test_shapes_and_counts():
    found = made(SMALL)
    assert [layer.shape for layer in found.layers] == [(4, 32, 16), (12, 32, 16), (12, 32, 16)]
    assert (found.frame_hw, found.numbers, found.letterbox) == ((64, 32), NUMBERS, False)
    assert plan(parse_cfg(SMALL), (96, 160)).layers[0].shape == (4, 48, 80)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("[net]", "[nett]", "line 2, [nett]: a cfg begins with [net]"),
        ("[net]", "width=3\n[net]", "line 2: 'width=3': a line before the first [section]"),
        ("size=3", "size 3", "line 7: 'size3': neither [section] nor option=value"),
        ("[yolo]", "[yolo", "line 16: '[yolo' lacks its ]"),
        ("size=3", "size=three", "line 7, [convolutional] size=three: must be a whole number from 1 to 64"),
        ("size=3", "size=1e400", "size=1e400: must be a whole number"),
        ("filters=4", "filters=-4", "filters=-4: must be a whole number from 1 to 65536"),
        ("filters=4", "filters=1000000000", "line 6, [convolutional] filters=1000000000: must be a whole number"),
        ("width=32", "width=1000000000", "line 3, [net] width=1000000000: must be a whole number from 1 to 16384"),
        ("width=32\n", "", "[net] width: missing"),
        ("height = 64", "height = 64\nchannels=1", "channels=1: detseg gives a network RGB pictures"),
        ("activation=leaky", "activation=lreaky", "activation=lreaky: this activation is not supported; there are:"),
        ("filters=12", "filters=13", "filters=13: must be 12, since [yolo] below has 2 anchors and 1"),
        ("mask=0,1", "mask=0,2", "mask=0,2: must be a whole number from 0 to 1"),
        ("anchors=4,8, 16,16", "anchors=4,8,16", "must be 4 numbers above 0, a width and a height each, got 3"),
        ("anchors=4,8, 16,16", "anchors=4,8,16,0", "anchors=4,8,16,0: must be 4 numbers above 0"),
        ("anchors=4,8, 16,16\n", "", "anchors"),
        ("[yolo]", "[gaussian_yolo]", "Gaussian YOLO (boxes with a variance) is not supported"),
        ("[yolo]", "[region]\ntree=coco9k.tree", "tree=coco9k.tree: classes in a tree (YOLO9000) are not supported"),
        ("[yolo]", "[softmax]", "part of a classifier"),
        ("[yolo]", "[connected]", "part of a classifier"),
        ("[yolo]", "[lstm]", "this kind of layer is not supported; there are: avgpool, convolutional"),
        ("[yolo]", "[route]\nlayers=2\n[yolo]", "layers=2: layer 2 is not before this one, which is layer 2"),
        ("[yolo]", "[route]\nlayers=-3\n[yolo]", "layers=-3: layer -1 is not before this one"),
        ("[yolo]", "[route]\nlayers=\n[yolo]", "layers=: must name a layer"),
        ("[yolo]", "[maxpool]\nsize=2\nstride=2\n[yolo]", "must follow a [convolutional]"),
        ("[yolo]", "[shortcut]\nfrom=0\nweights_type=per_feature\n[yolo]", "a sum with learned weights is not"),
        ("[yolo]", "[route]\nlayers=0\ngroups=3\n[yolo]", "the 4 channels of layer 0 cannot be cut into them"),
        ("pad=1", "pad=1\nxnor=1", "xnor=1: not supported"),
        ("pad=1", "groups=2", "groups=2: 3 channels and 4 filters cannot be shared out"),
        ("stride=2", "stride=2\nsize=60\n[maxpool]\nsize=60\npadding=0", "nothing is left of its input"),
        ("stride=2", "stride=2\n[upsample]\nstride=64\n[upsample]\nstride=64\n[upsample]\nstride=64", "is too large"),
        ("classes=1\n", "classes=1\n[convolutional]\nfilters=1\n", "reads layer 2 (net.cfg, line 16, [yolo])"),
        ("classes=1\n", "classes=1\n[route]\nlayers=1\n", "reads layer 1, which makes boxes"),
        ("[yolo]\nmask=0,1\nanchors=4,8, 16,16\nclasses=1\n", "", "no [yolo] or [region] layer"),
    ],
)  # fmt: skip
def test_a_wrong_cfg_is_told_with_its_line(old, new, told):
    assert old in SMALL
    with pytest.raises(WeightsError) as error:
        made(SMALL.replace(old, new, 1))
    assert told in str(error.value)
    assert str(error.value).startswith("net.cfg")


def test_a_deep_and_wide_cfg_is_refused_in_no_time_and_no_memory():
    wide = "[convolutional]\nfilters=65536\nsize=64\nstride=1\npad=1\nactivation=linear\n"
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(WeightsError, match="too large"):
        made(SMALL.replace("[yolo]", wide + "[yolo]").replace("width=32", "width=16384"))
    with pytest.raises(WeightsError, match="more than 1,073,741,824 parameters"):
        made(SMALL.replace("[yolo]", wide * 3 + "[yolo]").replace("width=32", "width=1").replace("= 64", "= 1"))
    with pytest.raises(WeightsError, match=f"more than {MAX_SECTIONS} sections"):
        made(SMALL + "[route]\nlayers=0\n" * 5000)
    doubling = "[route]\nlayers=-1,-1\n"
    with pytest.raises(WeightsError, match="too large"):
        made(SMALL.replace("[yolo]", doubling * 4000 + "[yolo]"))
    assert time.process_time() - start < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_slips_of_the_pen_are_found():
    odd = SMALL.replace("pad=1", "pad=1\nactivaton=mish").replace(
        "classes=1", "classes=1\njitter=.3\nnms_kind=greedynms"
    )
    assert unused(parse_cfg(odd)) == ["line 10, [convolutional] activaton=mish"]


def test_files_that_are_no_cfg(tmp_path):
    (tmp_path / "a.cfg").write_bytes(HEADER + bytes(100))
    (tmp_path / "b.cfg").write_text("")
    (tmp_path / "c.cfg").write_bytes(b"# " + b"x" * 5_000_000)
    for name, told in (("a", "not a Darknet cfg"), ("b", "no [section]"), ("c", "not a Darknet cfg"), ("d", "no such")):
        with pytest.raises(WeightsError) as error:
            read_cfg(tmp_path / f"{name}.cfg")
        assert told in str(error.value)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    (tmp_path / "net.weights").write_bytes(HEADER + np.arange(1, NUMBERS + 1, dtype="<f4").tobytes())
    return tmp_path / "net.weights"


def test_the_order_of_the_numbers(weights):
    header, found = read_weights(weights, made(SMALL))
    assert (header.version, header.seen, header.bytes) == ("0.2.5", 64, 20)
    first, second = found[0], found[1]
    order = [first.bias, first.scale, first.mean, first.variance, first.kernel, second.bias, second.kernel]
    assert np.concatenate([part.ravel() for part in order]).tolist() == list(range(1, NUMBERS + 1))
    assert second.scale is None
    assert (first.kernel.shape, second.kernel.shape) == ((4, 3, 3, 3), (12, 4, 1, 1))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda b: b[:-1], "needs 184 numbers (756 bytes with a header of 20), it holds 183.75 (755 bytes): it breaks "
                           "off in layer 1 (net.cfg, line 12, [convolutional])"),
        (lambda b: b[:100], "it holds 20 (100 bytes): it breaks off in layer 0"),
        (lambda b: b[:20], "it holds 0 (20 bytes)"),
        (lambda b: b[:12], "too short for a Darknet weight file: 12 bytes"),
        (lambda b: b[:18], "too short for a Darknet weight file: 18 bytes"),
        (lambda b: b + b[-8:], "too long for this cfg: net.cfg needs 184 numbers (756 bytes with a header of 20), it "
                               "holds 186 (764 bytes)"),
        (lambda b: b[:-4] + struct.pack("<f", np.nan), "layer 1 (net.cfg, line 12, [convolutional]) has weights"),
        (lambda b: b[:68] + struct.pack("<f", -1) + b[72:], "a negative variance in layer 0"),
        (lambda b: b"<html>" + b[6:], "does not begin with a version"),
        (lambda b: b"PK\x03\x04" + b[4:], "does not begin with a version"),
    ],
)  # fmt: skip
def test_a_weight_file_that_does_not_fit(weights, change, told):
    weights.write_bytes(change(weights.read_bytes()))
    with pytest.raises(WeightsError) as error:
        read_weights(weights, made(SMALL))
    assert str(error.value).startswith(str(weights))
    assert told in str(error.value)


LINES = st.sampled_from([line for name in ("yolov4-tiny", "yolov2") for line in NETWORKS[name](64).splitlines()] + [
    "[yolo]", "[region]", "[sam]", "[scale_channels]", "from=-2", "layers=-1,-4", "groups=2", "stride=0", "size=",
    "filters=99999999999999999999", "width=nan", "anchors=1e308,1e308", "mask=-1", "[", "]", "=", "a=b=c", "classes=1",
])  # fmt: skip


@settings(max_examples=150)
@given(st.lists(st.one_of(LINES, LINES, st.text(max_size=12))).map("\n".join))
@example("[net]\nwidth=9\nheight=9\n[yolo]")
def test_any_text_is_a_network_or_told_why_not(text):
    with suppress(WeightsError):
        assert isinstance(plan(parse_cfg(text)), Plan)


@settings(max_examples=100)
@given(st.data())
def test_a_cfg_with_slips_is_a_network_or_told_why_not(data):
    lines = NETWORKS["yolov4-tiny"](64).splitlines()
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        lines[at : at + data.draw(st.integers(0, 3))] = data.draw(st.lists(LINES, max_size=2))
    with suppress(WeightsError):
        assert isinstance(plan(parse_cfg("\n".join(lines))), Plan)


@settings(max_examples=150)
@given(st.binary(max_size=900), st.booleans())
def test_any_bytes_are_weights_or_told_why_not(tmp_path_factory, content, headed):
    path = tmp_path_factory.getbasetemp() / "any.weights"
    path.write_bytes(HEADER + content if headed else content)
    with suppress(WeightsError):
        assert len(read_weights(path, made(SMALL))[1]) == 2


def test_the_oracle_writes_what_the_plan_counts():
    for name, cfg in NETWORKS.items():
        text = cfg(64, thin=8)
        assert len(plain.random_file(text, np.random.default_rng(0))) == 20 + 4 * plan(parse_cfg(text)).numbers, name
