"""How a file with more than one possible picture in it becomes one: frames, bands, windows of grey values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Frame = Literal["first", "middle", "last"]


@dataclass(frozen=True, kw_only=True)
class DecodeConfig:
    """Which picture of a file is meant. Part of the `InputSpec`, so the same in training, evaluation and serving."""

    frame: Frame | int = "first"
    """Frame of animated and multi-page files: first, middle, last, or its number from 0."""
    window: str = "file"
    """Grey values of DICOM images: file (the window the file states, else its full range), full, a preset (lung, bone,
    brain, soft-tissue, mediastinum, liver), or CENTER,WIDTH in the modality's units such as -600,1500."""
    bands: tuple[int, ...] = ()
    """Bands of a multi-band image to use, numbered from 1 and in this order; all when empty."""
