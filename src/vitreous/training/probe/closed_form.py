"""A head in closed form: ridge regression on class indicators, scaled so that its softmax says what is likely."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vitreous.training.probe.components import Components
from vitreous.training.probe.ridge import STRENGTHS, left_out, ridge_path

SCALES = (0.1, 1000.0)
"""Least and greatest factor on indicators in [0, 1]."""


@dataclass(frozen=True)
class ClosedForm:
    """A classifier of components that no iteration was needed for."""

    weight: Tensor
    """float64 (k, r)."""
    bias: Tensor
    """float64 (k,)."""
    strength: float
    """Of the ridge regression with the least leave-one-out error."""
    accuracy: float
    """Weighted share of the images that a fit without them gets right."""


def closed_form(
    found: Components, labels: Tensor, num_classes: int, prior: Tensor | None = None, *, noise: float = 0.0
) -> ClosedForm:
    """Fit labels (n,), with strength and scale by leave-one-out, so that no other images are needed.

    The scale is the one at which softmax(scale f + prior) has the least cross-entropy, f being what fits without the image
    say of it. prior: (k,), added in fitting only. noise: least strength, for a head that shall bear random changes of its
    features: those of variance `noise` cost a linear fit what a penalty of that strength does (Bishop 1995, "Training with
    noise is equivalent to Tikhonov regularization"), and dropout with chance p is noise of p / (1 - p) where features are
    scaled to mean square 1 (Wager et al. 2013, arXiv:1307.1493).
    """
    targets = F.one_hot(labels, num_classes).float()
    path = ridge_path(found, targets, tuple(each for each in STRENGTHS if each > noise) or (noise,))
    said = left_out(path, found, targets, path.best)
    shares = found.weights / len(labels)
    shift = torch.zeros(num_classes) if prior is None else prior.float()

    def loss(scale: float) -> float:
        each = F.cross_entropy(scale * said + shift, labels, reduction="none")
        return float(each.double() @ shares)

    scale = _least(loss, *SCALES)
    right = ((scale * said).argmax(dim=1) == labels).double()
    return ClosedForm(
        scale * path.weights[path.best], scale * path.bias, path.strengths[path.best], float(right @ shares)
    )


def _least(value: Callable[[float], float], low: float, high: float) -> float:
    """Where a convex function is least between two positive numbers, to a percent, by golden sections of the logarithm."""
    a, b = math.log(low), math.log(high)
    ratio = (math.sqrt(5) - 1) / 2
    x, y = b - ratio * (b - a), a + ratio * (b - a)
    at_x, at_y = value(math.exp(x)), value(math.exp(y))
    while b - a > 0.01:
        if at_x < at_y:
            b, y, at_y = y, x, at_x
            x = b - ratio * (b - a)
            at_x = value(math.exp(x))
        else:
            a, x, at_x = x, y, at_y
            y = a + ratio * (b - a)
            at_y = value(math.exp(y))
    return math.exp((a + b) / 2)
