"""The head of a model, of ours or of a convolutional one from timm: where it is, and putting a linear classifier there."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vitreous.errors import UsageError
from vitreous.models.layers.pool import PairedHead


def head_of(model: nn.Module) -> nn.Module:
    """The module that turns features (b, f) into logits (b, k)."""
    body = getattr(model, "body", None)
    if body is not None and hasattr(body, "get_classifier"):  # `ConvNet`, whose file takes seconds to import
        return body.get_classifier()  # type: ignore[operator]
    head = model.head
    assert isinstance(head, nn.Module)
    return head


def check_linear(model: nn.Module, name: str, what: str) -> None:
    """Raise UsageError where the head is no linear classifier of the features, so that `what` cannot fill it."""
    if not isinstance(head_of(model), nn.Linear | PairedHead):
        raise UsageError(
            f"{what} fits a linear classifier, and the head of {name!r} is {type(head_of(model)).__name__}.",
            "Leave out --net.head-hidden, or train with --method full --head-init zero.",
        )


@torch.no_grad()
def put_linear(model: nn.Module, weight: Tensor, bias: Tensor) -> None:
    """Make the head answer features @ weight.T + bias: weight (k, f), bias (k,). The head must pass `check_linear`.

    Two classifiers whose mean answers, as distilled models have, share the work: each gives twice its half of the sum.
    """
    head = head_of(model)
    if isinstance(head, PairedHead):
        for part, half in zip((head.label, head.teacher), weight.chunk(2, dim=1), strict=True):
            part.weight.copy_(2 * half)
            part.bias.copy_(bias)
        return
    assert isinstance(head, nn.Linear)
    head.weight.copy_(weight)
    if head.bias is None:
        raise UsageError("The head has no bias, which a fitted classifier needs.", "Choose another --model.")
    head.bias.copy_(bias)
