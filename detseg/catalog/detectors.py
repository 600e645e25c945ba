"""The detectors one can train, by name: a model file and the options that make it what it is."""

from __future__ import annotations

from detseg.catalog.entry import Entry

_PAPER_YOLO = {"decoding": "exp", "assignment": "best", "objectness": "one", "box_loss": "iou"}
# conv8_2 and on: channels inside and out, kernel, stride, padding (SSD, fig. 2; SSD512: footnote of sec. 3.3)
_SSD300_EXTRAS = ((256, 512, 3, 2, 1), (128, 256, 3, 2, 1), (128, 256, 3, 1, 0), (128, 256, 3, 1, 0))
_SSD512_EXTRAS = ((256, 512, 3, 2, 1), *(((128, 256, 3, 2, 1),) * 3), (128, 256, 4, 1, 1))
_ON_VGG = {"vgg": True, "width": 0, "norm": False, "strides": (8, 16)}
_SSD_TRAINING = {"fit": "stretch", "layout": "patches", "mosaic": 0.0, "multi_scale": 0.0}  # SSD, sec. 2.2 and 3.6
_SSD_STRUCTURE = ("strides", "width", "top_down", "extras", "scales", "aspect_ratios", "steps", "sizes", "reduced_tail")
_LOCALISER_STRUCTURE = ("stride", "pool", "width", "hidden")
_WINDOW_TRAINING = {"freeze_stages": 0, "mosaic": 0.0, "multi_scale": 0.0}
_WINDOW_STRUCTURE = ("stride", "cells", "hidden", "refine")
# settings as group.entry; torchvision's models are the ones of the FPN paper with 512 regions a picture
_RCNN_STRUCTURE = (
    *("maps.strides", "maps.width", "maps.norm", "maps.extra", "maps.both_ends", "maps.norm_eps"),
    *("rpn.sizes", "rpn.aspect_ratios", "rpn.shapes", "rpn.depth", "rpn.width"),
    *("pool.size", "box.convs", "box.norm", "box.fcs", "box.stage"),
)
_MASK_STRUCTURE = (*_RCNN_STRUCTURE, "mask.size", "mask.convs", "mask.norm", "mask.width")
_LIGHT_RCNN = {
    "maps.norm": True,
    "rpn.sizes": ((16, 32), (48, 64), (96, 128), (192, 256)),  # about four cells of the map that they are on
    "rpn.positive_iou": 0.6,
    **{"rpn.candidates": 500, "rpn.kept": 150, "rpn.train_candidates": 1000, "rpn.train_kept": 500},
    **{"box.fcs": (256, 256), "box.samples": 64, "box.beta": 1 / 9},
}
_LIGHT_RCNN_TRAINING = {"mosaic": 0.0}
# Faster R-CNN, sec. 3.3: the shorter side is 600, the longer at most 1000; FPN, sec. 5: 800; torchvision: at most 1333
_WHOLE_RCNN_TRAINING = {"fit": "shorter", "mosaic": 0.0, "multi_scale": 0.0}
_PYRAMID_RCNN = {
    **{"maps.strides": (4, 8, 16, 32), "maps.width": 256, "rpn.sizes": ((32,), (64,), (128,), (256,), (512,))},
    **{"rpn.candidates": 1000, "rpn.kept": 1000, "rpn.train_candidates": 2000},
    **{"box.samples": 512, "box.beta": 1 / 9},
}
_PYRAMID_RCNN_V2 = {
    **_PYRAMID_RCNN,
    **{"maps.norm": True, "rpn.depth": 2, "box.convs": (256,) * 4, "box.norm": True, "box.fcs": (1024,)},
}
_MOBILE_RCNN = {
    **_PYRAMID_RCNN,
    **{"maps.strides": (32, 32), "maps.both_ends": True, "rpn.sizes": ((32, 64, 128, 256, 512),) * 3},
    **{"maps.norm_eps": 1e-5, "rpn.min_score": 0.05},
}
_ONE_MAP_RCNN = {"maps.strides": (16,), "maps.width": 0, "rpn.sizes": ((128, 256, 512),), "rpn.width": 512}
_RFCN_STRUCTURE = (
    *("stride", "stage", "rpn.sizes", "rpn.aspect_ratios", "rpn.shapes", "rpn.depth", "rpn.width"),
    *("head.grid", "head.width", "head.norm"),
)
_PAPER_RFCN = {"rpn.inside_only": True}
_PAPER_RFCN_TRAINING = {"fit": "shorter", "mosaic": 0.0, "multi_scale": 0.0}  # R-FCN, sec. 2, "Training"
_FAST_STRUCTURE = ("strides", "width", "pool.size", "box.convs", "box.norm", "box.fcs", "svd")
_RCNN_CROPS = ("side", "context", "stride", "cells", "hidden")
DETECTORS = (
    Entry("yolo", "yolo", "YOLOv3 (2018)", "three scales, tuned for CPUs: the default", 320, nms="vote"),
    Entry(
        "yolo-n",
        "yolo",
        "YOLOv3 (2018)",
        "the smallest and fastest: MobileNetV3-small, a thin neck",
        320,
        {"neck_channels": 64},
        backbone="mobilenet_v3_small",
        nms="vote",
    ),
    Entry(
        "yolo-s",
        "yolo",
        "YOLOv3 (2018)",
        "the default with a wider neck and larger frames",
        416,
        {"neck_channels": 192},
        nms="vote",
    ),
    Entry(
        "yolo-m",
        "yolo",
        "YOLOv3 (2018)",
        "for a GPU or patience: EfficientNetV2-S, a wide neck",
        416,
        {"neck_channels": 256},
        backbone="efficientnet_v2_s",
        nms="vote",
    ),
    Entry(
        "yolov3",
        "yolo",
        "YOLOv3 (2018)",
        "three scales, assignment and decoding of the paper",
        416,
        _PAPER_YOLO,
    ),
    Entry(
        "yolov2",
        "yolo",
        "YOLO9000 (2017)",
        "one scale, assignment and decoding of the paper, objectness learns the IoU",
        416,
        {**_PAPER_YOLO, "objectness": "iou", "strides": (32,), "anchors_per_scale": 5},
    ),
    Entry(
        "ssd",
        "ssd",
        "SSD (2016)",
        "any backbone, default boxes from the data",
        320,
        {"clusters": 9, "top_down": True},
        training=_SSD_TRAINING,
        structure=_SSD_STRUCTURE,
        nms="vote",
    ),
    Entry(
        "ssdlite",
        "ssd",
        "MobileNetV2 (2018)",
        "SSD with separable layers, on MobileNetV3 or any backbone",
        320,
        {
            "lite": True,
            "width": 0,
            "strides": (16, 32),
            "extras": ((256, 512), (128, 256), (128, 256), (64, 128)),
            "scales": (0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0),
            "aspect_ratios": ((2, 3),) * 6,
        },
        backbone="mobilenet_v3_large",
        training=_SSD_TRAINING,
        structure=_SSD_STRUCTURE,
    ),
    Entry(
        "ssd300",
        "ssd",
        "SSD (2016)",
        "as in the paper on VGG16, the boxes of COCO",
        300,
        {
            **_ON_VGG,
            "extras": _SSD300_EXTRAS,
            "scales": (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05),  # sec. 3.4
            "steps": (8, 16, 32, 64, 100, 300),
        },
        backbone="vgg16",
        training=_SSD_TRAINING,
        structure=_SSD_STRUCTURE,
    ),
    Entry(
        "ssd512",
        "ssd",
        "SSD (2016)",
        "as in the paper on VGG16 with one map more",
        512,
        {
            **_ON_VGG,
            "extras": _SSD512_EXTRAS,
            "scales": (0.04, 0.1, 0.26, 0.42, 0.58, 0.74, 0.9, 1.06),  # sec. 3.4
            "aspect_ratios": ((2,), (2, 3), (2, 3), (2, 3), (2, 3), (2,), (2,)),
        },
        backbone="vgg16",
        training=_SSD_TRAINING,
        structure=_SSD_STRUCTURE,
    ),
    Entry(
        "darknet",
        "darknet",
        "YOLOv3 (2018)",
        "any network of a Darknet cfg, imported or new; YOLOv3-tiny where none is named",
        416,
        backbone="its own",
        structure=("sections",),
        training={"fit": "stretch", "backbone_weights": None, "freeze_stages": 0, "freeze_bn": False},
    ),
    Entry(
        "localiser",
        "localiser",
        "VGG (2015), app. A",
        "one object a picture: is there one, where, what; for cropping",
        224,
        training={"mosaic": 0.0},
        structure=_LOCALISER_STRUCTURE,
    ),
    Entry(
        "sliding-window",
        "sliding_window",
        "OverFeat (2014)",
        "a classifier of crops asked about every window of a pyramid, all in one pass",
        320,
        {"clusters": 8},
        training=_WINDOW_TRAINING,
        structure=_WINDOW_STRUCTURE,
    ),
    Entry(
        "sliding-window-lenet5",
        "sliding_window",
        "LeNet-5 (1998)",
        "the same with LeNet-5, 32 x 32 crops, nothing learnt before",
        320,
        {"clusters": 8, "cells": 5, "hidden": (120, 84)},
        backbone="lenet5",
        training={**_WINDOW_TRAINING, "backbone_weights": None, "backbone_lr": 1.0},
        structure=_WINDOW_STRUCTURE,
    ),
    Entry(
        "sliding-window-alexnet",
        "sliding_window",
        "AlexNet (2012)",
        "the same with AlexNet up to its fifth convolution, 272 x 272 crops",
        320,
        {"clusters": 8, "stride": 16, "cells": 6, "hidden": (4096, 4096), "dropout": 0.5},
        backbone="alexnet",
        training=_WINDOW_TRAINING,
        structure=_WINDOW_STRUCTURE,
    ),
    Entry(
        "rcnn",
        "rcnn",
        "R-CNN (2014)",
        "proposals of selective search, each cut out and judged alone, SVMs at last; any backbone",
        480,
        {"side": 112, "context": 8, "cells": 3, "hidden": (256,), "dropout": 0.2, "proposals.count": 300},
        training={"mosaic": 0.0, "multi_scale": 0.0, "batch": 4, "freeze_stages": 3},
        structure=_RCNN_CROPS,
    ),
    Entry(
        "rcnn-alexnet",
        "rcnn",
        "R-CNN (2014)",
        "as in the paper: AlexNet, crops of 227 pixels, two layers of 4096",
        500,
        {"stride": 16},
        backbone="alexnet",
        training={"mosaic": 0.0, "multi_scale": 0.0, "batch": 4},
        structure=_RCNN_CROPS,
    ),
    Entry(
        "fast-rcnn",
        "fast_rcnn",
        "Fast R-CNN (2015)",
        "proposals of selective search judged on one pass's maps: a light pyramid, any backbone",
        320,
        {
            **{"strides": (8, 16, 32), "width": 96, "background_iou": 0.0, "proposals.count": 500},
            **{"box.fcs": (256, 256), "box.beta": 1 / 9},
        },
        structure=_FAST_STRUCTURE,
    ),
    Entry(
        "fast-rcnn-vgg16",
        "fast_rcnn",
        "Fast R-CNN (2015)",
        "as in the paper: one map of VGG16, RoI pooling, two layers of 4096",
        600,
        {"box.fcs": (4096, 4096), "box.dropout": 0.5},
        backbone="vgg16",
        training={"mosaic": 0.0},
        structure=_FAST_STRUCTURE,
    ),
    Entry(
        "faster-rcnn",
        "faster_rcnn",
        "Faster R-CNN (2015)",
        "proposals and their judgement on a light pyramid, any backbone",
        320,
        _LIGHT_RCNN,
        training=_LIGHT_RCNN_TRAINING,
        structure=_RCNN_STRUCTURE,
    ),
    Entry(
        "faster-rcnn-vgg16",
        "faster_rcnn",
        "Faster R-CNN (2015)",
        "as in the paper: one map of VGG16, RoI pooling, two layers of 4096",
        600,
        {
            **_ONE_MAP_RCNN,
            **{"rpn.inside_only": True, "pool.kind": "pool", "box.fcs": (4096, 4096), "box.dropout": 0.5},
        },
        backbone="vgg16",
        training=_WHOLE_RCNN_TRAINING,
        structure=_RCNN_STRUCTURE,
    ),
    Entry(
        "faster-rcnn-c4",
        "faster_rcnn",
        "ResNet (2016)",
        "one map of ResNet-50, whose last stage judges the regions",
        600,
        {**_ONE_MAP_RCNN, "pool.size": 14, "box.stage": True},
        backbone="resnet50",
        training=_WHOLE_RCNN_TRAINING,
        structure=_RCNN_STRUCTURE,
    ),
    Entry(
        "faster-rcnn-r50-fpn",
        "faster_rcnn",
        "FPN (2017)",
        "ResNet-50 with a full pyramid; takes torchvision's weights",
        800,
        _PYRAMID_RCNN,
        backbone="resnet50",
        training=_WHOLE_RCNN_TRAINING,
        structure=_RCNN_STRUCTURE,
    ),
    Entry(
        "faster-rcnn-r50-fpn-v2",
        "faster_rcnn",
        "FPN (2017)",
        "the same with batch norm everywhere and convolutions in the head (Li et al. 2021)",
        800,
        _PYRAMID_RCNN_V2,
        backbone="resnet50",
        training=_WHOLE_RCNN_TRAINING,
        structure=_RCNN_STRUCTURE,
    ),
    Entry(
        "faster-rcnn-mobilenet-fpn",
        "faster_rcnn",
        "FPN (2017)",
        "MobileNetV3-large, maps of stride 32 alone; takes torchvision's weights",
        800,
        _MOBILE_RCNN,
        backbone="mobilenet_v3_large",
        training=_WHOLE_RCNN_TRAINING,
        structure=_RCNN_STRUCTURE,
    ),
    Entry(
        "faster-rcnn-mobilenet-fpn-320",
        "faster_rcnn",
        "FPN (2017)",
        "the same for small frames, 150 proposals: torchvision's fastest",
        320,
        {**_MOBILE_RCNN, "rpn.candidates": 150, "rpn.kept": 150},
        backbone="mobilenet_v3_large",
        training={**_WHOLE_RCNN_TRAINING, "longest": 2.0},
        structure=_RCNN_STRUCTURE,
    ),
    Entry(
        "rfcn",
        "rfcn",
        "R-FCN (2016)",
        "maps of the parts of each class, from which regions are voted, light, any backbone",
        320,
        {
            **{"clusters": 9, "rpn.width": 0, "rpn.candidates": 500, "rpn.kept": 150, "rpn.train_candidates": 1000},
            **{"head.grid": 3, "head.width": 256, "head.kind": "align"},
        },
        structure=_RFCN_STRUCTURE,
    ),
    Entry(
        "rfcn-r50",
        "rfcn",
        "R-FCN (2016)",
        "as in the paper on ResNet-50: stage 5 dilated, 7 x 7 parts",
        600,
        _PAPER_RFCN,
        backbone="resnet50",
        training=_PAPER_RFCN_TRAINING,
        structure=_RFCN_STRUCTURE,
    ),
    Entry(
        "rfcn-r101",
        "rfcn",
        "R-FCN (2016)",
        "the same on ResNet-101, the paper's choice",
        600,
        _PAPER_RFCN,
        backbone="resnet101",
        training=_PAPER_RFCN_TRAINING,
        structure=_RFCN_STRUCTURE,
    ),
    Entry(
        "mask-rcnn",
        "mask_rcnn",
        "Mask R-CNN (2017)",
        "boxes and the outline of each object, light, any backbone",
        320,
        {
            **_LIGHT_RCNN,
            **{"maps.strides": (4, 8, 16, 32), "rpn.sizes": ((12, 16), (24, 32), (48, 64), (96, 128), (192, 256))},
            **{"maps.width": 64, "mask.convs": (64, 64, 64), "mask.width": 64, "found.kept": 300, "rpn.kept": 300},
        },
        training=_LIGHT_RCNN_TRAINING,
        structure=_MASK_STRUCTURE,
    ),
    Entry(
        "mask-rcnn-r50-fpn",
        "mask_rcnn",
        "Mask R-CNN (2017)",
        "ResNet-50 with a full pyramid; takes torchvision's weights",
        800,
        _PYRAMID_RCNN,
        backbone="resnet50",
        training=_WHOLE_RCNN_TRAINING,
        structure=_MASK_STRUCTURE,
    ),
    Entry(
        "mask-rcnn-r50-fpn-v2",
        "mask_rcnn",
        "Mask R-CNN (2017)",
        "the same with batch norm everywhere and convolutions in the head (Li et al. 2021)",
        800,
        {**_PYRAMID_RCNN_V2, "mask.norm": True},
        backbone="resnet50",
        training=_WHOLE_RCNN_TRAINING,
        structure=_MASK_STRUCTURE,
    ),
)
