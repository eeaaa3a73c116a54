"""What a model costs, counted and not looked up."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(model: nn.Module) -> int:
    """Trainable numbers in the model."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def count_macs(model: nn.Module, shape: tuple[int, int, int]) -> int:
    """Multiply-accumulate operations of one forward pass on one image (channels, height, width).

    Half of what torch's FlopCounterMode counts: matrix products and convolutions, which is what the literature's
    "FLOPs" of 4.1 G for ResNet-50 or 17.6 G for ViT-B/16 are.
    """
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, *shape, device=device))
    finally:
        model.train(training)
    return counter.get_total_flops() // 2
