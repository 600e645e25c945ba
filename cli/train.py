"""`detseg train`: a model on a data set, from ImageNet features or an earlier checkpoint."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detseg.errors import DetsegError

from . import options, train_resume, train_transfer
from .exits import Exit
from .progress import Progress, track
from .run_folder import choose
from .tables import printable, table

if TYPE_CHECKING:
    from detseg.training.config import TrainConfig
    from detseg.training.loop import EpochDone, StepDone
    from detseg.training.processes import Processes
    from detseg.training.setup import Prepared
    from detseg.training.stages import StageStep

_EPILOG = """\b
Examples:
  detseg train blood-cells/                        80 % good for most: YOLO on EfficientNet-Lite0, 320 pixels
  detseg train data.yaml --imgsz 416 --epochs 100  larger pictures, longer
  detseg train data/ --backbone resnet18 --backbone-weights resnet18.pth
  detseg train few/ --transfer different           what learns again is chosen by the number of pictures
  detseg train --resume runs/train/exp             go on after an interruption
  detseg train --config runs/train/exp/config.yaml repeat a run
  detseg train data/ --profile                     where the time of a step goes, and what to change

DATA is a COCO, VOC or YOLO data set, for segmenters also label maps; which one is found by looking. Options of the
model's own (see its page) go by `--option`, such as `--option box_loss=giou`. The run folder holds config.yaml,
results.csv, curves.png, report.html (curves, and pictures as the model saw them epoch after epoch) and
weights/best.safetensors, which `detseg detect -w` or `detseg segment -w` takes."""


def _setting(*names: str, type: Any, help: str, aliases: tuple[str, ...] = ()) -> Any:
    """An option whose default stands in TrainConfig: left out, it is None here."""
    return click.option(*names, cls=options.Option, aliases=aliases, type=type, default=None, help=help)


class _NumberOr(click.IntRange):
    """A number from `least` on, or `word`, which is left as it is."""

    def __init__(self, word: str, least: int) -> None:
        super().__init__(least)
        self.word = word

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Text to a number or the word."""
        return self.word if str(value).strip().lower() == self.word else super().convert(value, param, ctx)


class _Size(click.ParamType[int | str]):
    """Bytes, as 2GB or 500MB, or `auto`."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Text to a number or `auto`."""
        from detseg.training.picture_cache import bytes_of

        text = str(value).strip().lower()
        try:
            return text if text == "auto" else bytes_of(text)
        except ValueError as error:
            self.fail(str(error), param, ctx)


