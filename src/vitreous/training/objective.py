"""What a batch is turned into: a training method is a function from model and batch to a number to make small.

The loop knows nothing else of a method, so that another one (distillation, masked autoencoding) is a function in a file of
its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor, nn

from vitreous.training.losses import Loss

Objective = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""(model, images (b, c, h, w), targets (b, k)) -> scalar. Called under autocast, in training mode."""


class SharedObjective(ABC):
    """An objective of several processes: each computes the loss of its own images, and the backward pass leaves the mean
    gradient of all of them."""

    @abstractmethod
    def __call__(self, model: nn.Module, images: Tensor, targets: Tensor) -> Tensor: ...

    @abstractmethod
    def exchange(self, now: bool) -> None:
        """Whether the coming backward pass ends with the exchange of the gradients that have gathered."""


def classify(loss: Loss) -> Objective:
    """The plain method: logits of the images against their targets."""
    return lambda model, images, targets: loss(model(images), targets)
