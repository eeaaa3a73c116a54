"""What the processor can do, and which way of computing follows from it. Nothing is timed and nothing is set for good.

torch multiplies fp32 matrices with MKL, which on AMD processors keeps to 256-bit instructions: on those that compute 512
bits at once (family 26, Zen 5) that is less than half of what oneDNN, the other library inside torch, gets out of the
same core. `cpu_path()` says which way is taken here, and why; `VITREOUS_CPU=plain` in the environment takes none.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import platform
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vitreous.errors import UsageError

EXACT = 1e-5
"""Largest relative difference from the default product that still counts as fp32."""

SWITCH = "VITREOUS_CPU"
"""Environment variable, read and never set: `plain` turns every fast path on a CPU off, `auto` is the default."""

BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
FIRST_FULL_WIDTH_AMD_FAMILY = 26


@dataclass(frozen=True)
class Processor:
    """What the operating system says of the processor."""

    machine: str
    """Instruction set: x86_64, aarch64."""
    vendor: str
    """GenuineIntel, AuthenticAMD, or empty where it is not told."""
    family: int | None
    flags: frozenset[str]
    """Extensions by the names that Linux gives them."""


@dataclass(frozen=True)
class CpuPath:
    """How a forward pass is computed on this CPU."""

    fast: bool
    """Whether the engine `packed` is what `auto` means, and fp32 training leaves the default library."""
    default_is_slow: bool
    """Whether torch's default matrix product reaches only about half of what the processor can do."""
    bf16: bool
    """Whether the processor multiplies bf16 in hardware, so that `packed-bf16` pays."""
    reason: str
    """One sentence for people."""


def fast_paths_wanted() -> bool:
    """Whether `VITREOUS_CPU` leaves fast paths on. Asked at every block of every step, so values are checked elsewhere."""
    return os.environ.get(SWITCH) != "plain"


def cpu_path(enabled: bool = True) -> CpuPath:
    """The way that this processor, this torch and the environment call for.

    Raises UsageError for a value of `VITREOUS_CPU` that means nothing.
    """
    wish = os.environ.get(SWITCH, "auto")
    if wish not in ("auto", "plain"):
        raise UsageError(f"{SWITCH}={wish!r} means nothing; allowed are 'auto' and 'plain'.")
    found, bf16 = processor(), cpu_has_fast_bf16()
    blas = _torch_blas()
    plain = functools.partial(CpuPath, False, False, bf16)
    if wish == "plain" or not enabled:
        by = f"{SWITCH}=plain" if wish == "plain" else "the caller"
        return plain(f"plain torch: the fast path is turned off by {by}.")
    if blas is None:
        return plain("none: torch is not installed.")
    if "onednn" not in blas:
        return plain("plain torch: this build has no oneDNN.")
    if found.machine not in ("x86_64", "amd64") or not found.flags & {"avx2", "avx512f"}:
        return plain(f"plain torch: packed oneDNN is used on x86 with AVX2 or AVX-512, and this is {found.machine}.")
    slow = (
        "mkl" in blas
        and found.vendor in ("AuthenticAMD", "HygonGenuine")
        and (found.family or 0) >= FIRST_FULL_WIDTH_AMD_FAMILY
        and "avx512f" in found.flags
    )
    why = (
        "torch's default library (MKL) uses half of this processor's width"
        if slow
        else "weights packed once and fused steps save time, although torch's default library suits this processor"
    )
    return CpuPath(True, slow, bf16, f"oneDNN with packed weights: {why}.")


@contextlib.contextmanager
def fast_matmul(enabled: bool = True) -> Iterator[None]:
    """Inside the block fp32 products take the oneDNN route ("medium") where it is exact on this processor.

    torch keeps that setting for the whole process. Blocks of several threads may overlap: the last one to leave puts back
    what the first one found.
    """
    if not (enabled and cpu_path().fast and medium_is_exact()):
        yield
        return
    _precision.enter()
    try:
        yield
    finally:
        _precision.leave()


class _Precision:
    """Counts the blocks that are inside, because the setting is the process's and not the block's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before = ""

    def enter(self) -> None:
        import torch

        with self._lock:
            if self._inside == 0:
                self._before = torch.get_float32_matmul_precision()
                torch.set_float32_matmul_precision("medium")
            self._inside += 1

    def leave(self) -> None:
        import torch

        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                torch.set_float32_matmul_precision(self._before)


_precision = _Precision()


@functools.cache
def medium_is_exact() -> bool:
    """Whether the "medium" route gives fp32 results on this processor: on those with AMX it may compute in bf16 inside,
    so one product is compared, not looked up."""
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
    return bool(processor().flags & BF16_FLAGS)


@functools.cache
def processor() -> Processor:
    """From /proc/cpuinfo on Linux; elsewhere from Python and, where it is installed, torch."""
    machine = platform.machine().lower()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        # "AMD64 Family 25 Model 97 Stepping 2, AuthenticAMD" on Windows.
        text = platform.processor()
        family = re.search(r"Family (\d+)", text)
        vendor = re.search(r"(AuthenticAMD|GenuineIntel)", text)
        return Processor(
            machine, vendor[1] if vendor else "", int(family[1]) if family else None, _flags_from_torch(machine)
        )
    fields = dict(re.findall(r"^([\w ]+?)\s*:\s*(.*)$", text, re.MULTILINE))
    family = fields.get("cpu family", "")
    flags = f"{fields.get('flags', '')} {fields.get('Features', '')}".split()
    return Processor(
        machine, fields.get("vendor_id", ""), int(family) if family.isdecimal() else None, frozenset(flags)
    )


def _flags_from_torch(machine: str) -> frozenset[str]:
    if importlib.util.find_spec("torch") is None or machine not in ("x86_64", "amd64"):
        return frozenset()
    import torch

    level = torch.backends.cpu.get_cpu_capability()
    flags = {"AVX2": {"avx2"}, "AVX512": {"avx2", "avx512f"}}.get(level, set())
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return frozenset(flags | ({"avx512_bf16"} if supported is not None and supported() else set()))


@functools.cache
def _torch_blas() -> frozenset[str] | None:
    """Which matrix libraries this torch has: of mkl and onednn. None without torch."""
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    found = {"mkl": torch.backends.mkl.is_available(), "onednn": torch.backends.mkldnn.is_available()}
    return frozenset(name for name, present in found.items() if present)
