"""How a file with more than one possible picture in it becomes one: frames, bands, windows of grey values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from vitreous.errors import UsageError, unknown_name

Frame = Literal["first", "middle", "last"]

WINDOWS = MappingProxyType(
    {
        "lung": (-600.0, 1500.0),
        "bone": (400.0, 1800.0),
        "brain": (40.0, 80.0),
        "soft-tissue": (40.0, 400.0),
        "mediastinum": (50.0, 350.0),
        "liver": (60.0, 160.0),
    }
)
"""Named windows of computed tomography: (centre, width) in Hounsfield units, as radiologists commonly set them."""


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

    def __post_init__(self) -> None:
        if isinstance(self.frame, str) and self.frame not in ("first", "middle", "last"):
            raise unknown_name("frame", self.frame, ("first", "middle", "last"))
        if isinstance(self.frame, int) and self.frame < 0:
            raise UsageError(f"A frame is numbered from 0, got {self.frame}.", "The last one is: last")
        if any(band < 1 for band in self.bands):
            raise UsageError(f"Bands are numbered from 1, got {', '.join(map(str, self.bands))}.")
        if self.window not in ("file", "full"):
            window_limits(self.window)


def window_limits(window: str) -> tuple[float, float]:
    """(centre, width) of a named window or of CENTER,WIDTH. Raises UsageError for anything else."""
    if window in WINDOWS:
        return WINDOWS[window]
    if "," not in window:
        raise unknown_name("window", window, ("file", "full", *WINDOWS, "CENTER,WIDTH"))
    try:
        centre, width = (float(part) for part in window.split(","))
    except ValueError:
        centre, width = math.nan, math.nan
    if not (math.isfinite(centre) and math.isfinite(width)):
        raise UsageError(f"A window is CENTER,WIDTH, got {window!r}.", "For example: -600,1500")
    if width < 1:
        raise UsageError(f"The width of a window must be at least 1, got {width:g}.", "For example: -600,1500")
    return centre, width
