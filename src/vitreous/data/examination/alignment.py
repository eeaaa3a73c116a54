"""Whether two images show the same picture: laid over one another as well as possible, then compared piece by piece.

The second image is moved, scaled and sheared (an affine map) until it fits the first: a coarse shift by
cross-correlation, then Gauss-Newton steps from coarse to fine (Lucas and Kanade 1981, with the gradient of the first
image throughout, so that a step costs one warp). Both are normalised for local contrast before, so that exposure,
brightness and contrast do not count and structure does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitreous.data.examination.perceptual import Floats, Symmetry, normalise_contrast

FINEST = 128
"""Side in pixels of the square at which images are compared, where they have that many pixels."""

_RADIUS = {32: 4, 64: 6, 128: 6}
"""Surroundings for the normalisation at each size, in pixels."""

_BLOCKS = 8
"""Pieces a side into which the finest picture is cut."""

_NOTHING = 0.15
"""Mean square of a normalised piece below which it holds no structure, only noise."""


Place: TypeAlias = NDArray[np.float64]
"""(6,): where the second picture shows what the first shows at (x, y), both in [-0.5, 0.5]: (ax + by + c, dx + ey + f)."""


WORTHWHILE = 0.72
"""Correlation at 32 and 64 pixels a side without which the next finer size is not looked at. Copies and exposures of
one surface have at least 0.77 (crops of blank forms, 0.74); half of the other candidates have less."""


@dataclass(frozen=True)
class Picture:
    """One image made ready to be compared: grey, squashed to squares of 32, 64 and 128 pixels."""

    grey: NDArray[np.uint8]
    """(s, s) with s the finest size that the image's own pixels fill."""
    width: int
    """Of the image itself."""
    height: int

    def shrunk(self, side: int) -> Floats:
        """Grey values (side, side); side is at most the finest."""
        image = Image.fromarray(self.grey)
        small = image if side == len(self.grey) else image.resize((side, side), Image.Resampling.BOX)
        return np.asarray(small, dtype=np.float32)

    @cached_property
    def levels(self) -> dict[int, Floats]:
        """Size -> picture normalised for local contrast (size, size), from coarse to fine."""
        sides = [side for side in _RADIUS if side <= len(self.grey)]
        return {side: normalise_contrast(self.shrunk(side), _RADIUS[side]) for side in sides}

    def turned(self, symmetry: Symmetry) -> Picture:
        grey = np.ascontiguousarray(symmetry.apply(self.grey))
        return Picture(grey, *((self.height, self.width) if symmetry.quarter else (self.width, self.height)))


def to_picture(image: Image.Image) -> Picture:
    """Images of 16 bits and floats are stretched over their own range: exposure is not compared anyway."""
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image).astype(np.float32)
        low, high = float(values.min()), float(values.max())
        image = Image.fromarray(((values - low) * (255 / max(high - low, 1e-9))).astype(np.uint8))
    side = next((side for side in (128, 64) if min(image.size) >= side), 32)
    grey = image.convert("L").resize(
        (side, side), Image.Resampling.BOX if min(image.size) >= side else Image.Resampling.BILINEAR
    )
    return Picture(np.asarray(grey), *image.size)


@dataclass(frozen=True)
class Match:
    """How well two pictures agree once laid over one another."""

    correlation: float
    """Of the normalised pictures where they overlap, in [-1, 1]."""
    plain: float
    """Of the grey values themselves where they overlap, in [-1, 1]: high where only faint detail differs."""
    overlap: float
    """Share of the first picture that the second covers."""
    agreeing: float
    """Share of the pieces with structure in either picture in which the two correlate."""
    side: int
    """Pixels a side at which this was judged."""


NO_MATCH = Match(0.0, 0.0, 0.0, 0.0, 0)


def compare(first: Picture, second: Picture) -> Match:
    """Lay the second picture over the first and say how well they agree; NO_MATCH where a coarse look tells already.

    Two starting points are tried: both show the same field (a resized copy), or both have the same scale (a crop).
    """
    sides = [side for side in first.levels if side in second.levels]
    places = [_shifted(first, second, sides[0], scale) for scale in _scales(first, second)]
    for side in sides[:-1]:
        refined = [_refine(first.levels[side], second.levels[side], place) for place in places]
        places = [place for place in refined if _agreement(first, second, side, place).correlation >= WORTHWHILE]
    final = [_refine(first.levels[sides[-1]], second.levels[sides[-1]], place) for place in places]
    matches = [_agreement(first, second, sides[-1], place) for place in final]
    return max(matches, key=lambda match: match.correlation, default=NO_MATCH)


def _scales(first: Picture, second: Picture) -> list[tuple[float, float]]:
    across, down = first.width / second.width, first.height / second.height
    near = 0.6 < across < 1.6 and 0.6 < down < 1.6
    return [(1.0, 1.0), (across, down)] if near and abs(across - down) + abs(across * down - 1) > 0.04 else [(1.0, 1.0)]


