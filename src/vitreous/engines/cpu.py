"""The fast matrix product of a CPU, switched on for a block of code and off again after it.

On AMD processors torch's default library is not the fastest for fp32 products (benchmarks/RESULTS.md has the ratio).
The precision setting "medium" routes them to oneDNN. On processors with AMX the same
setting may compute in bf16 inside, so its exactness is probed here once and never assumed.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path

EXACT = 1e-5
"""Largest relative difference from the default product that still counts as fp32."""


@contextlib.contextmanager
def fast_matmul(enabled: bool = True) -> Iterator[None]:
    """Inside the block fp32 products take the fast route where it is exact on this processor."""
    import torch

    before = torch.get_float32_matmul_precision()
    if enabled and medium_is_exact():
        torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@functools.cache
def medium_is_exact() -> bool:
    """Whether the "medium" route gives fp32 results on this processor: measured on one product, not looked up."""
    import torch

    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(64, 256, generator=generator), torch.randn(256, 64, generator=generator)
    exact = a.double() @ b.double()
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        difference = ((a @ b).double() - exact).abs().max() / exact.abs().max()
    finally:
        torch.set_float32_matmul_precision(before)
    return bool(difference <= EXACT)


@functools.cache
def cpu_has_fast_bf16() -> bool:
    """Whether this processor multiplies bf16 in hardware (AVX-512 BF16 or AMX on x86, BF16 on Arm)."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    flags = {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.split()}
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})
