"""The route, streamed: path -> image -> network's frame -> candidates -> detections, in input order.

Or, for a segmenter, -> logits -> label map: `segment_files`. Several networks may look at each picture, which is read
once for all of them: `detect_together`, `segment_together`.

Decoding and selecting run in threads beside the network (all of them leave the interpreter lock alone while
they work), and only a bounded number of pictures is under way: memory is flat however long the folder.

    `members`       who looks at pictures, and what became of one
    `stream`        threads, order, how many pictures at a time
    `frames`        a picture, read once and laid into every frame that somebody looks at
    `detecting`     what detectors make of it
    `label_maps`    what segmenters make of it; `tiled`: of one that keeps its size
"""

from detseg.pipeline.detecting import detect_files, detect_together
from detseg.pipeline.label_maps import segment_files, segment_together, split_together
from detseg.pipeline.members import Member, Outcome
from detseg.pipeline.stream import Pace, ordered, threads

__all__ = [
    "Member",
    "Outcome",
    "Pace",
    "detect_files",
    "detect_together",
    "ordered",
    "segment_files",
    "segment_together",
    "split_together",
    "threads",
]
