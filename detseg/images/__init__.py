"""From what the user names to pictures: sources and decoding. Torch-free."""

from detseg.images.decode import MAX_PIXELS, read_hw, read_image, read_image_and_hw
from detseg.images.folders import ENDINGS
from detseg.images.image_file import ImageFile
from detseg.images.sources import find_images

__all__ = ["ENDINGS", "MAX_PIXELS", "ImageFile", "find_images", "read_hw", "read_image", "read_image_and_hw"]
