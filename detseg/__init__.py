"""detseg: object detection and segmentation from the command line.

The rooms of this package and their levels are described in README.md; the units, frames and
orders of numbers in CONVENTIONS.md. Importing the package imports nothing else.
"""

__version__ = "0.1.0"
