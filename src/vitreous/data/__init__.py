"""Where images come from: sources, the scan for unusable files, the split, the pixel store, augmentation, batches.

Sources, scan, split and store need no torch; `augment`, `rand_augment` and `batches` do and are imported by name.
"""

from vitreous.data.detect import load_source
from vitreous.data.scan import Scan
from vitreous.data.source import BadFile, Sample, Source
from vitreous.data.split import Split, make_split
from vitreous.data.store import PixelStore

__all__ = ["BadFile", "PixelStore", "Sample", "Scan", "Source", "Split", "load_source", "make_split"]
