"""From logits and features to an answer one can act on: calibrated scores, an abstention flag, a strangeness score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

SAME_DISTANCE = 1e-4
"""Relative difference of two distances that is put down to rounding."""
SAME_DEVIATION = 2e-3
"""The same of numbers in deviations, where the last digits, in which engines differ, count for more."""
_ARRAYS = ("means", "whitening", "centre", "reference")


@dataclass(frozen=True)
class Prediction:
    """The answer for one image."""

    label: str
    """Name of the likeliest class."""
    score: float
    """Its calibrated probability, in [0, 1]."""
    top: list[tuple[str, float]]
    """The likeliest classes with their probabilities, best first."""
    abstain: bool
    """True where the score is below the run's threshold or the image is stranger than all validation images."""
    ood: float
    """Strangeness in [0, 1]: the share of validation images that were less strange than this one."""
    path: str | None = None
    """Where the image came from, when it came from a file."""
    labels: list[tuple[str, float]] | None = None
    """Of a model whose images may have several labels or none: those whose score reaches the label's threshold, best first."""
    set: list[str] | None = None
    """Classes among which the true one is as often as promised, nine times in ten unless asked otherwise, likeliest first (split
    conformal prediction); None where the run has no such threshold."""

    def to_dict(self) -> dict[str, Any]:
        """The form of `--json` and of the server: `top`, and `labels` where there may be several, as [{"label", "score"}]."""
        found = {**asdict(self), "top": _listed(self.top)}
        if self.labels is not None:
            found["labels"] = _listed(self.labels)
        return {name: value for name, value in found.items() if value is not None or name not in ("labels", "set")}


