"""Where images come from, what is wrong with them, which part each is in, and how they become batches.

sources        folders, tables, shards, hubs and digits behind one protocol
examination    every image decoded once: bad files, fingerprints, near-duplicates
audit          likely wrong labels, shortcuts, outliers, corrections
splitting      train, val, test and folds
augmentation   random changes of training images (torch)

All but `augmentation` and `batches` need no torch; those two are imported by name.
"""

from vitreous.data.examination.scan import Scan
from vitreous.data.sources.detect import load_source
from vitreous.data.sources.source import BadFile, Sample, Source
from vitreous.data.splitting.split import Split, make_split
from vitreous.data.store import PixelStore

__all__ = ["BadFile", "PixelStore", "Sample", "Scan", "Source", "Split", "load_source", "make_split"]
