"""The nearest neighbours' vote: what features say without any training at all."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPERATURE = 0.07
CHUNK = 1024


def neighbours_say(known: Tensor, labels: Tensor, asked: Tensor, num_classes: int, k: int = 20) -> Tensor:
    """known (n, d) with class numbers labels (n,), asked (m, d) -> the class (m,) that the nearest vote for.

    The k most similar images by cosine vote with weight exp(similarity / 0.07) (Wu et al. 2018, arXiv:1805.01978, section
    3.4; with k = 20 the measure of DINO, arXiv:2104.14294).
    """
    base, votes = F.normalize(known.float(), dim=1).T.contiguous(), F.one_hot(labels, num_classes).float()
    answers = []
    for part in F.normalize(asked.float(), dim=1).split(CHUNK):
        similarity, nearest = (part @ base).topk(min(k, len(known)), dim=1)
        weight = ((similarity - similarity[:, :1]) / TEMPERATURE).exp()
        answers.append((votes[nearest] * weight[:, :, None]).sum(dim=1).argmax(dim=1))
    return torch.cat(answers)
