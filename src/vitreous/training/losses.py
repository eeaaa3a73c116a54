"""Losses for soft targets, with the corrections for unequal classes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vitreous.config.train import Balance, LossConfig

Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits (b, k), targets (b, k), each row a distribution times the weight of its image) -> scalar."""


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over the batch of -sum_k target_k log softmax(logits)_k, in fp32 whatever the logits are in."""
    return -(targets * logits.float().log_softmax(dim=1)).sum(dim=1).mean()


def make_loss(config: LossConfig, balance: Balance, class_counts: Tensor) -> Loss:
    """The training loss for one of three answers to unequal classes.

    none: plain cross-entropy. weights: each class weighs in inversely to its count, mean weight 1 over the images.
    logit-adjust: log class frequencies are added to the logits in training only (Menon et al. 2021, arXiv:2007.07314,
    eq. 10), which aims at balanced accuracy without inflating gradients of rare classes.

    class_counts: images of each class in the training part (k,).
    """
    counts = class_counts.double().clamp(min=1)
    if balance == "weights":
        weights = (counts.sum() / (len(counts) * counts)).float()
        return lambda logits, targets: (
            -((targets * weights.to(logits.device)) * logits.float().log_softmax(dim=1)).sum(dim=1).mean()
        )
    if balance == "logit-adjust":
        prior = torch.log(counts / counts.sum()).float()
        return lambda logits, targets: cross_entropy(logits.float() + prior.to(logits.device), targets)
    return cross_entropy
