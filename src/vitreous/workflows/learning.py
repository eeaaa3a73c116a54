"""`evaluate --learning`: the accuracy that shares of the labels give, by classifiers of the features that a run computes.

Features of all training images are computed once; a classifier in closed form is then fitted to one share of them after
another, which takes seconds where training anew (`compare --shares`) takes hours.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from vitreous.data.splitting.share import share_of_training
from vitreous.data.splitting.stored import Split
from vitreous.engines.cpu import fast_matmul
from vitreous.errors import UsageError
from vitreous.evaluation.groups import Grouping
from vitreous.evaluation.learning import learning_curve
from vitreous.training.probe.closed_form import closed_form
from vitreous.training.probe.components import components

SHARES = (0.1, 0.15, 0.25, 0.4, 0.6, 0.8)
DRAWS = 5
"""Of each share; of all images there is but one."""
LEAST = 2
"""Training images of a class below which a share is left out."""
FROZEN = ("probe", "head")
"""Methods whose features know nothing of the labels."""


def learning(
    features: np.ndarray,
    split: Split,
    classes: Sequence[str],
    asked: np.ndarray,
    labels: np.ndarray,
    grouping: Grouping,
    *,
    balanced: bool,
    method: str,
    seed: int,
) -> dict[str, Any]:
    """See `evaluation.learning.learning_curve`; with the "measure", and a "note" on what the curve leaves out.

    features: (n, d) of the training images, in the order of `split.indices("train")`. asked, labels, grouping: features (m, d),
    class numbers and groups of the images that are asked about. balanced: whether classes count alike. Raises UsageError where
    there are too few training images for three points.
    """
    rows = split.indices("train")
    names = [(label,) for label in split.labels]
    number = {name: index for index, name in enumerate(classes)}
    own = np.array([number[split.labels[row]] for row in rows], np.int64)
    place = np.full(len(split.paths), -1)
    place[rows] = np.arange(len(rows))
    hits: defaultdict[int, list[np.ndarray]] = defaultdict(list)
    for share in (*SHARES, 1.0):
        draws = [place[share_of_training(split, names, share, seed + k)] for k in range(DRAWS if share < 1 else 1)]
        if any(np.bincount(own[chosen], minlength=len(classes)).min() < LEAST for chosen in draws):
            continue
        # Groups are whole, so that draws of one share differ a little in size.
        size = round(float(np.mean([len(chosen) for chosen in draws])))
        hits[size] += [_right(features[chosen], own[chosen], asked, labels, len(classes), balanced) for chosen in draws]
    if len(hits) < 3:
        raise UsageError(
            f"{len(rows):,} training images are too few for a learning curve: every share of them needs {LEAST} images of each class.",
            "Leave out --learning.",
        )
    found = learning_curve(hits, labels if balanced else np.zeros_like(labels), grouping, seed)
    return {**found, "measure": "balanced_accuracy" if balanced else "accuracy", "note": note(method)}


def note(method: str) -> str:
    """What a reader of the curve must know."""
    if method in FROZEN:
        return "A classifier on features that no label has changed."
    return (
        "A classifier on the features of this run, which have seen all training labels: training anew would gain at least as "
        "much from more of them (vitreous compare --shares measures that)."
    )


def _right(
    features: np.ndarray, own: np.ndarray, asked: np.ndarray, labels: np.ndarray, num_classes: int, balanced: bool
) -> np.ndarray:
    """Which of the images asked about a classifier of these features gets right, bool (m,)."""
    counts = torch.from_numpy(np.bincount(own, minlength=num_classes)).double()
    prior = torch.log(counts / counts.sum()).float() if balanced else None
    with fast_matmul():
        found = components(torch.from_numpy(features))
        head = closed_form(found, torch.from_numpy(own), num_classes, prior)
        logits = found.turn(torch.from_numpy(asked)) @ head.weight.float().T + head.bias.float()
    return logits.argmax(dim=1).numpy() == labels