_UNIT = click.FloatRange(0, 1)
OF_PICTURES = (  # what alters training pictures; `data show` takes it too
    _setting("--augment", type=click.Choice(["none", "light", "standard", "strong"]), help="[default: standard]"),
    _setting("--layout", type=click.Choice(["jitter", "patches", "crops"]),
             help="Pictures laid in at random scale and place, or SSD's zoom-out and patches, or parts that fill the "
             "frame.  [default: the model's]"),
    _setting("--border-weight", type=click.FloatRange(0),
             help="Weight of the pixels between near objects of label maps; 10 in U-Net's paper.  [default: 0]"),
    _setting("--fit", type=click.Choice(["letterbox", "stretch", "shorter"]),
             help="Pictures keep their shape in the frame, or fill it, or the frame takes their shape and --imgsz is "
             "the shorter side.  [default: the model's]"),
    _setting("--flip/--no-flip", "flip_horizontal", type=bool, help="Mirror left to right.  [default: yes]"),
    _setting("--flip-vertical/--no-flip-vertical", type=bool, help="Also mirror top to bottom.  [default: no]"),
    _setting("--turns/--no-turns", type=bool,
             help="Also turn by 90 degrees: microscopes, pictures from above.  [default: no]"),
    _setting("--rotate", type=click.FloatRange(0, 180), aliases=("--degrees",),
             help="Also turn by up to so many degrees either way.  [default: 0]"),
    _setting("--hsv", type=click.FloatRange(0, 4), help="Shifts of colour, times the usual ones.  [default: 1]"),
    _setting("--jitter", type=click.FloatRange(0, 3), help="Range of scales, times the usual one.  [default: 1]"),
    _setting("--mosaic", type=_UNIT, help="Share of frames made of four pictures.  [default: 0.5; SSD 0]"),
    _setting("--mixup", type=_UNIT, help="Share of frames made of two frames blended.  [default: 0]"),
    _setting("--copy-paste", type=_UNIT,
             help="Share of frames with objects of another pasted in, where objects have outlines.  [default: 0]"),
    _setting("--plain-epochs", type=_UNIT, help="Last share of the epochs without these three.  [default: 0.15]"),
    _setting("--multi-scale", type=_UNIT,
             help="Frames between 1 - x and 1 + x times --imgsz.  [default: 0.2; SSD 0]"),
)  # fmt: skip
_SETTINGS = (
    _setting("-m", "--model", type=str, help="Model of `detseg models`.  [default: that of --weights, else yolo]"),
    _setting("--split", type=str, help="Pictures to train on.  [default: train, where there is such a list]"),
    _setting("--val-split", type=str, help="Pictures to validate on.  [default: val, else test]"),
    _setting("--imgsz", type=click.IntRange(32), aliases=("--img", "--img-size"),
             help="Frame side.  [default: the model's]"),
    _setting("--epochs", type=click.IntRange(1), help="Times every picture is seen.  [default: 60]"),
    _setting("--batch", type=_NumberOr("auto", 1), aliases=("--batch-size",),
             help="Pictures a step, of all devices together; auto: as many as a GPU's memory holds.  [default: 16]"),
    _setting("--accumulate", type=click.IntRange(1), help="Batches an optimiser step.  [default: 1]"),
    _setting("--balance", type=click.Choice(["none", "repeat", "classes"]),
             help="Show rare classes more: repeat pictures by their rarest class, or take classes in turns.  "
             "[default: none]"),
    _setting("--balance-threshold", type=click.FloatRange(0, 1, min_open=True),
             help="Of repeat: share of the pictures below which a class is rare.  [default: the median class]"),
    _setting("--lr", type=float, aliases=("--lr0",), help="Learning rate.  [default: 0.001]"),
    _setting("--optimizer", type=click.Choice(["adamw", "sgd"], case_sensitive=False), help="[default: adamw]"),
    _setting("--weight-decay", type=float, help="[default: 0.02]"),
    _setting("--warmup-epochs", type=float, help="Epochs of rising learning rate.  [default: 1]"),
    _setting("--ema", type=float, help="Decay of the weights' moving average; 0: none.  [default: 0.999]"),
    _setting("--clip-norm", type=float, help="Largest norm of the gradients; 0: any.  [default: 10]"),
    _setting("--backbone", type=str, help="Network of the shared module.  [default: the model's]"),
    _setting("--backbone-weights", type=str, help="imagenet, none, or a file.  [default: imagenet]"),
    _setting("-w", "--weights", type=str, help="detseg checkpoint to start from; what fits is taken."),
    _setting("--proposals", type=click.Path(dir_okay=False),
             help="For R-CNN and Fast R-CNN: a file of proposals.  [default: they are searched for]"),
    _setting("--anchors", type=click.Choice(["data", "model"]), help="From the data or the model.  [default: data]"),
    _setting("--transfer", type=click.Choice(["none", "head", "late", "all", "scratch", "similar", "different"]),
             help="Recipe for what learns: the head alone, late stages too, all, all from scratch. Or how like the "
             "pictures are to those that the weights have learnt from: then their number chooses the recipe. What "
             "these set gives way to the six options below.  [default: none]"),
    _setting("--freeze", "freeze_stages", type=_NumberOr("all", 0), aliases=("--freeze-stages",),
             help="Stages of the backbone that do not learn, or all.  [default: 2]"),
    _setting("--freeze-bn/--learn-bn", type=bool, help="Batch norms of the backbone.  [default: freeze]"),
    _setting("--backbone-lr", type=float, help="The backbone's rate, times --lr.  [default: 0.2]"),
    _setting("--layer-decay", type=click.FloatRange(0, 1, min_open=True),
             help="Of the backbone's rate, from each stage to the one below it, times.  [default: 1]"),
    _setting("--finetune-at", type=click.IntRange(0),
             help="Epochs that the head learns alone; then the backbone joins it, with a warm-up.  [default: 0]"),
    _setting("--finetune-lr", type=click.FloatRange(0, min_open=True),
             help="All rates from --finetune-at on, times what they were.  [default: 0.5]"),
    *OF_PICTURES,
    _setting("--precision", type=click.Choice(["32-true", "bf16-mixed", "16-mixed"]), help="[default: 32-true]"),
    _setting("--compile/--no-compile", "compile", type=bool,
             help="Compile the network: slow first steps, faster ones after.  [default: no]"),
    _setting("--eval-every", type=click.IntRange(1), help="Epochs between validations.  [default: 5]"),
    _setting("--patience", type=click.IntRange(0),
             help="Validations without gain before the end; 0: all epochs.  [default: 0]"),
    _setting("--checkpoint-every", type=click.IntRange(0),
             help="Optimiser steps between states saved within an epoch; 0: only at its end.  [default: 0]"),
    _setting("--workers", type=click.IntRange(0), help="Processes that make training frames.  [default: 1]"),
    _setting("--cache", type=_Size(),
             help="Memory for decoded pictures, shared by all workers: 2GB, or auto, a quarter of what is free.  "
             "[default: 0, none]"),
    _setting("--devices", type=click.IntRange(1),
             help="GPUs (or processes of a CPU) that share every batch: --batch stays what it is.  [default: 1]"),
    _setting("--nodes", type=click.IntRange(1), help="Machines, each with as many --devices.  [default: 1]"),
    _setting("--seed", type=int, help="[default: 0]"),
    _setting("--tensorboard/--no-tensorboard", "tensorboard", type=bool,
             help="Also write events for TensorBoard into the run folder.  [default: no]"),
)  # fmt: skip


