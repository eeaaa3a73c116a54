"""Which number type a forward and backward pass runs in, and the settings around it."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Literal

import torch

from vitreous.config.train import Precision
from vitreous.engines.cpu import cpu_has_fast_bf16

BF16_FROM = 5_000_000
"""Multiply-adds of an image, on a CPU that multiplies bf16."""


def choose_precision(asked: Literal["auto"] | Precision, device: str, macs: int) -> Precision:
    """`auto` is bf16 where the hardware multiplies it, fp16 on older GPUs, fp32 elsewhere.

    macs: of one image. On a CPU bf16 pays from `BF16_FROM` on: measured 1.2 to 1.4 times as fast at 8 million (vit_micro and
    resnet_micro at 8 pixels) and 1.7 times at 45 million (vit_micro at 32).
    """
    if asked != "auto":
        return asked
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    if device == "cpu" and cpu_has_fast_bf16() and macs >= BF16_FROM:
        return "bf16"
    return "fp32"


def autocast(precision: Precision, device: str) -> AbstractContextManager[object]:
    """Runs matrix products in the given type; weights, norms and the loss stay in fp32."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device, dtype=torch.bfloat16 if precision == "bf16" else torch.float16)


def gradient_scaler(precision: Precision, device: str) -> torch.amp.GradScaler:
    """Loss scaling, active only for fp16, whose small gradients would vanish (Micikevicius et al. 2018, arXiv:1710.03740)."""
    return torch.amp.GradScaler(device, enabled=precision == "fp16")
