"""A quick classifier for judging the data, not for use: the class of every image as images of other groups tell it.

Features are standardised, lifted by random Fourier features of a Gaussian kernel (Rahimi and Recht 2007; orthogonal
directions as in Yu et al. 2016, arXiv:1610.09072) and fitted by ridge regression in closed form. One pass collects a
Gram matrix a fold; the Gram matrix of any set of folds is then a sum, so that ridge and temperature can be chosen for
each fold on another fold, and nothing of an image's own fold reaches its probabilities. Lifted rows are never stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from vitreous.data.audit.calibrate import Calibration, fit_logistic, fit_temperature
from vitreous.data.splitting.folds import make_folds
from vitreous.errors import DataError

Progress = Callable[[int, int], None]
Kernel = Literal["gaussian", "linear"]

CHUNK = 4096
"""Rows lifted at a time."""

RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""Candidates, in units of the mean diagonal of the Gram matrix."""

WIDTH = 1.4
"""Width of the kernel as a share of the median distance between images."""


def out_of_fold(
    features: np.ndarray,
    labels: np.ndarray,
    units: np.ndarray,
    num_classes: int,
    *,
    folds: int = 5,
    seed: int,
    kernel: Kernel = "gaussian",
    blocks: Sequence[int] = (),
    components: int = 2048,
    balanced: bool = False,
    progress: Progress | None = None,
) -> np.ndarray:
    """Probability of each class for each image, from a probe that saw no image of its fold.

    features:   float (n, d)
    labels:     int (n,), each in [0, num_classes)
    units:      int (n,); images of one unit are in one fold
    kernel:     "linear" for embeddings of a model, "gaussian" for descriptors
    blocks:     widths of runs of features that get a Gaussian kernel each; one run where none are given
    components: random Fourier features at most
    balanced:   every class counts the same, however few images it has
    returns:    float32 (n, num_classes), rows sum to 1; a class that no other fold holds gets next to nothing

    Raises DataError for features that are not finite, fewer than two classes, fewer than three units.
    """
    labels = np.asarray(labels, np.int64)
    _check(features, units, len(labels))
    counts = np.bincount(labels, minlength=num_classes)
    if (counts > 0).sum() < 2:
        raise DataError(
            "A probe tells classes apart; all images have one class.", "Pass data with two classes or more."
        )
    weights = (len(labels) / ((counts > 0).sum() * np.maximum(1, counts)))[labels] if balanced else np.ones(len(labels))
    eye = np.eye(num_classes, dtype=np.float32)
    problem = _Problem(
        features=features,
        targets=lambda rows: eye[labels[rows]],
        weights=weights.astype(np.float32),
        folds=assign_folds(labels, units, folds, seed),
        lift=_make_lift(features, kernel, blocks, components, seed),
        calibrate=fit_temperature,
        seed=seed,
    )
    return problem.solve(num_classes, progress)


def out_of_fold_several(
    features: np.ndarray,
    targets: np.ndarray,
    units: np.ndarray,
    *,
    folds: int = 5,
    seed: int,
    kernel: Kernel = "gaussian",
    blocks: Sequence[int] = (),
    components: int = 2048,
    progress: Progress | None = None,
) -> np.ndarray:
    """The same for images with any number of labels.

    targets: bool (n, k)
    returns: float32 (n, k), the probability of each label by itself

    Raises DataError as `out_of_fold` does.
    """
    targets = np.asarray(targets, bool)
    _check(features, units, len(targets))
    _, sets = np.unique(targets, axis=0, return_inverse=True)
    problem = _Problem(
        features=features,
        targets=lambda rows: targets[rows].astype(np.float32),
        weights=np.ones(len(targets), np.float32),
        folds=assign_folds(sets.ravel(), units, folds, seed),
        lift=_make_lift(features, kernel, blocks, components, seed),
        calibrate=fit_logistic,
        seed=seed,
    )
    return problem.solve(targets.shape[1], progress)


@dataclass(frozen=True)
class _Lift:
    """Standardises rows and lifts them; the last column is 1."""

    mean: np.ndarray
    scale: np.ndarray
    kernels: list[tuple[slice, np.ndarray]]
    """Runs of features and their frequencies, float32 (d, m); none for the linear kernel."""

    @property
    def width(self) -> int:
        return 1 + (sum(2 * each.shape[1] for _, each in self.kernels) if self.kernels else len(self.mean))

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """float (b, d) to float32 (b, width)."""
        standard = (rows - self.mean) * self.scale
        ones = np.ones((len(rows), 1), np.float32)
        if not self.kernels:
            return np.hstack([standard, ones], dtype=np.float32)
        phases = np.hstack([standard[:, block] @ frequencies for block, frequencies in self.kernels])
        return np.hstack([np.cos(phases), np.sin(phases), ones])


