"""The linear probe: logistic regression on frozen features, its strength chosen on the validation part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from vitreous.training.probe.closed_form import ClosedForm, closed_form
from vitreous.training.probe.components import components
from vitreous.training.probe.logistic import Logistic, fit_logistic

STRENGTHS = tuple(10 ** (-exponent / 2) for exponent in range(13))
"""Penalties of the path, 1 to 1e-6, strongest first: each fit starts from the one before."""
PATIENCE = 3
"""Weaker penalties that are still tried after the best one."""
ROUGH, FINE = 1e-6, 1e-8
"""Relative gain that ends the fits of the path, and the last one at the strength that was chosen."""


@dataclass(frozen=True)
class Step:
    """One strength of the path."""

    strength: float
    fitted: Logistic
    logits: Tensor
    """float32 (m, k), of the validation images."""
    val_loss: float


@dataclass(frozen=True)
class Probe:
    """A linear classifier of features as the model gives them."""

    weight: Tensor
    """float64 (k, d)."""
    bias: Tensor
    """float64 (k,)."""
    strength: float
    loss: float
    """What was minimised, at its optimum: see `fit_logistic`."""
    iterations: int
    """Of all fits together."""
    path: tuple[Step, ...]
    ridge: ClosedForm
    """What the path began from."""


def fit_probe(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    val_features: Tensor,
    val_losses: Callable[[Tensor], float],
    *,
    weights: Tensor | None = None,
    prior: Tensor | None = None,
    record: Callable[[Step], None] | None = None,
) -> Probe:
    """Fit features (n, d) to class numbers (n,) for weaker and weaker penalties until validation gets worse.

    val_losses: from the logits (m, k) of `val_features` (m, d) to the number by which a strength is chosen, small is good.
    weights: what each image counts (n,). prior: logit adjustment (k,), in fitting only. record: told of each strength.

    The first fit begins from ridge regression in closed form. Raises ValueError for features that are not finite.
    """
    found = components(features, weights)
    ridge = closed_form(found, labels, num_classes, prior)
    asked = found.turn(val_features)
    start, path, spent = (ridge.weight, ridge.bias), [], 0
    best: Step | None = None
    since = 0
    for strength in STRENGTHS:
        fitted = fit_logistic(found, labels, num_classes, strength, start=start, prior=prior, tolerance=ROUGH)
        logits = asked @ fitted.weight.float().T + fitted.bias.float()
        step = Step(strength, fitted, logits, val_losses(logits))
        path.append(step)
        spent += fitted.iterations
        start = (fitted.weight, fitted.bias)
        if record is not None:
            record(step)
        best, since = (step, 0) if best is None or step.val_loss < best.val_loss else (best, since + 1)
        if since >= PATIENCE:
            break
    assert best is not None
    start = (best.fitted.weight, best.fitted.bias)
    last = fit_logistic(found, labels, num_classes, best.strength, start=start, prior=prior, tolerance=FINE)
    weight, bias = found.unfold(last.weight, last.bias)
    return Probe(weight, bias, best.strength, last.loss, spent + last.iterations, tuple(path), ridge)
