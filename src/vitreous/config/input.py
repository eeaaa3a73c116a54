"""The preprocessing contract: how a stored image becomes the array a model sees.

The settings live here; `vitreous.inputs` carries them out on Pillow and NumPy. One `InputSpec` is written into every
run folder and every export, and is the only description of preprocessing that evaluation, prediction and serving read.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from typing import Literal

from vitreous.config.decode import DecodeConfig

Resize = Literal["crop", "squash", "pad"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box"]
Exposure = Literal["stored", "even"]


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """What the model takes, and the one way to make it from an image file."""

    height: int
    """Pixels, top to bottom, of the array the model sees."""
    width: int
    """Pixels, left to right, of the array the model sees."""
    channels: int = 3
    """1 for grey, 3 for red, green, blue, any other number for the bands of multi-band images."""
    resize: Resize = "crop"
    """`crop` keeps the aspect ratio and cuts the centre; `squash` uses the whole image and changes its aspect ratio;
    `pad` uses the whole image, keeps its aspect ratio and fills the rest with `background`."""
    crop_fraction: float = 1.0
    """With `crop`: the share of the largest centred box of the right shape that is kept, in (0, 1]."""
    interpolation: Interpolation = "bilinear"
    """Resampling filter; all of them average over the source area when shrinking."""
    bit_depth: Literal[8, 16] = 8
    """Bits a sample is kept at before it becomes a float in [0, 1]."""
    background: float = 1.0
    """Brightness in [0, 1] put behind transparent pixels and into padding; 1 is white."""
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    """Per-channel mean of values in [0, 1], subtracted."""
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    """Per-channel standard deviation of values in [0, 1], divided by."""
    classes: tuple[str, ...] = ()
    """Class names in the order of the model's outputs."""
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    """Which frame, bands and window of files that hold several."""
    value_range: tuple[tuple[float, float], ...] = ()
    """For each channel the stored values (low, high) that become 0 and 1, clipped; when empty, 0 and the largest value
    of 8 or 16 bits. Floats need it, since no file states their range."""
    exposure: Exposure = "stored"
    """`even` brings each image to the same mean and contrast (its deviation a sixth of the range, clipped), so that light
    and shutter of the camera no longer count; `stored` leaves them as they are."""

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ValueError(f"height and width must be at least 1, got {self.height} x {self.width}")
        if self.channels < 1:
            raise ValueError(f"channels must be at least 1, got {self.channels}")
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ValueError(
                f"mean and std need one value for each of {self.channels} channels, "
                f"got {len(self.mean)} and {len(self.std)}"
            )
        if not 0 < self.crop_fraction <= 1:
            raise ValueError(f"crop_fraction must lie in (0, 1], got {self.crop_fraction}")
        if any(value <= 0 for value in self.std):
            raise ValueError(f"std must be positive, got {self.std}")
        if self.value_range and len(self.value_range) != self.channels:
            raise ValueError(
                f"value_range needs one pair for each of {self.channels} channels, got {len(self.value_range)}"
            )
        if any(not (math.isfinite(low) and math.isfinite(high) and low < high) for low, high in self.value_range):
            raise ValueError(f"value_range needs finite pairs (low, high) with low < high, got {self.value_range}")
        if self.decode.bands and len(self.decode.bands) not in (1, self.channels):
            raise ValueError(
                f"decode.bands names {len(self.decode.bands)} bands for {self.channels} channels; name one for each"
            )

    @property
    def max_value(self) -> int:
        """The stored value that stands for 1.0."""
        return 2**self.bit_depth - 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one prepared image."""
        return (self.channels, self.height, self.width)

    def to_dict(self) -> dict[str, object]:
        return asdict(self)

    def digest(self) -> str:
        """sha256 of the canonical JSON form: two specs with one digest prepare images identically.

        Fields that came later count only where they are set, so that specs written before keep their digest.
        """
        values = self.to_dict()
        if self.decode == DecodeConfig():
            del values["decode"]
        if not self.value_range:
            del values["value_range"]
        if self.exposure == "stored":
            del values["exposure"]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