def _shifted(first: Picture, second: Picture, side: int, scale: tuple[float, float]) -> Place:
    """The affine map with this scale whose shift, at most a quarter of the side, correlates best."""
    place = np.array([scale[0], 0, 0, 0, scale[1], 0])
    fixed, moved = first.levels[side], _warp(second.levels[side], place)
    padded = (2 * side, 2 * side)
    spectra = [np.fft.rfft2(picture, padded) for picture in (fixed, moved, fixed**2, moved**2, np.ones_like(fixed))]
    a, b, a2, b2, one = spectra
    product, own, other = (np.fft.irfft2(s, padded) for s in (a.conj() * b, a2.conj() * one, one.conj() * b2))
    correlation = product / np.sqrt(np.maximum(own, side) * np.maximum(other, side))
    reach = side // 4
    shifts = np.r_[0 : reach + 1, -reach:0]
    down, across = np.unravel_index(correlation[np.ix_(shifts, shifts)].argmax(), (len(shifts), len(shifts)))
    place[2], place[5] = scale[0] * shifts[across] / side, scale[1] * shifts[down] / side
    return place


@lru_cache(maxsize=4)
def _coordinates(side: int) -> tuple[Floats, Floats]:
    """Horizontal and vertical position of every pixel's centre, in [-0.5, 0.5]; each (side, side)."""
    line = ((np.arange(side) + 0.5) / side - 0.5).astype(np.float32)
    return np.tile(line, (side, 1)), np.repeat(line, side).reshape(side, side)


def _warp(picture: Floats, place: Place) -> Floats:
    """The picture as seen from the first one's pixels; 0, the mean, outside of it."""
    side = len(picture)
    a, b, c, d, e, f = place
    pixels = (a, b, side * (c + 0.5 - (a + b) / 2), d, e, side * (f + 0.5 - (d + e) / 2))
    image = Image.fromarray(picture)
    return np.asarray(image.transform((side, side), Image.Transform.AFFINE, pixels, Image.Resampling.BILINEAR))


def _covered(side: int, place: Place) -> NDArray[np.bool_]:
    """(side, side): the pixels of the first picture that the second covers."""
    across, down = _coordinates(side)
    edge = 0.5 - 1 / side
    inside = np.abs(place[0] * across + place[1] * down + place[2]) <= edge
    return inside & (np.abs(place[3] * across + place[4] * down + place[5]) <= edge)


def _refine(fixed: Floats, moved: Floats, place: Place, steps: int = 8) -> Place:
    """Gauss-Newton steps towards the least square difference."""
    side = len(fixed)
    across, down = _coordinates(side)
    steep, slope = (gradient * side for gradient in np.gradient(fixed))
    slopes = np.stack([slope * across, slope * down, slope, steep * across, steep * down, steep]).reshape(6, -1)
    normal = slopes @ slopes.T
    solver = np.linalg.solve(normal + np.eye(6) * (1e-3 * np.trace(normal) / 6 + 1e-9), slopes)
    for _ in range(steps):
        difference = np.where(_covered(side, place), fixed - _warp(moved, place), 0)
        step = solver @ difference.ravel()
        place = place + step
        if np.abs(step).max() * side < 0.05:
            break
    return place


def _agreement(first: Picture, second: Picture, side: int, place: Place) -> Match:
    covered = _covered(side, place)
    overlap = float(covered.mean())
    stretch = place[[0, 4]]
    if overlap < 0.4 or stretch.min() < 0.6 or stretch.max() > 1.6 or np.abs(place[[1, 3]]).max() > 0.2:
        return NO_MATCH
    fixed, moved = first.levels[side] * covered, _warp(second.levels[side], place) * covered
    both, own, other = (_sums(product) for product in (fixed * moved, fixed * fixed, moved * moved))
    pixels = _sums(covered.astype(np.float32))
    correlation = both.sum() / np.sqrt(own.sum() * other.sum() + 1e-9)
    structured = (np.maximum(own, other) > _NOTHING * pixels) & (pixels >= 0.5 * (side // _BLOCKS) ** 2)
    agree = both > 0.4 * np.maximum(own, other)
    agreeing = agree[structured].mean() if structured.any() else 0.0
    plain = _plain_correlation(first.shrunk(side), second.shrunk(side), covered, place)
    return Match(float(correlation), plain, overlap, float(agreeing), side)


def _plain_correlation(first: Floats, second: Floats, covered: NDArray[np.bool_], place: Place) -> float:
    pair = [grey[covered] - grey[covered].mean() for grey in (first, _warp(second, place))]
    return float(np.dot(*pair) / np.sqrt(np.dot(pair[0], pair[0]) * np.dot(pair[1], pair[1]) + 1e-9))


def _sums(picture: Floats) -> Floats:
    """(s, s) -> (_BLOCKS, _BLOCKS)"""
    size = len(picture) // _BLOCKS
    return picture.reshape(_BLOCKS, size, _BLOCKS, size).sum((1, 3))
