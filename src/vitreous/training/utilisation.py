"""How much of the processor's arithmetic a training uses: model FLOP/s over those of plain matrix products, measured here.

Model FLOPs utilisation (MFU) as in PaLM (arXiv:2204.02311, appendix B): what the mathematics of forward and backward pass
needs, recomputed activations not counted, over what the machine can do. Its makers' figure for a processor is rarely
reached by anything, and a CPU has none, so the ceiling is a large square product in the same precision and threads.
"""

from __future__ import annotations

import time

import torch

from vitreous.engines.cpu import fast_matmul

FLOPS_PER_MAC = 6
"""A multiply-accumulate is two operations; the backward pass makes two more products of each in the forward pass."""

SECONDS = 0.15
"""Time spent on measuring the ceiling, after the first product."""

SIDE = {"cpu": 1536, "cuda": 8192}
"""Side of the square matrices: large enough that only arithmetic counts, small enough for several in `SECONDS`."""


def product_rate(device: str, precision: str) -> float:
    """Floating-point operations a second of the fastest of several square products on `device`.

    precision: fp32, bf16 or fp16, of the factors. Threads are those that torch is set to.
    """
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    kind = torch.device(device).type
    side = SIDE.get(kind, 4096)
    left = torch.randn(side, side, device=device).to(dtype)
    right = torch.randn(side, side, device=device).to(dtype)
    with torch.inference_mode(), fast_matmul(kind == "cpu"):  # as training computes
        result = left @ right  # the first one also prepares the kernel
        best, begun = float("inf"), time.monotonic()
        while best == float("inf") or time.monotonic() - begun < SECONDS:
            _wait(kind)
            start = time.perf_counter()
            torch.matmul(left, right, out=result)
            _wait(kind)
            best = min(best, time.perf_counter() - start)
    return 2.0 * side**3 / best


def utilisation(macs: int, images_per_s: float, rate: float) -> float:
    """Share of `rate` (FLOP/s) that training with these multiply-accumulates an image makes use of."""
    return FLOPS_PER_MAC * macs * images_per_s / rate


def _wait(kind: str) -> None:
    if kind == "cuda":
        torch.cuda.synchronize()
    elif kind == "mps":
        torch.mps.synchronize()
