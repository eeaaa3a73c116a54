"""One image to one array, the same in training, evaluation, export and serving. Pillow and NumPy only, no torch."""

from vitreous.inputs.bands import as_picture, band_values, needs_range
from vitreous.inputs.decode import SERVER_FORMATS, ImageSource, count_frames, open_image
from vitreous.inputs.pixels import normalise, prepare, to_pixels
from vitreous.inputs.raster import Raster

__all__ = [
    "SERVER_FORMATS",
    "ImageSource",
    "Raster",
    "as_picture",
    "band_values",
    "count_frames",
    "needs_range",
    "normalise",
    "open_image",
    "prepare",
    "to_pixels",
]
