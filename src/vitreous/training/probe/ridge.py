"""Ridge regression on class indicators for many strengths at once, in closed form (Hoerl and Kennard 1970)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vitreous.training.probe.components import Components

STRENGTHS = tuple(10 ** (exponent / 5) for exponent in range(-34, 11))
"""45 penalties, 1.6e-7 to 100 in units of the mean variance of a standardised feature: from none to everything."""
AT_ONCE = 1 << 24
"""Predictions, of all strengths together, that are held at a time."""
LEAST_REST = 1e-4
"""Of 1 - h_ii. An image that alone decides its own prediction says nothing of others; the quotient stays finite."""


@dataclass(frozen=True)
class RidgePath:
    """One classifier of components for each strength. Strength s is scikit-learn's `alpha` = s n."""

    strengths: tuple[float, ...]
    weights: Tensor
    """float64 (strengths, k, r)."""
    bias: Tensor
    """float64 (k,): the same for all, since components have mean 0."""
    errors: Tensor
    """float64 (strengths,): weighted mean of the squared error for each image under a fit without it."""

    @property
    def best(self) -> int:
        """Index of the least leave-one-out error."""
        return int(self.errors.argmin())


def ridge_path(found: Components, targets: Tensor, strengths: tuple[float, ...] = STRENGTHS) -> RidgePath:
    """Minimise mean_i w_i |t_i - b - W x_i|^2 + s |W|^2 for every strength s, and judge each by leaving one image out.

    targets: (n, k). The fit without image i needs no fitting: its error is the error with it over 1 - h_ii, the share that
    the image has in its own prediction (Allen 1974, PRESS).
    """
    n, k = targets.shape
    penalties = torch.tensor(strengths, dtype=torch.float64)
    shares = found.weights / n
    bias = shares @ targets.double()
    rows = max(1, AT_ONCE // (len(strengths) * k))
    products = torch.zeros(found.scores.shape[1], k, dtype=torch.float64)
    for start in range(0, n, rows):
        part = slice(start, start + rows)
        weighted = (targets[part].double() - bias) * shares[part, None]
        products += (found.scores[part].T @ weighted.float()).double()
    weights = torch.einsum("rk,rs->skr", products, 1 / (found.variances[:, None] + penalties))
    path = RidgePath(strengths, weights, bias, torch.zeros(len(strengths), dtype=torch.float64))
    for start in range(0, n, rows):
        part = slice(start, start + rows)
        residuals = _left_out(path, found, targets, part, slice(None)).double().square().mean(dim=2)
        path.errors.add_((residuals * shares[part, None]).sum(dim=0))
    return path


def left_out(path: RidgePath, found: Components, targets: Tensor, index: int) -> Tensor:
    """What the fits of one strength that leave an image out say of it, for every image: float32 (n, k)."""
    whole = _left_out(path, found, targets, slice(None), slice(index, index + 1))
    return targets.float() - whole[:, 0]


def _left_out(path: RidgePath, found: Components, targets: Tensor, images: slice, strengths: slice) -> Tensor:
    """The errors of such fits: float32 (images, strengths, k)."""
    penalties = torch.tensor(path.strengths[strengths], dtype=torch.float64)
    inverse = (1 / (found.variances[:, None] + penalties)).float()
    scores, share = found.scores[images], (found.weights[images, None] / len(found.weights)).float()
    weights = path.weights[strengths]
    fitted = (scores @ weights.flatten(0, 1).float().T).unflatten(1, tuple(weights.shape[:2])) + path.bias.float()
    leverage = share * (scores.square() @ inverse + 1)
    return (targets[images, None].float() - fitted) / (1 - leverage).clamp(min=LEAST_REST)[:, :, None]