def _make_lift(features: np.ndarray, kernel: Kernel, blocks: Sequence[int], components: int, seed: int) -> _Lift:
    count = len(features)
    generator = np.random.default_rng([seed, 1])
    some = features[np.sort(generator.permutation(count)[:20_000])].astype(np.float32)
    mean, spread = some.mean(0), some.std(0)
    scale = np.where(spread > 1e-5, 1 / np.maximum(spread, 1e-5), 0).astype(np.float32)
    if kernel == "linear":
        return _Lift(mean, scale, [])
    edges = np.cumsum([0, *(blocks or [features.shape[1]])])
    if edges[-1] != features.shape[1]:
        raise ValueError(f"blocks {tuple(blocks)} do not add up to {features.shape[1]} features")
    each = max(32, min(components, count) // 2 // (len(edges) - 1))
    kernels = []
    for start, stop in pairwise(edges):
        block = slice(int(start), int(stop))
        width = np.float32(WIDTH * _median_distance(some[:, block] * scale[block], generator))
        kernels.append((block, _orthogonal(int(stop - start), each, generator) / width))
    return _Lift(mean, scale, kernels)


def _median_distance(rows: np.ndarray, generator: np.random.Generator) -> float:
    one, other = generator.integers(0, len(rows), (2, 2000))
    distance = np.sqrt(((rows[one] - rows[other]) ** 2).sum(1))
    return float(np.median(distance[distance > 0])) if (distance > 0).any() else 1.0


def _orthogonal(width: int, count: int, generator: np.random.Generator) -> np.ndarray:
    """Normal directions (width, count), orthogonal within blocks, with lengths as independent ones have."""
    blocks = []
    for start in range(0, count, width):
        directions, _ = np.linalg.qr(generator.standard_normal((width, width)))
        lengths = np.sqrt(generator.chisquare(width, width))
        blocks.append((directions * lengths)[:, : count - start])
    return np.hstack(blocks).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class _Problem:
    features: np.ndarray
    targets: Callable[[np.ndarray], np.ndarray]
    """Rows to float32 (b, k)."""
    weights: np.ndarray
    folds: np.ndarray
    lift: _Lift
    calibrate: Callable[[np.ndarray, np.ndarray, np.ndarray], Calibration]
    seed: int

    def solve(self, num_targets: int, progress: Progress | None) -> np.ndarray:
        total, done = 2 * len(self.folds), 0
        report = progress or (lambda *_: None)
        count = int(self.folds.max()) + 1
        rows_of = [np.flatnonzero(self.folds == fold) for fold in range(count)]
        grams = np.zeros((count, self.lift.width, self.lift.width))
        crosses = np.zeros((count, self.lift.width, num_targets))
        for fold, rows in enumerate(rows_of):
            for some in _chunks(rows):
                lifted = self.lift(self.features[some])
                lifted *= np.sqrt(self.weights[some])[:, None]
                grams[fold] += lifted.T @ lifted
                crosses[fold] += lifted.T @ (self.targets(some) * np.sqrt(self.weights[some])[:, None])
                report(done := done + len(some), total)
        result = np.empty((len(self.folds), num_targets), np.float32)
        for fold, rows in enumerate(rows_of):
            ridge, calibration = self._choose(fold, grams, crosses, rows_of)
            solution = _ridge(_without(grams, fold), _without(crosses, fold), ridge)
            for some in _chunks(rows):
                result[some] = calibration.apply(self.lift(self.features[some]) @ solution)
                report(done := done + len(some), total)
        return result

    def _choose(
        self, fold: int, grams: np.ndarray, crosses: np.ndarray, rows_of: list[np.ndarray]
    ) -> tuple[float, Calibration]:
        """Ridge and calibration for one fold: of those that fit the next fold best, learnt from the remaining ones."""
        other = (fold + 1) % len(rows_of)
        most = max(500, min(2000, 500_000 // crosses.shape[2]))
        rows = np.random.default_rng([self.seed, 2, fold]).permutation(rows_of[other])[:most]
        lifted, targets, weights = self.lift(self.features[rows]), self.targets(rows), self.weights[rows]
        gram, cross = _without(grams, fold, other), _without(crosses, fold, other)
        tried = [(ridge, self.calibrate(lifted @ _ridge(gram, cross, ridge), targets, weights)) for ridge in RIDGES]
        return min(tried, key=lambda pair: (pair[1].loss, -pair[0]))


def _ridge(gram: np.ndarray, cross: np.ndarray, ridge: float) -> np.ndarray:
    """float32 (width, k). The last row, the constant, is not shrunk."""
    diagonal = np.diagonal(gram)
    penalty = np.full(len(gram), ridge * max(float(diagonal[:-1].mean()), 1e-12))
    penalty[-1] = 1e-9 * max(float(diagonal[-1]), 1.0)
    return np.linalg.solve(gram + np.diag(penalty), cross).astype(np.float32)


def _without(parts: np.ndarray, *folds: int) -> np.ndarray:
    """The sum over all other folds."""
    return parts[[fold for fold in range(len(parts)) if fold not in folds]].sum(0)


def _chunks(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]


def assign_folds(labels: np.ndarray, units: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """int (n,): consecutive numbers from 0, at least three."""
    found = make_folds(labels, units, max(3, min(folds, len(np.unique(units)))), seed)
    return np.unique(np.asarray(found), return_inverse=True)[1]


def _check(features: np.ndarray, units: np.ndarray, count: int) -> None:
    if features.ndim != 2 or len(features) != count or len(units) != count:
        raise ValueError(f"{count} labels need as many features and units: {features.shape}, {np.shape(units)}")
    if len(np.unique(units)) < 3:
        raise DataError(
            f"A probe needs at least three images or groups that are independent of each other; {count} images "
            f"form {len(np.unique(units))}.",
            "Pass more images.",
        )
    for start in range(0, count, CHUNK):
        if not np.isfinite(features[start : start + CHUNK]).all():
            raise DataError("A probe needs finite features; some are not.", "Pass embeddings of a model that is sound.")
