"""Losses for soft targets, with the corrections for unequal classes.

Shapes: b images, k classes. A row of the targets is a distribution over the classes times the weight of its image, as
`data.batches` makes it; every loss here is linear in it, so that smoothed labels, mixtures of images and weights of images
mean the same in each: the loss of a mixture is the mixture of the losses, and an image of weight 2 counts as two images.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from vitreous.config.train import Balance, LossConfig
from vitreous.errors import UsageError

Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits (b, k), targets (b, k), each row a distribution times the weight of its image) -> scalar."""

SEVERAL_LABELS = ("bce", "asymmetric")
"""Losses that take each class by itself, and so images with several labels or none."""
LEAST = 1e-8
"""Below this a probability that is raised to a power counts as this much: powers below 1 have no slope at 0."""


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over the batch of -sum_k target_k log softmax(logits)_k, in fp32 whatever the logits are in."""
    return -(targets * logits.float().log_softmax(dim=1)).sum(dim=1).mean()


def focal(logits: Tensor, targets: Tensor, *, gamma: float) -> Tensor:
    """Mean over the batch of -sum_k target_k (1 - p_k)^gamma log p_k with p = softmax(logits) (Lin et al. 2017,
    arXiv:1708.02002, section 3.2, for classes that exclude each other). gamma 0 is cross-entropy.
    """
    log_p = logits.float().log_softmax(dim=1)
    missing = (-torch.expm1(log_p)).clamp(min=LEAST)
    return -(targets * missing**gamma * log_p).sum(dim=1).mean()


def bce(logits: Tensor, targets: Tensor, absent: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of each class by itself, summed over the classes, mean over the batch (arXiv:2110.00476,
    section 4; DeiT III, arXiv:2204.07118).

    Summed, not averaged as in the papers' code, so that it is of cross-entropy's size whatever the number of classes and
    clipping means the same; AdamW, LAMB and Muon do not feel the factor. Soft targets stay what they are: none is raised to 1.
    absent: how much each class counts as not there (b, k); what the row has left where None.
    """
    logits = logits.float()
    absent = targets.sum(dim=1, keepdim=True) - targets if absent is None else absent
    return -(targets * F.logsigmoid(logits) + absent * F.logsigmoid(-logits)).sum(dim=1).mean()


def asymmetric(
    logits: Tensor,
    targets: Tensor,
    absent: Tensor | None = None,
    *,
    gamma_positive: float,
    gamma_negative: float,
    margin: float,
) -> Tensor:
    """Asymmetric loss (Ridnik et al. 2021, arXiv:2009.14119, eq. 7), summed over the classes, mean over the batch.

    With p = sigmoid(logits) and p_m = max(p - margin, 0), a class that is there costs -(1 - p)^gamma_positive log p, one
    that is not -p_m^gamma_negative log(1 - p_m). A soft target costs its share of both. absent: as in `bce`.
    """
    logits = logits.float()
    absent = targets.sum(dim=1, keepdim=True) - targets if absent is None else absent
    there, not_there = F.logsigmoid(logits), F.logsigmoid(-logits)
    if margin:
        # 1 - p_m is at least the margin, so that its logarithm is safe.
        not_there = (not_there.exp() + margin).clamp(max=1.0).log()
    if gamma_positive:
        there = there * torch.sigmoid(-logits).clamp(min=LEAST) ** gamma_positive
    if gamma_negative:
        not_there = not_there * (torch.sigmoid(logits) - margin).clamp(min=LEAST) ** gamma_negative
    return -(targets * there + absent * not_there).sum(dim=1).mean()


def class_weights(class_counts: Tensor) -> Tensor:
    """float32 (k,): inverse to the images of each class, mean 1 over the images; a class without any counts as having one."""
    counts = class_counts.double().clamp(min=1)
    return (counts.sum() / (len(counts) * counts)).float()


def make_loss(
    config: LossConfig,
    balance: Balance,
    class_counts: Tensor,
    *,
    several_labels: bool = False,
    num_images: int | None = None,
) -> Loss:
    """The training loss for one of the answers to unequal classes.

    none, and sampler, which acts on the batches: the loss as it is. weights: each class weighs in inversely to its count,
    mean weight 1 over the images. logit-adjust: in training only, each logit is raised by what the class frequencies say
    before any image is seen, which aims at balanced accuracy without inflating gradients of rare classes (Menon et al.
    2021, arXiv:2007.07314, eq. 10): by log pi for the softmax of cross-entropy and focal, by log pi / (1 - pi) for the
    sigmoids of bce and asymmetric, whose logits are log odds.

    class_counts: images of each class in the training part (k,). several_labels: rows of the targets are labels, each
    between 0 and 1, that do not exclude each other, and every image weighs 1; class weights then act on labels that are
    there. num_images: in the training part; the sum of `class_counts` where None, as with one label each.

    Raises UsageError where several labels meet a softmax.
    """
    name = config.name or "cross-entropy"
    if several_labels and name not in SEVERAL_LABELS:
        raise UsageError(
            f"--loss.name {name} is for images with one label each; here images have several.",
            f"Give one of: {', '.join('--loss.name ' + known for known in SEVERAL_LABELS)}.",
        )
    loss = _plain(config, name)
    if balance == "weights":
        factor = _everywhere(class_weights(class_counts))
        if several_labels:
            return lambda logits, targets: loss(logits, targets * factor(logits.device), 1 - targets)
        return lambda logits, targets: loss(logits, targets * factor(logits.device))
    shift = None
    if balance == "logit-adjust":
        counts = class_counts.double().clamp(min=1)
        share = (counts / (num_images or counts.sum())).clamp(max=1 - 1e-6)
        shift = _everywhere((torch.logit(share) if name in SEVERAL_LABELS else share.log()).float())

    def adjusted(logits: Tensor, targets: Tensor) -> Tensor:
        logits = logits if shift is None else logits.float() + shift(logits.device)
        return loss(logits, targets, 1 - targets) if several_labels else loss(logits, targets)

    return adjusted


def _plain(config: LossConfig, name: str) -> Callable[..., Tensor]:
    if name == "focal":
        assert config.focal_gamma is not None
        return functools.partial(focal, gamma=config.focal_gamma)
    if name == "bce":
        return bce
    if name == "asymmetric":
        assert config.gamma_positive is not None and config.gamma_negative is not None and config.margin is not None
        return functools.partial(
            asymmetric,
            gamma_positive=config.gamma_positive,
            gamma_negative=config.gamma_negative,
            margin=config.margin,
        )
    return cross_entropy


def _everywhere(values: Tensor) -> Callable[[torch.device], Tensor]:
    """The values on a device, copied there once: a copy in every step would make the GPU wait."""
    return functools.cache(values.to)