def of_pictures(function: Any) -> Any:
    """The settings that alter training pictures, each None where it is not given."""
    for decorate in reversed(OF_PICTURES):
        function = decorate(function)
    return function


def _settings(function: Any) -> Any:
    for decorate in reversed(_SETTINGS):
        function = decorate(function)
    return function


@click.command(cls=options.Command, epilog=_EPILOG, short_help="Train a detector or a segmenter on a data set.")
@click.argument("data", required=False)
@click.option("--data", "data_option", hidden=True)
@_settings
@click.option(
    "--option",
    "model_options",
    multiple=True,
    metavar="NAME=VALUE",
    help="Option of the model's own; repeatable.",
)
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    help="config.yaml of an earlier run; other options take precedence.",
)
@click.option("--resume", type=click.Path(path_type=Path), metavar="RUN", help="Folder of a run to go on with.")
@click.option("--force", is_flag=True, help="Resume even with other settings or data than the run began with.")
@click.option("--profile", is_flag=True, help="Say where the time of a step goes and what to change; keeps nothing.")
@options.device()
@options.run_folder("train")
@options.quiet
def command(
    data: str | None,
    data_option: str | None,
    model_options: tuple[str, ...],
    config_file: Path | None,
    resume: Path | None,
    force: bool,
    profile: bool,
    device: str,
    out: Path | None,
    project: Path,
    name: str | None,
    exist_ok: bool,
    quiet: bool,
    **given: Any,
) -> Exit:
    """Train a detector or a segmenter on DATA and keep its best weights."""
    _before_torch()
    from detseg.training import processes
    from detseg.training.setup import prepare

    values = {key: value for key, value in given.items() if value is not None}
    values |= {"device": device} if device != "auto" else {}
    values |= _data(data or data_option, needed=config_file is None and resume is None)
    values |= _special(values, model_options)
    finds_batch = values.get("batch") == "auto"
    if finds_batch:
        del values["batch"]
    if resume is not None:
        _expect_nothing_against_resuming(config_file, out, name, finds_batch=finds_batch, profile=profile)
        folder = resume
        config = train_resume.resumed_config(resume, values, force=force, quiet=not processes.is_first())
    else:
        config = _begun(values, config_file)
        folder = choose(out, project, name, reuse=exist_ok, make=False)
        if not profile:
            _expect_no_run(folder)
    if config.tensorboard:
        from detseg.training.tensorboard import expect_tensorboard

        expect_tensorboard()
    with processes.start(config, _teller(resume)) as group:
        quiet = quiet or not group.first
        with _Download(quiet) as download:  # others find in the cache what the first one fetched
            prepared = group.first_alone(lambda: prepare(config, _command_line(resume), download.progress))
        if finds_batch:
            prepared = _with_fitting_batch(prepared, group, quiet)
        if profile:
            return _profile(prepared, group, quiet)
        if resume is not None:
            group.first_alone(lambda: train_resume.expect_same_data(folder, prepared, force=force, quiet=quiet))
        elif group.first:
            folder = choose(out, project, name, reuse=exist_ok)
        folder = group.of_first(folder)
        if group.first:
            prepared.config.save(folder / "config.yaml")
        if not quiet:
            _introduce(prepared, group.count, folder)
        return _run(prepared, group, folder, quiet)


