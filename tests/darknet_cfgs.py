"""Published Darknet detectors as cfg texts, each written from its structure: `NETWORKS[name]()`.

Sources: YOLO9000 (2017) table 6 and sec. 3; YOLOv3 (2018) table 1 and sec. 2.3; YOLOv4 (2020) sec. 3.4; Scaled-YOLOv4
(2021) fig. 3 and 4; YOLOv7 (2022) fig. 2. Layers are counted from 0 after [net], as in the cfg.
"""

from __future__ import annotations

from collections.abc import Callable

V3_ANCHORS = "10,13, 16,30, 33,23, 30,61, 62,45, 59,119, 116,90, 156,198, 373,326"
V4_ANCHORS = "12,16, 19,36, 40,28, 36,75, 76,55, 72,146, 142,110, 192,243, 459,401"
TINY_ANCHORS = "10,14, 23,27, 37,58, 81,82, 135,169, 344,319"
V2_ANCHORS = "0.57273,0.677385, 1.87446,2.06253, 3.33843,5.47434, 7.88282,3.52778, 9.77052,9.16828"


class Net:
    """Writes sections; every method answers the number of its last layer. `thin`: filters are divided by it."""

    def __init__(self, side: int, thin: int = 1, classes: int = 80, activation: str = "leaky") -> None:
        self.parts = [f"[net]\nwidth={side}\nheight={side}\nchannels=3\n"]
        self.thin, self.classes, self.activation = thin, classes, activation

    @property
    def text(self) -> str:
        return "\n".join(self.parts)

    @property
    def last(self) -> int:
        return len(self.parts) - 2

    def add(self, name: str, **options: object) -> int:
        lines = [f"[{name}]", *(f"{key} = {value}" for key, value in options.items())]
        self.parts.append("\n".join(lines) + "\n")
        return self.last

    def conv(self, filters: int, size: int = 1, stride: int = 1, **options: object) -> int:
        settings = {"batch_normalize": 1, "activation": self.activation, **options}
        return self.add("convolutional", filters=filters // self.thin, size=size, stride=stride, pad=1, **settings)

    def convs(self, *filters: int, first: int = 1) -> int:
        """Kernels of 1 and 3 in turn."""
        for i, count in enumerate(filters):
            self.conv(count, (first, 4 - first)[i % 2])
        return self.last

    def pool(self, size: int = 2, stride: int = 2) -> int:
        return self.add("maxpool", size=size, stride=stride)

    def route(self, *layers: int, **options: object) -> int:
        return self.add("route", layers=", ".join(map(str, layers)), **options)

    def up(self) -> int:
        return self.add("upsample", stride=2)

    def residual(self, inner: int, outer: int) -> int:
        self.conv(inner)
        self.conv(outer, 3)
        return self.add("shortcut", **{"from": -3}, activation="linear")

    def spp(self) -> int:
        """Maxima over 5, 9 and 13 cells beside the map itself, as v3-spp and v4 have it."""
        start = self.last
        maps = [start]
        for size in (5, 9, 13):
            if self.last != start:
                self.route(start)
            maps.append(self.pool(size, 1))
        return self.route(*reversed(maps))

    def elan(self, inner: int, outer: int) -> int:
        start = self.last
        a = self.conv(inner)
        self.route(start)
        b = self.conv(inner)
        c = self.conv(inner, 3)
        d = self.conv(inner, 3)
        self.route(d, c, b, a)
        return self.conv(outer)

    def predict(self, mask: str, anchors: str, **options: object) -> int:
        activation = "logistic" if options.get("new_coords") else "linear"
        filters = len(mask.split(",")) * (5 + self.classes)
        self.add("convolutional", size=1, stride=1, pad=1, filters=filters, activation=activation)
        num = len(anchors.split(",")) // 2
        return self.add("yolo", mask=mask, anchors=anchors, classes=self.classes, num=num, **options)

    def region(self) -> int:
        self.add("convolutional", size=1, stride=1, pad=1, filters=5 * (5 + self.classes), activation="linear")
        return self.add("region", anchors=V2_ANCHORS, classes=self.classes, coords=4, num=5, softmax=1, bias_match=1)


def yolov2_tiny(side: int = 416, thin: int = 1) -> str:
    net = Net(side, thin)
    for filters in (16, 32, 64, 128, 256):
        net.conv(filters, 3)
        net.pool()
    net.conv(512, 3)
    net.pool(2, 1)
    net.conv(1024, 3)
    net.conv(512, 3)
    net.region()
    return net.text


def yolov2(side: int = 416, thin: int = 1) -> str:
    net = Net(side, thin)
    net.conv(32, 3)
    net.pool()
    net.conv(64, 3)
    for filters, count in ((128, 3), (256, 3), (512, 5), (1024, 5)):
        net.pool()
        fine = net.last - 1  # what the passthrough of sec. 2 takes: the last map of 26 x 26
        for i in range(count):
            net.conv(filters if i % 2 == 0 else filters // 2, 3 if i % 2 == 0 else 1)
    net.conv(1024, 3)
    deep = net.conv(1024, 3)
    net.route(fine)
    net.conv(64)
    passed = net.add("reorg", stride=2)
    net.route(passed, deep)
    net.conv(1024, 3)
    net.region()
    return net.text


def yolov3_tiny(side: int = 416, thin: int = 1) -> str:
    net = Net(side, thin)
    for filters in (16, 32, 64, 128):
        net.conv(filters, 3)
        net.pool()
    fine = net.conv(256, 3)
    net.pool()
    net.conv(512, 3)
    net.pool(2, 1)
    net.conv(1024, 3)
    neck = net.conv(256)
    net.conv(512, 3)
    net.predict("3,4,5", TINY_ANCHORS)
    net.route(neck)
    net.conv(128)
    net.route(net.up(), fine)
    net.conv(256, 3)
    net.predict("0,1,2", TINY_ANCHORS)
    return net.text


def yolov3(side: int = 416, thin: int = 1, spp: bool = False) -> str:
    net = Net(side, thin)
    net.conv(32, 3)
    ends = []
    for filters, count in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
        net.conv(filters, 3, 2)
        for _ in range(count):
            net.residual(filters // 2, filters)
        ends.append(net.last)
    neck = -1
    for i, (filters, mask) in enumerate(((512, "6,7,8"), (256, "3,4,5"), (128, "0,1,2"))):
        if i:
            net.route(neck)
            net.conv(filters)
            net.route(net.up(), ends[-1 - i])
        net.convs(filters, 2 * filters, filters)
        if spp and i == 0:
            net.spp()
            net.convs(filters, 2 * filters, filters)
        else:
            net.convs(2 * filters, filters, first=3)
        neck = net.last
        net.conv(2 * filters, 3)
        net.predict(mask, V3_ANCHORS)
    return net.text


def yolov3_spp(side: int = 608, thin: int = 1) -> str:
    return yolov3(side, thin, spp=True)


def yolov4_tiny(side: int = 416, thin: int = 1) -> str:
    net = Net(side, thin)
    net.conv(32, 3, 2)
    net.conv(64, 3, 2)
    for filters in (64, 128, 256):
        whole = net.conv(filters, 3)
        net.route(whole, groups=2, group_id=1)
        first = net.conv(filters // 2, 3)
        second = net.conv(filters // 2, 3)
        net.route(second, first)
        fine = net.conv(filters)
        net.route(whole, fine)
        net.pool()
    net.conv(512, 3)
    neck = net.conv(256)
    net.conv(512, 3)
    net.predict("3,4,5", TINY_ANCHORS, scale_x_y=1.05)
    net.route(neck)
    net.conv(128)
    net.route(net.up(), fine)
    net.conv(256, 3)
    net.predict("1,2,3", TINY_ANCHORS, scale_x_y=1.05)
    return net.text


def yolov4(side: int = 608, thin: int = 1) -> str:
    net = Net(side, thin, activation="mish")
    net.conv(32, 3)
    ends = []
    for filters, count in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
        half = filters if filters == 64 else filters // 2
        down = net.conv(filters, 3, 2)
        beside = net.conv(half)
        net.route(down)
        net.conv(half)
        for _ in range(count):
            net.residual(32 if filters == 64 else half, half)
        net.route(net.conv(half), beside)
        ends.append(net.conv(filters))
    net.activation = "leaky"
    net.convs(512, 1024, 512)
    net.spp()
    necks = [net.convs(512, 1024, 512)]
    for filters, end in ((256, ends[3]), (128, ends[2])):
        net.conv(filters)
        upper = net.up()
        net.route(end)
        net.route(net.conv(filters), upper)
        necks.append(net.convs(filters, 2 * filters, filters, 2 * filters, filters))
    below = -1
    for i, (filters, mask, scale) in enumerate(((128, "0,1,2", 1.2), (256, "3,4,5", 1.1), (512, "6,7,8", 1.05))):
        if i:
            net.route(below)
            net.route(net.conv(filters, 3, 2), necks[2 - i])
            net.convs(filters, 2 * filters, filters, 2 * filters, filters)
        below = net.last
        net.conv(2 * filters, 3)
        net.predict(mask, V4_ANCHORS, scale_x_y=scale, iou_thresh=0.213, iou_loss="ciou", nms_kind="greedynms")
    return net.text


def yolov7_tiny(side: int = 416, thin: int = 1) -> str:
    net = Net(side, thin)
    net.conv(32, 3, 2)
    net.conv(64, 3, 2)
    ends = [net.elan(32, 64)]
    for inner in (64, 128, 256):
        net.pool()
        ends.append(net.elan(inner, 2 * inner))
    beside = net.conv(256)
    net.route(ends[-1])
    net.conv(256)
    net.spp()
    net.route(net.conv(256), beside)
    necks = [net.conv(256)]
    for filters, end in ((128, ends[2]), (64, ends[1])):
        net.conv(filters)
        upper = net.up()
        net.route(end)
        net.route(net.conv(filters), upper)
        necks.append(net.elan(filters // 2, filters))
    outs = [necks[2]]
    for filters, neck in ((128, necks[1]), (256, necks[0])):
        net.route(net.conv(filters, 3, 2), neck)
        outs.append(net.elan(filters // 2, filters))
    for out, filters, mask in zip(outs, (128, 256, 512), ("0,1,2", "3,4,5", "6,7,8"), strict=True):
        net.route(out)
        net.conv(filters, 3)
        net.predict(mask, V4_ANCHORS, scale_x_y=2.0, new_coords=1)
    return net.text


NETWORKS: dict[str, Callable[..., str]] = {
    "yolov2-tiny": yolov2_tiny,
    "yolov2": yolov2,
    "yolov3-tiny": yolov3_tiny,
    "yolov3": yolov3,
    "yolov3-spp": yolov3_spp,
    "yolov4-tiny": yolov4_tiny,
    "yolov4": yolov4,
    "yolov7-tiny": yolov7_tiny,
}
