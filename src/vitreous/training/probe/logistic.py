"""Multinomial logistic regression to its optimum, by L-BFGS whose first guess of the curvature is the true diagonal.

In principal components (`training.probe.components`) the Hessian is near to its diagonal, so that a fraction of the usual
iterations is enough; products are fp32, sums over images fp64, and a step along a line costs no product at all.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from vitreous.training.probe.components import Components

MEMORY = 12
"""Pairs of steps and changes of the gradient that L-BFGS remembers (Liu and Nocedal 1989)."""
RENEWED_EVERY = 12
"""Iterations between computations of the diagonal, each as dear as a gradient and a half."""
CHUNK = 4096
EXACT_NUMBERS = 2_000_000
"""Features of all images together up to which everything is fp64: few images are soon told apart without error, and then a
probability's distance from 1, which is all that is left of the loss, has few digits in fp32."""


@dataclass(frozen=True)
class Logistic:
    """A fitted classifier of components."""

    weight: Tensor
    """float64 (k, r)."""
    bias: Tensor
    """float64 (k,)."""
    loss: float
    """What was minimised: weighted mean cross-entropy plus strength / 2 |weight|^2."""
    iterations: int
    converged: bool


def fit_logistic(
    found: Components,
    labels: Tensor,
    num_classes: int,
    strength: float,
    *,
    start: tuple[Tensor, Tensor] | None = None,
    prior: Tensor | None = None,
    tolerance: float = 1e-7,
    most: int = 500,
) -> Logistic:
    """Minimise mean_i w_i CE(W x_i + b + prior, label_i) + strength / 2 |W|^2; the bias b is not penalised.

    For three or more classes and no prior that is scikit-learn's `LogisticRegression` with C = 1 / (strength n).
    labels: int64 (n,). start: weight (k, r) and bias (k,) to begin from. prior: (k,), added to the logits in fitting only
    (arXiv:2007.07314, eq. 10). tolerance: relative gain of an iteration, and predicted to remain, that ends the search.
    """
    problem = _Problem(found, labels, num_classes, strength, prior)
    r = found.scores.shape[1]
    point = torch.zeros(num_classes, r + 1, dtype=torch.float64)
    if start is not None:
        point[:, :r], point[:, r] = start
    logits = problem.logits(point)
    value, slopes = problem.value(point, logits)
    gradient = problem.gradient(point, slopes)
    pairs: deque[tuple[Tensor, Tensor, float]] = deque(maxlen=MEMORY)
    inverse, small, iteration = problem.inverse_diagonal(slopes), 0, 0
    for iteration in range(1, most + 1):
        if iteration % RENEWED_EVERY == 0:
            inverse = problem.inverse_diagonal(slopes)
        direction = -_two_loops(gradient, inverse, pairs)
        expected = -float((gradient * direction).sum())
        if expected <= 0:  # rounding alone is left of the pairs
            pairs.clear()
            direction = -inverse * gradient
            expected = -float((gradient * direction).sum())
        change = problem.logits(direction)
        before = value
        length, value, slopes = _search(problem, point, logits, direction, change, value, -expected)
        if length == 0.0:
            return problem.result(point, iteration, True)
        step = length * direction
        point = point + step
        # What adds up in fp32 is computed anew now and then.
        logits = problem.logits(point) if iteration % 20 == 0 else logits.add_(change, alpha=length)
        old, gradient = gradient, problem.gradient(point, slopes)
        turn = gradient - old
        curvature = float((step * turn).sum())
        if curvature > 1e-12 * float(step.norm() * turn.norm()):
            pairs.append((step, turn, curvature))
        small = small + 1 if max(before - value, 0.5 * expected) <= tolerance * value else 0
        if small >= 2:
            return problem.result(point, iteration, True)
    return problem.result(point, iteration, False)