def _before_torch() -> None:
    """Sets what is read when torch is imported, unless the user has set it."""
    # room for the compiled kernels of all frame sizes, and large pages for large tensors, without which a CPU spends a
    # fifth of its time on clearing memory
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # or processes tell that all of a network was needed


def _profile(prepared: Prepared, group: Processes, quiet: bool) -> Exit:
    """Some steps of the run, measured; the table goes to stdout."""
    from detseg.training.profile import measure

    from .train_profile import told

    group.first_alone(lambda: _search(prepared, quiet))
    if not quiet:
        click.echo("training some steps to see where their time goes; nothing is kept", err=True)
    found = measure(prepared, group)
    if group.first:
        click.echo(told(found))
    return Exit.OK


def _with_fitting_batch(prepared: Prepared, group: Processes, quiet: bool) -> Prepared:
    """--batch auto: the largest batch that every device holds its share of."""
    from detseg.training.loop import batch_that_fits

    own = batch_that_fits(prepared.model, prepared.data, prepared.config, group.fabric)
    shares = [share for share in group.gather(own) if share is not None]
    batch = min(shares) * group.count if shares else prepared.config.batch
    if not quiet:
        why = "fills 80 % of the GPU's memory" if shares else "the default, since there is no GPU to fill"
        click.echo(f"--batch auto: {batch}, {why}", err=True)
    return prepared.with_batch(batch)


def _teller(resume: Path | None) -> Callable[[str], None]:
    again = "--resume and the folder of the run" if resume is None else f"--resume {resume}"

    def tell(line: str) -> None:
        click.echo(f"{line}; go on with: detseg train {again}", err=True)
        sys.stdout.flush()  # the process is about to end at once

    return tell


def _expect_nothing_against_resuming(
    config_file: Path | None, out: Path | None, name: str | None, *, finds_batch: bool, profile: bool
) -> None:
    if finds_batch:
        raise click.UsageError("a resumed run has its own batch; leave --batch auto out")
    if profile:
        raise click.UsageError("a profile is of a run that begins; leave --resume out, or give --config")
    for option, value in (("--config", config_file), ("--out", out), ("--name", name)):
        if value is not None:
            raise click.UsageError(f"a resumed run has its own folder and configuration; leave {option} out")


def _begun(values: dict[str, Any], config_file: Path | None) -> TrainConfig:
    """The settings of a run that begins."""
    from detseg.training.config import TrainConfig

    if config_file is not None:
        config = TrainConfig.load(config_file, **values)
    else:
        config = TrainConfig.checked({**_as_its_weights(values), **values}, "options")
    _expect_two_phases(config, values)
    return config


