"""Decode every image once: what is readable, what is not, and a fingerprint of the pixels of each.

An unreadable image is named, counted and left out. It is never replaced by another one.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from vitreous.config.input import InputSpec
from vitreous.data.parallel import parallel
from vitreous.data.sources.source import BadFile, Source, natural_order
from vitreous.errors import DataError, ImageError
from vitreous.inputs import open_image, to_pixels
from vitreous.inputs.decode import MAX_PIXELS
from vitreous.runs.atomic import write_text

_DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
_PROBE = InputSpec(height=1, width=1, channels=1, mean=(0.5,), std=(0.5,))


@dataclass(frozen=True)
class Scan:
    """What decoding found. All lists but `bad` are aligned with `good`."""

    good: list[int]
    """Indices into `source.samples` of the readable images, ascending."""
    sizes: list[tuple[int, int]]
    """(width, height) in pixels, upright."""
    modes: list[str]
    """Pillow's name of the stored pixel format: L, RGB, P, CMYK, I;16 ..."""
    bits: list[int]
    """8 or 16 bits a sample."""
    hashes: list[str]
    """sha256 of mode, size and upright pixels: equal exactly where two images are."""
    bad: list[BadFile]

    @cached_property
    def duplicates(self) -> list[list[int]]:
        """Sets of positions in `good` whose pixels are identical, each of two or more."""
        positions: defaultdict[str, list[int]] = defaultdict(list)
        for position, digest in enumerate(self.hashes):
            positions[digest].append(position)
        return [group for group in positions.values() if len(group) > 1]

    def write_bad_files(self, path: Path) -> None:
        """CSV with the columns path, reason."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("path", "reason"))
        writer.writerows((bad.path, bad.reason) for bad in self.bad)
        write_text(path, text.getvalue())


@dataclass(frozen=True)
class _Found:
    size: tuple[int, int]
    mode: str
    bits: int
    digest: str


def scan(
    source: Source,
    *,
    max_pixels: int = MAX_PIXELS,
    threads: int,
    progress: Callable[[int, int], None] | None = None,
) -> Scan:
    """Decode every sample of the source. Raises nothing for a bad image; see `check`."""

    def look(index: int) -> _Found | str:
        try:
            image = open_image(source.open(index), max_pixels=max_pixels)
            if image.mode in _DEEP_MODES:
                to_pixels(image, _PROBE)  # refuses floats and integers without a known range
        except ImageError as error:
            return error.message
        return _Found(image.size, image.mode, 16 if image.mode in _DEEP_MODES else 8, pixel_digest(image))

    good: list[int] = []
    found: list[_Found] = []
    bad = list(source.unusable)
    looks = parallel(look, range(len(source.samples)), threads=threads, progress=progress)
    for index, result in enumerate(looks):
        if isinstance(result, str):
            bad.append(BadFile(source.samples[index].path, result))
        else:
            good.append(index)
            found.append(result)
    return Scan(
        good=good,
        sizes=[entry.size for entry in found],
        modes=[entry.mode for entry in found],
        bits=[entry.bits for entry in found],
        hashes=[entry.digest for entry in found],
        bad=bad,
    )


def check(scan: Scan, source: Source, max_bad: float) -> None:
    """Raise DataError where too little is readable: nothing, less than 1 - max_bad, or a class left too small.

    Training needs two images of a class outside the test part (one to learn from, one to validate on), and one more
    where a test part has yet to be made.
    """
    total = len(source.samples) + len(source.unusable)
    if not scan.good:
        first = "; ".join(f"{bad.path} {bad.reason}" for bad in scan.bad[:3])
        raise DataError(f"None of the {total:,} images in {source.name!r} can be used: {first}.")
    if len(scan.bad) > max_bad * total:
        first = "; ".join(f"{bad.path} {bad.reason}" for bad in scan.bad[:3])
        raise DataError(
            f"{len(scan.bad):,} of {total:,} images cannot be used, more than --max-bad {max_bad:g} allows: {first}.",
            "Repair or remove them, or raise --max-bad.",
        )
    parts = [source.samples[index].part for index in scan.good]
    has_test = "test" in parts
    needed = 2 if has_test else 3
    counts = Counter(
        source.samples[index].label for index, part in zip(scan.good, parts, strict=True) if part != "test"
    )
    short = natural_order(name for name in source.classes if counts[name] < needed)
    if short:
        named = ", ".join(f"{name!r} ({counts[name]})" for name in short[:5])
        named += f" and {len(short) - 5} more" if len(short) > 5 else ""
        outside = " outside the test part" if has_test else ""
        raise DataError(
            f"A class needs at least {needed} readable images{outside}; these have fewer: {named}.",
            f"Add images, or leave the classes out: --ignore-classes {' '.join(short[:5])}",
        )


def pixel_digest(image: Image.Image) -> str:
    """sha256 of what the image shows. Palettes are resolved first: equal indices may be different colours."""
    if image.mode in ("P", "PA") or "transparency" in image.info:
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    mode, data = image.mode, image.tobytes()
    if mode.startswith("I;16"):  # byte order is a property of the file
        mode, data = "I;16", np.asarray(image).astype("<u2").tobytes()
    digest = hashlib.sha256(f"{mode} {image.width} {image.height}\n".encode())
    digest.update(data)
    return digest.hexdigest()
