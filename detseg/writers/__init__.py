"""Results out: pictures, tables and annotation files from detections and label maps. Torch-free."""

from detseg.writers.coco_json import coco_rows
from detseg.writers.label_map_files import area_row, draw_map
from detseg.writers.opening import FORMATS, MAP_FORMATS, Writers, open_map_writers, open_writers
from detseg.writers.overlay import draw
from detseg.writers.table import json_row

__all__ = [
    "FORMATS",
    "MAP_FORMATS",
    "Writers",
    "area_row",
    "coco_rows",
    "draw",
    "draw_map",
    "json_row",
    "open_map_writers",
    "open_writers",
]
