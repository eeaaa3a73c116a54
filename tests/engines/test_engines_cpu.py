"""Which way of computing is chosen for which processor, and that choosing and using it leaves nothing behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from vitreous.engines import cpu
from vitreous.engines.cpu import (
    EXACT,
    SWITCH,
    Processor,
    cpu_has_fast_bf16,
    cpu_path,
    fast_matmul,
    medium_is_exact,
    processor,
)
from vitreous.errors import UsageError

AVX512 = frozenset({"avx2", "avx512f", "avx512_bf16"})
ZEN_5 = Processor("x86_64", "AuthenticAMD", 26, AVX512)
ZEN_4 = Processor("x86_64", "AuthenticAMD", 25, AVX512)
ZEN_3 = Processor("x86_64", "AuthenticAMD", 25, frozenset({"avx2"}))
XEON = Processor("x86_64", "GenuineIntel", 6, AVX512 | {"amx_bf16"})
OLD = Processor("x86_64", "GenuineIntel", 6, frozenset({"sse4_2"}))
GRAVITON = Processor("aarch64", "", None, frozenset({"asimd", "bf16"}))
USUAL = frozenset({"mkl", "onednn"})


@pytest.fixture(autouse=True)
def undisturbed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No switch in the environment; the precision as it was afterwards; nothing remembered of another processor."""
    monkeypatch.delenv(SWITCH, raising=False)
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)
    for remembered in (processor, cpu_has_fast_bf16):
        getattr(remembered, "cache_clear", lambda: None)()


def pretend(patch: pytest.MonkeyPatch, found: Processor, blas: frozenset[str] | None = USUAL) -> None:
    patch.setattr(cpu, "processor", lambda: found)
    patch.setattr(cpu, "_torch_blas", lambda: blas)
    cpu_has_fast_bf16.cache_clear()


# The choice