def _expect_two_phases(config: TrainConfig, given: dict[str, Any]) -> None:
    """Raises UsageError where a rate is given for a phase that there will not be."""
    if "finetune_lr" in given and not config.finetune_at:
        raise click.UsageError("--finetune-lr is the rate from --finetune-at on; give both")


def _expect_no_run(folder: Path) -> None:
    from detseg.training.folder import state_file

    if state_file(folder).exists():
        raise DetsegError(f"{folder}: holds a run already; go on with --resume {folder}, or choose another folder")


def _data(data: str | None, *, needed: bool) -> dict[str, str]:
    if data is None:
        if needed:
            raise click.UsageError("name the data set: detseg train DATA")
        return {}
    return {"data": str(Path(data).resolve())}


def _special(values: dict[str, Any], model_options: tuple[str, ...]) -> dict[str, Any]:
    """What is not passed on as typed: `none` weights, a checkpoint's path, the model's own options as YAML values."""
    import yaml

    changed: dict[str, Any] = {}
    if "proposals" in values:  # a resumed run may be started elsewhere
        changed["proposals"] = str(Path(values["proposals"]).resolve())
    if str(values.get("backbone_weights")).lower() == "none" and "backbone_weights" in values:
        changed["backbone_weights"] = None
    if "weights" in values:
        from detseg.checkpoints import zoo

        changed["weights"] = str(zoo.resolve(values["weights"], "safetensors"))
    own: dict[str, Any] = {}
    for text in model_options:
        key, equals, value = text.partition("=")
        if not equals:
            raise click.BadParameter(f"'{text}' is not NAME=VALUE", param_hint="--option")
        own[key] = yaml.safe_load(value)
    return {**changed, "options": own} if own else changed


def _as_its_weights(values: dict[str, Any]) -> dict[str, Any]:
    """Where nothing else is said, the model, frame and fit of the checkpoint that training starts from."""
    if "weights" not in values:
        return {}
    from detseg.checkpoints import read_card

    card = read_card(values["weights"])
    if values.get("model", card.model) != card.model:
        return {}
    height, width = card.preprocess.frame_hw
    fit = card.preprocess.fit
    sides: dict[str, Any] = {"imgsz": height} if (height == width or fit == "shorter") and height >= 32 else {}
    if fit == "shorter":
        sides["longest"] = width / height
    return {"model": card.model, "fit": fit, **sides}


def _command_line(resume: Path | None) -> str:
    """What started the run: of a resumed one, the words that its state remembers."""
    from detseg.training.folder import origin_of_run

    began = origin_of_run(resume) if resume is not None else None
    return shlex.join(["detseg", *sys.argv[1:]]) if began is None else str(began["command"])


def _introduce(prepared: Prepared, count: int, folder: Path) -> None:
    """What will be trained, on what, into which folder."""
    from detseg.annotations import AnnotationSet
    from detseg.annotations.semantic import SemanticSet

    config, truth = prepared.config, prepared.truth
    millions = sum(p.numel() for p in prepared.model.parameters()) / 1e6
    learning = sum(p.numel() for p in prepared.model.parameters() if p.requires_grad) / 1e6
    validation = f"validated on {len(prepared.validation)}" if prepared.validation else "not validated: no such split"
    objects = "label maps" if isinstance(truth, SemanticSet) else f"{len(truth.boxes)} objects"
    lines = [
        f"{config.model} on {config.backbone}: {millions:.2f} M parameters, {learning:.2f} M learn",
        f"{len(truth)} pictures, {objects} of {len(truth.categories)} classes; {validation}",
        _about_steps(config, count),
    ]
    if config.balance != "none":
        lines += _about_balance(prepared)
    if prepared.anchors is not None:
        lines += _about_anchors(prepared)
    lines += train_transfer.about_checkpoint(prepared)
    lines += train_transfer.about_recipe(prepared)
    lines.append(train_transfer.about_rates(prepared))
    if prepared.masks and isinstance(truth, AnnotationSet) and not truth.outlines.has.all():
        lacking = int((~truth.outlines.has).sum())
        lines.append(f"{lacking} objects without an outline count with their boxes for masks")
    lines += _remarks(prepared)
    if truth.faults:
        lines.append(f"{len(truth.faults)} faults in the data, the first: {truth.faults[0]} (all: detseg data info)")
    click.echo("\n".join([*lines, f"run folder: {folder}"]), err=True)


