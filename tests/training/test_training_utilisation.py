"""Arithmetic made use of, against what plain products reach."""

from __future__ import annotations

import time

import pytest
import torch

from vitreous.training.utilisation import SIDE, product_rate, utilisation


def test_six_operations_an_image_for_each_multiply_accumulate_of_the_forward_pass() -> None:
    assert utilisation(macs=1_000_000, images_per_s=1000.0, rate=12e9) == pytest.approx(0.5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_ceiling_is_no_lower_than_a_product_just_measured(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    side = 256
    monkeypatch.setitem(SIDE, "cpu", side)
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    matrix = torch.randn(side, side).to(dtype)
    slowest = 0.0
    for _ in range(6):
        start = time.perf_counter()
        torch.mm(matrix, matrix)
        slowest = max(slowest, time.perf_counter() - start)
    # The fastest of hundreds is compared with the slowest of five, ten times over, so that a busy machine does not matter.
    assert product_rate("cpu", precision) > 0.1 * 2 * side**3 / slowest
