"""Results out: pictures, tables and annotation files from detections. Torch-free."""

from detseg.writers.coco_json import coco_rows
from detseg.writers.opening import FORMATS, Writers, open_writers
from detseg.writers.overlay import draw
from detseg.writers.table import json_row

__all__ = ["FORMATS", "Writers", "coco_rows", "draw", "json_row", "open_writers"]