class _Problem:
    """Value, gradient and curvature. A point is (k, r + 1): the weights, and the bias as its last column.

    Classes come first in what is kept for every image, (k, n): sums over a handful of classes then run along the images,
    many times as fast as along the classes.
    """

    def __init__(
        self, found: Components, labels: Tensor, num_classes: int, strength: float, prior: Tensor | None
    ) -> None:
        self.kind = torch.float64 if found.scores.numel() <= EXACT_NUMBERS else torch.float32
        self.scores, self.strength, self.num_classes = found.scores.to(self.kind), strength, num_classes
        self.shares = (found.weights / len(labels)).to(self.kind)
        self.labels = labels[None]
        self.prior = None if prior is None else prior.to(self.kind)[:, None]

    def logits(self, point: Tensor) -> Tensor:
        """(k, n), without the prior."""
        plain = point.to(self.kind)
        return torch.addmm(plain[:, -1:], plain[:, :-1], self.scores.T)

    def value(self, point: Tensor, logits: Tensor) -> tuple[float, Tensor]:
        """The loss, and its derivative (k, n) with respect to the logits."""
        shifted = logits if self.prior is None else logits + self.prior
        shifted = shifted - shifted.amax(dim=0)
        own = shifted.gather(0, self.labels)[0]
        slopes = shifted.exp_()
        total = slopes.sum(dim=0)
        loss = float(((total.log() - own) * self.shares).sum(dtype=torch.float64))
        slopes *= self.shares / total
        slopes.scatter_add_(0, self.labels, -self.shares[None])
        return loss + 0.5 * self.strength * float(point[:, :-1].square().sum()), slopes

    def gradient(self, point: Tensor, slopes: Tensor) -> Tensor:
        """(k, r + 1)."""
        gradient = torch.empty_like(point)
        gradient[:, :-1] = (slopes @ self.scores).double() + self.strength * point[:, :-1]
        gradient[:, -1] = slopes.sum(dim=1, dtype=torch.float64)
        return gradient

    def inverse_diagonal(self, slopes: Tensor) -> Tensor:
        """One over the diagonal of the Hessian, (k, r + 1)."""
        chances = slopes.scatter_add(0, self.labels, self.shares[None]) / self.shares.clamp(min=1e-30)
        bends = chances * (1 - chances) * self.shares
        diagonal = torch.zeros(self.num_classes, self.scores.shape[1] + 1, dtype=torch.float64)
        for start in range(0, len(self.scores), CHUNK):
            part = slice(start, start + CHUNK)
            diagonal[:, :-1] += (bends[:, part] @ self.scores[part].square()).double()
        diagonal[:, :-1] += self.strength
        diagonal[:, -1] = bends.sum(dim=1, dtype=torch.float64)
        # Classes that are certain everywhere have no curvature left; a step there must not become infinite.
        return 1 / diagonal.clamp(min=1e-8)

    def result(self, point: Tensor, iterations: int, converged: bool) -> Logistic:
        """The loss once more with fp64 logarithms: in fp32 those of a probability near 1 have few digits."""
        loss, logits = 0.0, self.logits(point)
        for start in range(0, logits.shape[1], CHUNK):
            part = logits[:, start : start + CHUNK].double()
            likely = (part if self.prior is None else part + self.prior).log_softmax(dim=0)
            own = likely.gather(0, self.labels[:, start : start + CHUNK])[0]
            loss -= float(own @ self.shares[start : start + CHUNK].double())
        loss += 0.5 * self.strength * float(point[:, :-1].square().sum())
        return Logistic(point[:, :-1], point[:, -1], loss, iterations, converged)


def _two_loops(gradient: Tensor, inverse: Tensor, pairs: deque[tuple[Tensor, Tensor, float]]) -> Tensor:
    """The inverse Hessian that the remembered pairs speak of, times the gradient (Nocedal 1980)."""
    q = gradient.clone()
    taken = []
    for step, turn, curvature in reversed(pairs):
        share = float((step * q).sum()) / curvature
        taken.append(share)
        q -= share * turn
    q *= inverse
    for (step, turn, curvature), share in zip(pairs, reversed(taken), strict=True):
        q += (share - float((turn * q).sum()) / curvature) * step
    return q


def _search(
    problem: _Problem,
    point: Tensor,
    logits: Tensor,
    direction: Tensor,
    change: Tensor,
    value: float,
    slope: float,
) -> tuple[float, float, Tensor]:
    """How far to go along a direction, the loss there, and its derivative by the logits; 0 where nothing is gained.

    The whole step where it meets the conditions of Wolfe, else by regula falsi on the derivative along the line, which is
    convex. Only elementwise work: the logits along the line are known.
    """
    low, high, at_low, at_high = 0.0, float("inf"), slope, 0.0
    length = 1.0
    reach = problem.strength
    for _ in range(25):
        there = point + length * direction
        found, slopes = problem.value(there, torch.add(logits, change, alpha=length))
        along = float((slopes * change).sum(dtype=torch.float64))
        along += reach * float((there[:, :-1] * direction[:, :-1]).sum())
        if found <= value + 1e-4 * length * slope and abs(along) <= 0.5 * abs(slope):
            return length, found, slopes
        if along < 0 and found <= value:
            low, at_low = length, along
        else:
            high, at_high = length, along
        if high == float("inf"):
            length = min(4 * length, length * at_low / (at_low - slope) if at_low > 0.9 * slope else 4 * length)
            length = max(length, 1.5 * low)
        else:
            cut = low + (high - low) * at_low / (at_low - at_high) if at_high > 0 else 0.5 * (low + high)
            length = min(max(cut, low + 0.1 * (high - low)), high - 0.1 * (high - low))
        if high - low < 1e-10:
            break
    there = point + low * direction
    found, slopes = problem.value(there, torch.add(logits, change, alpha=low))
    return (low, found, slopes) if found < value else (0.0, value, slopes)
