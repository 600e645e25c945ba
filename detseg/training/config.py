"""`TrainConfig`: everything a training run depends on; written as config.yaml, read back to repeat the run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    field_validator,
    model_validator,
)

from detseg import catalog
from detseg.errors import DetsegError
from detseg.files import write_text
from detseg.training import transfer as recipes
from detseg.training.transfer import LIKENESSES, Transfer


class TrainConfig(BaseModel):
    """A training run. Sizes in pixels, times in epochs; see `detseg train --help`.

    What is not given is as the recipe `transfer` wants it, else as the model's catalog entry does, else as written
    here.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str
    split: str | None = None  # None: train where the data set has such a list, else everything
    val_split: str | None = None
    model: str = "yolo"
    options: dict[str, Any] = Field(default_factory=dict)  # of the model's own config, such as box_loss
    backbone: str = "efficientnet_lite0"
    backbone_weights: str | None = "imagenet"
    weights: str | None = None  # a detseg checkpoint to start from
    proposals: str | None = None  # a file of them, for a model that looks at such; None: it has them searched for
    anchors: Literal["data", "model"] = "data"  # k-means on the training boxes, or the model's defaults

    imgsz: int = Field(320, ge=32)
    multi_scale: float = Field(0.2, ge=0, lt=1)  # sides between (1 - x) and (1 + x) times imgsz, a step of 32
    # pictures keep their shape in the frame, or fill it, or the frame has their shape and imgsz is the shorter side
    fit: Literal["letterbox", "stretch", "shorter"] = "letterbox"
    longest: float = Field(1333 / 800, ge=1)  # the most that a longer side may be, times imgsz, with fit="shorter"
    augment: Literal["none", "light", "standard", "strong"] = "standard"
    # how a single picture is laid into its frame, unless augment=none
    layout: Literal["jitter", "patches", "crops"] = "jitter"
    flip_horizontal: bool = True
    flip_vertical: bool = False
    turns: bool = False  # by 90, 180 and 270 degrees: with a flip all eight symmetries, for pictures without an upside
    rotate: float = Field(0.0, ge=0, le=180)  # degrees: the most that a picture is turned either way
    hsv: float = Field(1.0, ge=0, le=4)  # times the recipe's shifts of hue, saturation and brightness
    jitter: float = Field(1.0, ge=0, le=3)  # times the usual range of scales and aspects, of their logarithms
    mosaic: float = Field(0.5, ge=0, le=1)  # share of training frames made of four pictures
    mixup: float = Field(0.0, ge=0, le=1)  # share of training frames that are two frames blended
    copy_paste: float = Field(0.0, ge=0, le=1)  # share of training frames with objects pasted in, by their masks
    # rare classes are shown more: pictures repeated by their rarest class, or classes in turns; see balance.py
    balance: Literal["none", "repeat", "classes"] = "none"
    balance_threshold: float | None = Field(None, gt=0, le=1)  # of repeat; None: the median share of pictures
    border_weight: float = Field(0.0, ge=0)  # of pixels between near objects of a label map; 10 in U-Net's paper
    plain_epochs: float = Field(0.15, ge=0, le=1)  # last share of the run without mosaic, mixup, copy-paste

    epochs: int = Field(60, ge=1)
    batch: int = Field(16, ge=1)
    accumulate: int = Field(1, ge=1)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(1e-3, gt=0)
    backbone_lr: float = Field(0.2, ge=0)  # times lr
    weight_decay: float = Field(0.02, ge=0)
    warmup_epochs: float = Field(1.0, ge=0)
    final_lr: float = Field(0.01, ge=0, le=1)  # times lr, at the end of the cosine
    clip_norm: float = Field(10.0, ge=0)  # 0: gradients are not clipped
    ema: float = Field(0.999, ge=0, lt=1)  # 0: no moving average
    freeze_stages: Annotated[int, Field(ge=0)] | Literal["all"] = 2
    freeze_bn: bool = True
    # a recipe, or how like the pictures are to those of the weights: then the data choose it; see transfer.py
    transfer: Transfer = "none"
    finetune_at: int = Field(0, ge=0)  # epochs that the head learns alone, before the backbone joins it
    finetune_lr: float = Field(0.5, gt=0)  # from then on, times lr
    layer_decay: float = Field(1.0, gt=0, le=1)  # of the backbone's rate, from each stage to the one below it
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    compile: bool = False  # torch.compile of the network

    eval_every: int = Field(5, ge=1)
    patience: int = Field(0, ge=0)  # evaluations without a better AP before the run stops; 0: never
    checkpoint_every: int = Field(0, ge=0)  # optimiser steps between saved states; 0: at the end of epochs only
    workers: int = Field(1, ge=0)
    cache: int | Literal["auto"] = 0  # bytes of memory for decoded pictures, on each machine; sizes as 2GB, too
    device: str = "auto"
    devices: int = Field(1, ge=1)  # a process for each, which share every batch out among them
    nodes: int = Field(1, ge=1)  # machines, each with as many devices
    seed: int = 0
    tensorboard: bool = False  # events beside results.csv

    @field_validator("cache", mode="before")
    @classmethod
    def _bytes(cls, value: Any) -> Any:
        """A size in words as a number."""
        if isinstance(value, int) and value < 0:
            raise ValueError("cannot be below 0")
        if not isinstance(value, str) or value == "auto":
            return value
        from detseg.training.picture_cache import bytes_of

        return bytes_of(value)

    @model_validator(mode="wrap")
    @classmethod
    def _filled_in(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """What is not given is as the recipe and the model want it."""
        name = values.get("model", cls.model_fields["model"].default)
        if not isinstance(name, str):  # refused with the other fields
            return handler(values)
        entry, recipe = catalog.entry(name), recipes.RECIPES.get(str(values.get("transfer")))
        wished = {"imgsz": entry.imgsz, "backbone": entry.backbone, **entry.training}
        config = handler({**wished, **(recipe.settings if recipe else {}), **values})
        config.model_fields_set.intersection_update(values)  # what was given, no defaults
        return config

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.finetune_at >= self.epochs:
            raise ValueError(
                f"finetune_at: the backbone joins after {self.finetune_at} epochs and there are {self.epochs}; "
                "--freeze all has the head learn alone to the end"
            )
        if self.finetune_at and self.freeze_stages == "all":
            raise ValueError("finetune_at: a backbone that is frozen whole never joins; leave --freeze all out")
        has_learnt = self.weights is not None or self.backbone_weights is not None
        if self.transfer == "scratch" and has_learnt:
            raise ValueError("transfer: from scratch means without weights; leave -w and --backbone-weights out")
        if self.transfer not in ("none", "scratch") and not has_learnt:
            raise ValueError(
                f"transfer: {self.transfer} goes on from what was learnt before, and {self.model} would start at "
                "random; give a checkpoint (-w), or weights of the backbone (--backbone-weights)"
            )
        return self

    def settled(self, *, little: bool) -> TrainConfig:
        """With the recipe that the likeness and the amount of data ask for, where only the likeness was given."""
        if self.transfer not in LIKENESSES:
            return self
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return TrainConfig(**{**given, "transfer": recipes.chosen(self.transfer, little=little)})

    @property
    def plain_from(self) -> int:
        """The first epoch, from 0, whose frames are neither mosaics nor blended nor pasted into."""
        return round(self.epochs * (1 - self.plain_epochs))

    @property
    def frame_hw(self) -> tuple[int, int]:
        """The sides of `Preprocess` that the settings ask for."""
        return self.imgsz, round(self.imgsz * self.longest) if self.fit == "shorter" else self.imgsz

    def save(self, path: Path) -> None:
        """Writes the configuration as YAML."""
        write_text(path, yaml.safe_dump(self.model_dump(), sort_keys=False))

    @classmethod
    def load(cls, path: Path, **changes: Any) -> TrainConfig:
        """Reads config.yaml; `changes` take precedence, and so does what a recipe among them sets.

        Raises DetsegError naming the file and the field.
        """
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise DetsegError(f"{path}: not a readable configuration: {error}") from error
        if not isinstance(values, dict):
            raise DetsegError(f"{path}: not a configuration: expected `name: value` lines")
        renewed = recipes.governed(changes["transfer"]) if "transfer" in changes else ()
        kept = {name: value for name, value in values.items() if name not in renewed}
        return cls.checked({**kept, **changes}, str(path))

    @classmethod
    def checked(cls, values: dict[str, Any], source: str) -> TrainConfig:
        """From plain values; raises DetsegError with every field that is wrong and why."""
        try:
            return cls(**values)
        except ValidationError as error:
            wrong = [": ".join([*(str(place) for place in e["loc"][:1]), e["msg"]]) for e in error.errors()]
            told = "; ".join(dict.fromkeys(text.removeprefix("Value error, ") for text in wrong))
            raise DetsegError(f"{source}: {told}") from error
