"""Memory kept between training steps."""

from __future__ import annotations

import platform

import pytest
import torch

from vitreous.training import allocator
from vitreous.training.allocator import keep_memory

resource = pytest.importorskip("resource")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone can be told")
def test_memory_that_is_freed_is_not_fetched_again_from_the_operating_system() -> None:
    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            torch.zeros(5, 1 << 20)  # 20 MB
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    with keep_memory() as kept:
        assert kept
        faults()
        assert faults() < 5_000  # of 51,200 pages


def test_without_glibc_or_when_not_asked_for_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    with keep_memory(False) as kept:
        assert not kept
    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("", ""))
    with keep_memory() as kept:
        assert not kept
