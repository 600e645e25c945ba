"""`detseg data`: everything about data sets. Each subcommand NAME is the object `command` of `cli/data_NAME.py`."""

from __future__ import annotations

import click

from .subcommands import LazySubcommandGroup

# The one-line helps stand here, so that `detseg data --help` imports no subcommand
SUBCOMMANDS = {
    "info": "What is in a data set: pictures, objects of each class, sizes.",
    "show": "Pictures with their truth, as a page and a contact sheet.",
    "check": "Everything that is wrong with a data set, and what helps.",
    "fix": "Write a repaired copy of a data set.",
    "split": "Divide a data set into train, val and test, every class in its share.",
    "convert": "Write a data set in another format, with its pictures.",
    "anchors": "The anchor sizes that fit a data set best.",
    "proposals": "Places where objects may be, and how many objects they cover.",
    "sample": "Write a small data set of drawn shapes to try things on.",
    "download": "Get a public data set: download, check, unpack.",
}
_EPILOG = """\b
Examples:
  detseg data sample shapes/
  detseg data info shapes/
  detseg data check shapes/
  detseg data show shapes/ --class circle"""


@click.group(cls=LazySubcommandGroup, modules=__name__, helps=SUBCOMMANDS, epilog=_EPILOG)
def command() -> None:
    """Data sets: look at them, check, repair, divide and convert them.

    DATA is a folder (VOC tree, YOLO tree, COCO JSON files, mask folder, ...), a COCO .json or a YOLO data.yaml:
    which, is found by looking. It may also be the name of a public set that was downloaded.
    """
