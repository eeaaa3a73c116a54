"""Features as a linear classifier should see them: standardised, and turned to their principal components.

A turn changes neither the predictions of a linear model nor the norm of its weights, so that every penalised problem keeps
its solution. But with the components uncorrelated, ridge regression is one division for each strength, and the curvature of
logistic regression is near to a diagonal. Where there are fewer images than features, the components are as many as images,
and the rest of the weights, which is zero in the solution, is never computed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SMALLEST = 1e-12
"""Variance of a component, as a share of the largest, below which it is rounding and is left out."""
EXACT_WORK = 1e9
"""n d^2 up to which the covariance is summed in fp64; beyond, in fp32 for `CHUNK` images at a time and in fp64 over those,
which is twice as fast and off by some 1e-7 of the largest variance."""
CHUNK = 1024


@dataclass(frozen=True)
class Components:
    """Training features in their principal components."""

    scores: Tensor
    """float32 (n, r): each image in components; their mean, weighted, is 0."""
    variances: Tensor
    """float64 (r,), weighted, smallest first."""
    axes: Tensor
    """float64 (d, r): orthonormal columns, from standardised features to components."""
    mean: Tensor
    """float64 (d,), weighted."""
    deviation: Tensor
    """float64 (d,), weighted: what features are divided by. 1 for those that are constant."""
    weights: Tensor
    """float64 (n,): what each image counts; mean 1."""

    def standardise(self, features: Tensor) -> Tensor:
        """features (n, d) -> float32 (n, d), by the mean and deviation of the training images."""
        return ((features.double() - self.mean) / self.deviation).float()

    def turn(self, features: Tensor) -> Tensor:
        """features (n, d) -> float32 (n, r), the components of any images."""
        return self.standardise(features) @ self.axes.float()

    def unfold(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """A classifier of components, weight (k, r) and bias (k,), as one of the features themselves: float64 (k, d), (k,)."""
        plain = (weight.double() @ self.axes.T) / self.deviation
        return plain, bias.double() - plain @ self.mean


def components(features: Tensor, weights: Tensor | None = None, *, centred_scale: bool = True) -> Components:
    """The principal components of features (n, d), each image counting as `weights` (n,) say; all alike when None.

    centred_scale: divide by the standard deviation; otherwise by the root of the mean square, in whose units noise that
    grows with a feature, as dropout's does, is alike in all.

    Raises ValueError for features that are not finite, and for weights that are negative or all 0.
    """
    n, d = features.shape
    if not torch.isfinite(features).all():
        raise ValueError("the features hold values that are not finite")
    weights = torch.ones(n, dtype=torch.float64) if weights is None else weights.double()
    if not (torch.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
        raise ValueError("weights must be finite, none below 0, and not all 0")
    weights = weights / weights.mean()
    mean, deviation = _moments(features, weights)
    if not centred_scale:
        deviation = (mean.square() + deviation.square()).sqrt()
    if n * d * d > EXACT_WORK:
        plain = (features - mean.float()) / deviation.float()
        variances, axes = torch.linalg.eigh(_covariance(plain, weights))
        return Components(plain @ axes.float(), variances.clamp(min=0), axes, mean, deviation, weights)
    exact = (features.double() - mean) / deviation
    rooted = (weights / n).sqrt()[:, None] * exact
    if n < d:  # the products of images have the same variances, and there are fewer of them
        variances, outer = torch.linalg.eigh(rooted @ rooted.T)
        kept = variances > SMALLEST * variances[-1]
        variances, axes = variances[kept], rooted.T @ outer[:, kept]
        axes = axes / axes.norm(dim=0)
    else:
        variances, axes = torch.linalg.eigh(rooted.T @ rooted)
    return Components((exact @ axes).float(), variances.clamp(min=0), axes, mean, deviation, weights)


def _covariance(plain: Tensor, weights: Tensor) -> Tensor:
    """Of standardised features (n, d): float64 (d, d)."""
    covariance = torch.zeros(plain.shape[1], plain.shape[1], dtype=torch.float64)
    rooted = (weights / len(plain)).sqrt().float()[:, None]
    for start in range(0, len(plain), CHUNK):
        part = plain[start : start + CHUNK] * rooted[start : start + CHUNK]
        covariance += part.T @ part
    return covariance


def _moments(features: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean and standard deviation (d,) in fp64, from differences to the first image so that nothing cancels."""
    n = len(features)
    first = features[0].double()
    total, squares = torch.zeros_like(first), torch.zeros_like(first)
    for start in range(0, n, 8 * CHUNK):
        part = features[start : start + 8 * CHUNK].double() - first
        each = weights[start : start + 8 * CHUNK]
        total += each @ part
        squares += each @ part.square()
    mean = total / n
    deviation = (squares / n - mean.square()).clamp(min=0).sqrt()
    constant = deviation <= 1e-6 * (mean + first).abs() + 1e-30
    return mean + first, torch.where(constant, torch.ones_like(deviation), deviation)
