"""One image to one array, the same in training, evaluation, export and serving. Pillow and NumPy only, no torch."""

from vitreous.inputs.decode import SERVER_FORMATS, ImageSource, open_image
from vitreous.inputs.pixels import normalise, prepare, to_pixels

__all__ = ["SERVER_FORMATS", "ImageSource", "normalise", "open_image", "prepare", "to_pixels"]