def _listed(scores: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    return [{"label": label, "score": score} for label, score in scores]


@dataclass(frozen=True)
class Strangeness:
    """Mahalanobis distance to the nearest class mean in feature space (Lee et al. 2018, arXiv:1807.03888), read off
    against the distances of the validation images, so that it says how unusual an image is and not merely how far.
    """

    means: np.ndarray
    """float32 (k, r): class means of the training features, whitened."""
    whitening: np.ndarray
    """float32 (d, r): maps centred features to a space where the within-class covariance is the identity."""
    centre: np.ndarray
    """float32 (d,): the mean feature."""
    reference: np.ndarray
    """float32 (m,), ascending: distances of the validation images."""
    beside: Beside | None = None
    """What else makes an image strange; None for the distance alone."""

    def whitened(self, features: np.ndarray) -> np.ndarray:
        """features (b, d) -> float32 (b, r), where the spread within classes is 1 in every direction."""
        return (features.astype(np.float32) - self.centre) @ self.whitening

    def distances(self, features: np.ndarray) -> np.ndarray:
        """features (b, d) -> distance to the nearest class mean (b,)."""
        squared = squared_distances(self.whitened(features), self.means)
        return np.sqrt(np.maximum(squared.min(axis=1), 0))

    def strange(self, features: np.ndarray, logits: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """features (b, d), logits (b, k) and `inputs.looks` (b, s) of images -> strangeness (b,) in [0, 1]."""
        if self.beside is None:
            return self.score(features)
        return self.beside.score(self.distances(features), seen, energies(logits))

    def score(self, features: np.ndarray) -> np.ndarray:
        """features (b, d) -> strangeness (b,) in [0, 1] by the distance alone; 1 is stranger than every validation image.

        Distances closer than `SAME_DISTANCE` count as equal: the last digits differ between engines and batch sizes, and
        a validation image must not become stranger than itself by them.
        """
        distances = self.distances(features) * (1 - SAME_DISTANCE)
        return np.searchsorted(self.reference, distances, side="left") / len(self.reference)

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything but `beside`, by name."""
        return {name: getattr(self, name) for name in _ARRAYS}

    def save(self, path: Path) -> None:
        named: dict[str, Any] = {**self.arrays(), **(self.beside.arrays() if self.beside else {})}
        with path.open("wb") as file:
            np.savez(file, **named)

    @classmethod
    def load(cls, path: Path) -> Strangeness:
        """What `save` wrote, also that of versions that knew the distance alone."""
        with np.load(path, allow_pickle=False) as arrays:
            beside = Beside.of(arrays) if "scales" in arrays else None
            return replace(cls.of(arrays), beside=beside)

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray], prefix: str = "") -> Strangeness:
        """From arrays by name, each name after a prefix."""
        means, whitening, centre, reference = (arrays[f"{prefix}{name}"] for name in _ARRAYS)
        return cls(means, whitening, centre, reference)


@dataclass(frozen=True)
class Beside:
    """How an image looks and how unsure the logits are, beside the distance of its features: whichever of the three is
    most unusual counts. Each is measured in deviations of the validation images from their mean, distances as logarithms.
    """

    looks: Strangeness
    """Of `inputs.looks`, all images one cloud."""
    scales: np.ndarray
    """float64 (3, 2): mean and deviation over the validation images of feature distance, distance of looks, energy."""
    reference: np.ndarray
    """float32 (m,), ascending: the largest of the three for each validation image."""

    def largest(self, distances: np.ndarray, seen: np.ndarray, energy: np.ndarray) -> np.ndarray:
        """distances (b,), `inputs.looks` (b, s) and energy (b,) -> the most unusual of the three (b,), in deviations."""
        voices = np.stack([log_distance(distances), log_distance(self.looks.distances(seen)), energy], axis=1)
        return ((voices - self.scales[:, 0]) / self.scales[:, 1]).max(axis=1)

    def score(self, distances: np.ndarray, seen: np.ndarray, energy: np.ndarray) -> np.ndarray:
        """The same -> strangeness (b,) in [0, 1]: the share of validation images that were less strange. Differences of
        `SAME_DEVIATION` count as none, as those of `SAME_DISTANCE` do."""
        found = self.largest(distances, seen, energy) - SAME_DEVIATION
        return np.searchsorted(self.reference, found, side="left") / len(self.reference)

    def arrays(self) -> dict[str, np.ndarray]:
        own = {f"looks_{name}": array for name, array in self.looks.arrays().items()}
        return {**own, "scales": self.scales, "combined": self.reference}

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> Beside:
        return cls(Strangeness.of(arrays, "looks_"), arrays["scales"], arrays["combined"])


def log_distance(distances: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(distances, 1e-6))


def energies(logits: np.ndarray) -> np.ndarray:
    """Energy of logits (b, k) -> (b,): large where no class has evidence (Liu et al. 2020, arXiv:2010.03759, eq. 4)."""
    largest = logits.max(axis=1)
    return -(largest + np.log(np.exp(logits - largest[:, None]).sum(axis=1))).astype(np.float64)


def squared_distances(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """points (b, r), others (n, r) -> squared Euclidean distances (b, n); a rounding error below 0 at the least."""
    return (points**2).sum(1)[:, None] - 2 * points @ others.T + (others**2).sum(1)


def probabilities(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Softmax of logits (b, k) divided by the temperature, in float64; each row sums to 1."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    exponentials = np.exp(scaled)
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def _conformal_set(probability: np.ndarray, classes: Sequence[str], least: float) -> list[str]:
    ranked = np.argsort(-probability, kind="stable")
    return [str(classes[i]) for place, i in enumerate(ranked) if place == 0 or probability[i] >= least]


def sigmoids(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Probability (b, k) of each label by itself, float64: the sigmoid of logits (b, k) divided by the temperature."""
    scaled = logits.astype(np.float64) / temperature
    return np.where(scaled >= 0, 1.0, np.exp(np.minimum(scaled, 0))) / (1 + np.exp(-np.abs(scaled)))


def decide(
    scores: np.ndarray,
    strangeness: np.ndarray,
    classes: Sequence[str],
    abstain_below: float,
    *,
    top: int = 5,
    paths: Sequence[str | None] | None = None,
    thresholds: np.ndarray | None = None,
    point: tuple[int, float] | None = None,
    set_from: float | None = None,
) -> list[Prediction]:
    """Calibrated probabilities (b, k) and strangeness (b,) to one `Prediction` an image.

    thresholds: (k,) for images that may have several labels; None where each has one. point: a class and the score from which
    an image is called so, whatever the others score; below it the likeliest other class is the label, and an unsure score is no
    reason to abstain. set_from: the score from which a class is in the conformal set.
    """
    answers = []
    for row, (probability, strange) in enumerate(zip(scores, strangeness, strict=True)):
        order = [int(index) for index in np.argsort(-probability, kind="stable")[:top]]
        likeliest = order[0]
        if point is not None and (probability[point[0]] >= point[1]) != (likeliest == point[0]):
            likeliest = point[0] if likeliest != point[0] else int(np.argsort(-probability, kind="stable")[1])
        best = float(probability[likeliest])
        unsure = point is None and best < abstain_below
        labels = None
        if thresholds is not None:
            ranked = np.argsort(-probability, kind="stable")
            labels = [(str(classes[i]), float(probability[i])) for i in ranked if probability[i] >= thresholds[i]]
        answers.append(
            Prediction(
                label=classes[likeliest],
                score=best,
                top=[(classes[index], float(probability[index])) for index in order],
                abstain=bool(unsure or strange >= 1.0),
                ood=float(strange),
                path=paths[row] if paths else None,
                labels=labels,
                set=None if set_from is None else _conformal_set(probability, classes, set_from),
            )
        )
    return answers