def _about_steps(config: TrainConfig, count: int) -> str:
    """How many pictures an optimiser step sees, and who computes them."""
    shared = f" on {count} devices" if count > 1 else ""
    batches = f"{config.accumulate} batches of {config.batch}" if config.accumulate > 1 else "one batch"
    return f"{config.batch * config.accumulate} pictures a step ({batches}{shared})"


def _about_balance(prepared: Prepared) -> list[str]:
    """What each class gains by the pictures that are shown more."""
    from detseg.training.balance import effective_counts

    draw = prepared.data.draw
    rows = [
        (printable(each.name), each.pictures, each.objects, f"{each.pictures_shown:.0f}", f"{each.objects_shown:.0f}")
        for each in effective_counts(draw, prepared.truth)
    ]
    header = ("class", "pictures", "objects", "pictures an epoch", "objects an epoch")
    return [f"an epoch shows {draw.length} pictures:", table(header, rows, right=range(1, 5))]


def _remarks(prepared: Prepared) -> list[str]:
    """What this model has to say about these data, if it has anything to say about data."""
    from detseg import catalog

    module = catalog.module(prepared.config.model)
    lines: list[str] = module.remarks(prepared.truth) if hasattr(module, "remarks") else []
    return lines


def _about_anchors(prepared: Prepared) -> list[str]:
    """How well the anchors fit, and what to do where they do not."""
    fit, origin = prepared.anchors, prepared.card.training["anchors"]["from"]
    assert fit is not None
    best = f"best possible recall {fit.best_possible_recall:.1%}"
    lines = [f"{len(fit.wh)} anchors from the {origin}: mean IoU {fit.mean_iou:.3f}, {best}"]
    if fit.best_possible_recall < 0.98:
        remedy = "a larger --imgsz helps small boxes"
        if origin == "model":
            remedy = "--anchors data fits them to the data"
        lines.append(
            f"{1 - fit.best_possible_recall:.1%} of the boxes differ from every anchor by a factor of 4; {remedy}"
        )
    return lines


def _run(prepared: Prepared, group: Processes, folder: Path, quiet: bool) -> Exit:
    from detseg.training.folder import RunFolder
    from detseg.training.loop import Trainer
    from detseg.training.tensorboard import TensorBoardLog

    from . import train_validation
    from .train_report import RunReport

    config = prepared.config
    group.first_alone(lambda: _search(prepared, quiet))
    events = TensorBoardLog(folder) if config.tensorboard and group.first else None
    report = RunReport(prepared, folder, f"Training {folder.name}", events.picture if events else None)
    bar = _Bar(config.epochs, quiet, report.write)

    def tell(event: StepDone | EpochDone | StageStep) -> None:
        if events is not None:
            events(event)
        bar(event)

    trainer = Trainer(
        model=prepared.model,
        preprocess=prepared.card.preprocess,
        data=prepared.data,
        config=config,
        folder=RunFolder(folder, prepared.card, prepared.origin),
        validate=train_validation.of(prepared, group, report.see),
        report=tell,
        processes=group,
    )
    try:
        state = trainer.run()
    except KeyboardInterrupt:
        if group.first:
            click.echo(f"what was done is kept; go on with: detseg train --resume {folder}", err=True)
        raise
    finally:
        if events is not None:
            events.close()
    if not group.first:
        return Exit.OK
    if not bar.epochs_seen + bar.stages_seen:
        click.echo("the run was finished already", err=True)
    best = folder / "weights" / "best.safetensors"
    decisive = train_validation.metric_name(train_validation.decisive_column(prepared))
    click.echo(f"best {decisive} {state.best:.3f} after epoch {state.best_epoch}: {best}")
    if state.unreadable:
        click.echo(f"{len(state.unreadable)} pictures could not be read and were left out:", err=True)
        click.echo("\n".join(printable(f"  {path}: {cause}") for path, cause in state.unreadable[:10]), err=True)
    return Exit.SOME_FAILED if state.unreadable else Exit.OK