@pytest.mark.parametrize(
    ("found", "fast", "slow", "bf16"),
    [
        (ZEN_5, True, True, True),
        (ZEN_4, True, False, True),
        (ZEN_3, True, False, False),
        (XEON, True, False, True),
        (OLD, False, False, False),
        (GRAVITON, False, False, True),
    ],
    ids=["zen5", "zen4", "zen3", "xeon", "old", "graviton"],
)
def test_the_processor_decides(
    found: Processor, fast: bool, slow: bool, bf16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        pretend(patch, found)
        path = cpu_path()
    assert (path.fast, path.default_is_slow, path.bf16) == (fast, slow, bf16)
    assert path.reason.endswith(".")


@pytest.mark.parametrize(
    ("blas", "fast", "slow", "words"),
    [
        (None, False, False, "torch is not installed"),
        (frozenset({"mkl"}), False, False, "no oneDNN"),
        (frozenset({"onednn"}), True, False, "packed"),
        (USUAL, True, True, "half of this processor's width"),
    ],
)
def test_so_does_the_build_of_torch(
    blas: frozenset[str] | None, fast: bool, slow: bool, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        pretend(patch, ZEN_5, blas)
        path = cpu_path()
    assert (path.fast, path.default_is_slow) == (fast, slow)
    assert words in path.reason


def test_the_environment_and_the_caller_can_turn_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        pretend(patch, ZEN_5)
        assert not cpu_path(enabled=False).fast
        assert "by the caller" in cpu_path(enabled=False).reason
        patch.setenv(SWITCH, "plain")
        assert not cpu_path().fast
        assert f"{SWITCH}=plain" in cpu_path().reason
        patch.setenv(SWITCH, "auto")
        assert cpu_path().fast


def test_a_switch_that_means_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "fast")
    with pytest.raises(UsageError, match="VITREOUS_CPU='fast' means nothing; allowed are 'auto' and 'plain'"):
        cpu_path()


# What the processor is

CPUINFO = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 26
model name\t: AMD EPYC 9755
flags\t\t: fpu avx2 avx512f avx512_bf16

processor\t: 1
vendor_id\t: AuthenticAMD
cpu family\t: 26
flags\t\t: fpu avx2 avx512f avx512_bf16
"""


def read_as(patch: pytest.MonkeyPatch, text: str | None) -> None:
    def read(self: Path, **_: object) -> str:
        if text is None:
            raise FileNotFoundError
        return text

    patch.setattr(Path, "read_text", read)
    processor.cache_clear()
    cpu_has_fast_bf16.cache_clear()


def test_linux_tells_vendor_family_and_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        read_as(patch, CPUINFO)
        patch.setattr("platform.machine", lambda: "x86_64")
        found = processor()
    assert found == Processor("x86_64", "AuthenticAMD", 26, frozenset({"fpu", "avx2", "avx512f", "avx512_bf16"}))


def test_windows_tells_vendor_and_family_and_torch_the_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        read_as(patch, None)
        patch.setattr("platform.machine", lambda: "AMD64")
        patch.setattr("platform.processor", lambda: "AMD64 Family 26 Model 68 Stepping 0, AuthenticAMD")
        patch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX512")
        patch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: True, raising=False)
        found = processor()
    assert found == Processor("amd64", "AuthenticAMD", 26, AVX512)


def test_a_system_that_tells_nothing_has_no_fast_path(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        read_as(patch, None)
        patch.setattr("platform.machine", lambda: "arm64")
        patch.setattr("platform.processor", lambda: "arm")
        assert not cpu_path().fast
        assert not cpu_has_fast_bf16()


@pytest.mark.parametrize(
    ("text", "fast"),
    [
        ("flags\t\t: fpu avx512_bf16 vnni", True),
        ("flags : fpu amx_bf16", True),
        ("Features : fp asimd bf16", True),
        ("flags : fpu avx512f\nmodel name : bf16", False),
    ],
)
def test_bf16_hardware_is_read_from_the_processors_flags(
    text: str, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        read_as(patch, text)
        assert cpu_has_fast_bf16() is fast


# The fast matrix product


@pytest.mark.parametrize("setting", ["highest", "high", "medium"])
@pytest.mark.parametrize("exact", [True, False])
def test_the_fast_product_is_on_inside_the_block_only(
    setting: str, exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, ZEN_5)
    monkeypatch.setattr(cpu, "medium_is_exact", lambda: exact)
    torch.set_float32_matmul_precision(setting)
    with fast_matmul():
        assert torch.get_float32_matmul_precision() == ("medium" if exact else setting)
    assert torch.get_float32_matmul_precision() == setting


def test_the_setting_is_restored_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, ZEN_5)
    monkeypatch.setattr(cpu, "medium_is_exact", lambda: True)
    torch.set_float32_matmul_precision("highest")
    with pytest.raises(RuntimeError), fast_matmul():
        raise RuntimeError
    assert torch.get_float32_matmul_precision() == "highest"


def test_blocks_that_overlap_restore_what_the_first_one_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads, one entering while the other is inside and leaving after it: the setting is the whole process's."""
    pretend(monkeypatch, ZEN_5)
    monkeypatch.setattr(cpu, "medium_is_exact", lambda: True)
    torch.set_float32_matmul_precision("highest")
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with fast_matmul():
            inside.set()
            leave.wait(10)

    with fast_matmul():
        thread = threading.Thread(target=other)
        thread.start()
        assert inside.wait(10)
    assert torch.get_float32_matmul_precision() == "medium", "the other thread is still at work"
    leave.set()
    thread.join(10)
    assert torch.get_float32_matmul_precision() == "highest"


def test_switched_off_it_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, ZEN_5)
    monkeypatch.setattr(cpu, "medium_is_exact", lambda: True)
    torch.set_float32_matmul_precision("highest")
    with fast_matmul(False):
        assert torch.get_float32_matmul_precision() == "highest"
    monkeypatch.setenv(SWITCH, "plain")
    with fast_matmul():
        assert torch.get_float32_matmul_precision() == "highest"


def test_probing_the_processor_leaves_no_trace() -> None:
    torch.set_float32_matmul_precision("highest")
    random_state = torch.get_rng_state()
    medium_is_exact.cache_clear()
    exact = medium_is_exact()
    assert torch.get_float32_matmul_precision() == "highest"
    assert torch.equal(torch.get_rng_state(), random_state)
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(80, 300, generator=generator), torch.randn(300, 70, generator=generator)
    reference = a.double() @ b.double()
    with fast_matmul():
        difference = ((a @ b).double() - reference).abs().max() / reference.abs().max()
    assert difference <= EXACT, "whatever the processor, the block computes in fp32"
    assert isinstance(exact, bool)
