"""Where images come from, what is wrong with them, which part each is in, and how they become batches.

sources        folders, tables, shards, hubs and digits behind one protocol
examination    every image decoded once: bad files, fingerprints, near-duplicates
audit          likely wrong labels, shortcuts, outliers, corrections
splitting      train, val, test and folds
augmentation   random changes of training images (torch)

All but `augmentation` and `batches` need no torch; those two are imported by name. Names are resolved when first used: the
workers that decode images import this package too, and start in a third of the time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitreous.data.examination.scan import Scan
    from vitreous.data.sources.detect import load_source
    from vitreous.data.sources.source import BadFile, Sample, Source
    from vitreous.data.splitting.split import make_split
    from vitreous.data.splitting.stored import Split
    from vitreous.data.store import PixelStore

_PLACES = {
    "BadFile": "sources.source",
    "PixelStore": "store",
    "Sample": "sources.source",
    "Scan": "examination.scan",
    "Source": "sources.source",
    "Split": "splitting.stored",
    "load_source": "sources.detect",
    "make_split": "splitting.split",
}

__all__ = ["BadFile", "PixelStore", "Sample", "Scan", "Source", "Split", "load_source", "make_split"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'vitreous.data' has no attribute {name!r}")
    return getattr(import_module(f"vitreous.data.{_PLACES[name]}"), name)
