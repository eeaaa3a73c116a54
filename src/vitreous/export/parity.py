"""The proof that an exported model says what the original says. No torch: it compares two engines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from vitreous.config.convert import to_dict
from vitreous.config.input import InputSpec
from vitreous.engines.protocol import Engine, Outputs
from vitreous.errors import GateError
from vitreous.inputs.pixels import normalise


@dataclass(frozen=True)
class Parity:
    """How far two engines were apart on the same images."""

    max_abs_difference: float
    """Largest difference of any logit or feature."""
    relative: float
    """The same as a share of the largest value of that output, or of 1 where all are smaller."""
    top1_agreement: float
    """Share of images with the same best class; a tie within the tolerance agrees."""
    batches: tuple[int, ...]
    """Batch sizes that were tried."""
    tolerance: float
    """What `relative` may be."""
    passed: bool
    """Within tolerance, and every image with the same best class."""

    def to_dict(self) -> dict[str, Any]:
        return to_dict(self)


def prove(
    reference: Engine,
    candidate: Engine,
    spec: InputSpec,
    *,
    batches: tuple[int, ...] = (1, 3, 8),
    tolerance: float = 1e-4,
    seed: int = 0,
    images: np.ndarray | None = None,
) -> Parity:
    """Run both engines on one synthetic batch of every size and on the images given; compare logits and features.

    tolerance: of a difference as a share of the largest value (at least 1) of the same output: rounding grows with
               what is rounded, and features of some CNNs reach hundreds.
    images:    further prepared images, float32 (n, channels, height, width).
    Raises GateError when the candidate fails on a batch or answers in another shape.
    """
    differences, shares, agreements = [], [], []
    for batch in _batches(spec, batches, seed, images):
        expected, got = reference.predict(batch), _run(candidate, batch)
        allowed = {}
        for name in ("logits", "features"):
            wanted, found = getattr(expected, name), getattr(got, name)
            if wanted.shape != found.shape:
                raise GateError(
                    f"The {candidate.name} model answers {name} of shape {found.shape} to {len(batch)} images; "
                    f"the original's are {wanted.shape}."
                )
            largest = max(1.0, float(np.abs(wanted).max()))
            difference = float(np.abs(wanted.astype(np.float64) - found).max())
            differences.append(difference)
            shares.append(difference / largest)
            allowed[name] = tolerance * largest
        agreements.append(_same_best(expected.logits, got.logits, allowed["logits"]))
    # np.max keeps a NaN, and a NaN is within no tolerance.
    relative, agreement = float(np.max(shares)), float(np.concatenate(agreements).mean())
    return Parity(
        max_abs_difference=float(np.max(differences)),
        relative=relative,
        top1_agreement=agreement,
        batches=tuple(batches),
        tolerance=tolerance,
        passed=relative <= tolerance and agreement == 1.0,
    )


def synthetic_images(spec: InputSpec, count: int, seed: int = 0) -> np.ndarray:
    """Images with the even fall of detail that photographs have, prepared: float32 (count, channels, height, width).

    Noise at doubling scales, each enlarged smoothly and added with a weight in proportion to its scale, then
    normalised as real pixels are.
    """
    generator = np.random.default_rng(seed)
    pixels = np.zeros((count, spec.height, spec.width, spec.channels), np.float32)
    scale = 1
    while scale <= max(spec.height, spec.width):
        rows, columns = -(-spec.height // scale), -(-spec.width // scale)
        noise = generator.standard_normal((count, rows, columns, spec.channels), np.float32)
        for index in np.ndindex(count, spec.channels):
            layer = Image.fromarray(np.ascontiguousarray(noise[index[0], :, :, index[1]]))
            layer = layer.resize((spec.width, spec.height), Image.Resampling.BICUBIC)
            pixels[index[0], :, :, index[1]] += scale * np.asarray(layer)
        scale *= 2
    spread = pixels.std(axis=(1, 2, 3), keepdims=True)
    brightness = np.clip(0.5 + 0.22 * pixels / np.maximum(spread, 1e-6), 0, 1)
    return normalise(np.rint(brightness * spec.max_value), spec)


def _batches(spec: InputSpec, sizes: tuple[int, ...], seed: int, images: np.ndarray | None) -> Iterator[np.ndarray]:
    synthetic = synthetic_images(spec, sum(sizes), seed)
    start = 0
    for size in sizes:
        yield synthetic[start : start + size]
        start += size
    if images is not None:
        for start in range(0, len(images), max(sizes)):
            yield images[start : start + max(sizes)]


def _run(candidate: Engine, batch: np.ndarray) -> Outputs:
    try:
        return candidate.predict(batch)
    except Exception as error:  # runtimes raise their own unexported types
        raise GateError(
            f"The {candidate.name} model fails on a batch of {len(batch)} ({type(error).__name__}: {str(error)[:200]})."
        ) from error


def _same_best(expected: np.ndarray, got: np.ndarray, tolerance: float) -> np.ndarray:
    """bool (b,): the candidate's best class is the reference's best, or as good to within twice the tolerance."""
    rows, chosen = np.arange(len(expected)), got.argmax(axis=1)
    # Each of two logits may move by the tolerance, so a gap of twice that can close.
    return expected[rows, chosen] >= expected.max(axis=1) - 2 * tolerance
