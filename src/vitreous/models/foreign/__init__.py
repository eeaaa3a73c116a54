"""Whose names the tensors of a file carry, and one way to make them ours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

import numpy as np
from torch import Tensor

from vitreous.errors import WeightsError
from vitreous.models.foreign.google import from_npz, is_npz
from vitreous.models.foreign.huggingface import from_huggingface
from vitreous.models.foreign.original import bare, from_original, is_original
from vitreous.models.foreign.torchvision import from_torchvision, is_torchvision
from vitreous.models.weights import State, from_timm, is_ours

Layout = Literal["vitreous", "timm", "huggingface", "torchvision", "google", "original"]

_HUGGINGFACE = re.compile(r"(^|\.)embeddings\.patch_embeddings?\.")


def recognise(state: Mapping[str, Any]) -> Layout:
    """Whose layout this is, by names alone. "google" is an `.npz` of Google's, "original" a checkpoint of the authors of
    DINO, DINOv2, DINOv3 or MAE.

    Raises WeightsError naming what was seen and what is known.
    """
    if is_npz(state):
        return "google"
    if any(_HUGGINGFACE.search(name) for name in state):
        return "huggingface"
    names = bare(dict(state))
    if is_ours(names):
        return "vitreous"
    if is_torchvision(names):
        return "torchvision"
    if "patch_embed.proj.weight" in names:
        return "original" if is_original(names) else "timm"
    raise WeightsError(
        f"Weights with names such as {_some(state)} are of no layout that is known here.",
        f"Known: {', '.join(get_args(Layout))}.",
    )


def convert(state: Mapping[str, Tensor] | Mapping[str, np.ndarray], config: Mapping[str, Any] | None = None) -> State:
    """Weights of any layout that `recognise` knows, under our names.

    state: tensors, or the arrays of an `.npz` (`models.foreign.google.read_npz`). config: of a `config.json` beside the file, if any.
    Raises WeightsError for an unknown layout, or a tensor that is no part of a plain ViT.
    """
    layout = recognise(state)
    if layout == "google":
        return from_npz(dict(state))  # type: ignore[arg-type]
    tensors: State = dict(state)  # type: ignore[arg-type]
    if layout == "huggingface":
        return from_huggingface(tensors, config)
    if layout == "original":
        return from_original(tensors)
    return from_torchvision(bare(tensors)) if layout == "torchvision" else from_timm(bare(tensors))


def _some(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in list(names)[:3]) or "nothing"
