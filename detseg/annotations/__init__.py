"""Truth: data sets read into one shape, whatever format they came in. Torch-free."""

from detseg.annotations.categories import Categories
from detseg.annotations.class_match import ClassMatch
from detseg.annotations.dataset import AnnotationSet, Fault
from detseg.annotations.formats import find_format, load, load_label_maps, splits

__all__ = ["AnnotationSet", "Categories", "ClassMatch", "Fault", "find_format", "load", "load_label_maps", "splits"]