def _search(prepared: Prepared, quiet: bool) -> None:
    """Has all proposals searched for, unless they come from a file, so that no epoch waits for them.

    What is found is kept from picture to picture: an interrupted search goes on.
    """
    from detseg.proposals import Searcher, propose

    searcher = prepared.proposer
    if not isinstance(searcher, Searcher) or searcher.cache is None:
        return
    sets = (prepared.truth, *([prepared.validation] if prepared.validation else []))
    paths = [truth.image_path(i) for truth in sets for i in range(len(truth))]
    workers = min(options.cores(), 1 + len(paths) // 16)  # processes take a second to start
    found: Any = propose(paths, searcher.settings.search, searcher.cache, workers)
    with closing(found):
        for _ in track(found, "searching for proposals", len(paths), quiet=quiet):
            pass  # a picture that cannot be read is named when training comes to it


class _Download:
    """A bar for the backbone's weights, should they have to be fetched."""

    def __init__(self, quiet: bool) -> None:
        self._bar = Progress("fetching the backbone's weights", unit="bytes", quiet=quiet)

    def __enter__(self) -> _Download:
        return self

    def __exit__(self, *error: Any) -> None:
        self._bar.__exit__(*error)

    def progress(self, received: int, total: int | None) -> None:
        """Takes what the library tells."""
        self._bar.total = total
        self._bar.advance(received - self._bar.done)


class _Bar:
    """Turns what the loop reports into progress and a line an epoch on stderr.

    `validated` is told of every epoch, from 1, that was.
    """

    def __init__(self, epochs: int, quiet: bool, validated: Callable[[int], None]) -> None:
        self.epochs, self.quiet, self.validated = epochs, quiet, validated
        self.epochs_seen = self.stages_seen = 0
        self._bar: Progress | None = None

    def __call__(self, event: StepDone | EpochDone | StageStep) -> None:
        if hasattr(event, "stage"):
            self._stage(event)
        elif hasattr(event, "step"):
            self._step(event)
        else:
            self._epoch(event)

    def _step(self, event: Any) -> None:
        if self._bar is None:
            label = f"epoch {event.epoch + 1}/{self.epochs}"
            self._bar = Progress(label, event.steps, unit="steps", quiet=self.quiet).__enter__()
        self._bar.advance(event.step - self._bar.done, note=f"loss {event.loss:.3f}")

    def _stage(self, event: Any) -> None:
        if self._bar is None:
            self._bar = Progress(event.stage, event.total, unit="steps", quiet=self.quiet).__enter__()
        self._bar.advance(event.done - self._bar.done)
        if event.done == event.total:
            self._bar.__exit__(None, None, None)
            self._bar = None
            self.stages_seen += 1

    def _epoch(self, event: Any) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None
        self.epochs_seen += 1
        if event.metrics:
            self.validated(event.epoch + 1)
        if self.quiet:
            return
        losses = ", ".join(f"{name} {value:.3f}" for name, value in event.losses.items())
        line = f"epoch {event.epoch + 1}/{event.epochs}: {losses}; {event.pictures / event.seconds:.1f} pictures/s"
        if event.metrics:
            from .train_validation import metric_name

            line += "; " + ", ".join(f"{metric_name(name)} {value:.3f}" for name, value in event.metrics.items())
        click.echo(line, err=True)
