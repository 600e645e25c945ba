"""Truth: data sets read into one shape, whatever format they came in. Torch-free."""

from detseg.annotations.categories import Categories
from detseg.annotations.dataset import AnnotationSet, Fault

__all__ = ["AnnotationSet", "Categories", "Fault"]
