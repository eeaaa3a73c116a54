from __future__ import annotations

from typing import Any, cast, get_args

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from vitreous.models.resample import Convention, Grid, adapt_channels, resample_patches, resample_positions

CONVENTIONS: tuple[Convention, ...] = get_args(Convention)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def resize(patches: Tensor, new: Grid) -> Tensor:
    return interpolate(patches, size=new, mode="bicubic", antialias=True, align_corners=False)


def respond(patches: Tensor, kernel: Tensor) -> Tensor:
    """What the first layer answers to patches (b, c, ph, pw): (b, d)."""
    return torch.einsum("bchw,dchw->bd", patches, kernel)


def smooth_kernel(side: int) -> Tensor:
    wave = torch.cos(torch.pi * (torch.arange(side) + 0.5) / side)
    return torch.outer(wave, wave).reshape(1, 1, side, side)


def relative(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_an_equal_grid_comes_back_as_the_same_tensor(convention: Convention) -> None:
    positions = noise(1, 24, 8)
    assert resample_positions(positions, (4, 6), (4, 6), convention) is positions


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize(
    ("old", "new"),
    [((4, 6), (6, 4)), ((4, 6), (9, 7)), ((7, 5), (3, 2)), ((1, 5), (4, 1)), ((5, 1), (1, 3)), ((1, 1), (3, 2))],
)
def test_equal_positions_stay_equal_on_any_grid(old: Grid, new: Grid, convention: Convention) -> None:
    value = noise(1, 1, 8)
    found = resample_positions(value.repeat(1, old[0] * old[1], 1), old, new, convention)
    torch.testing.assert_close(found, value.repeat(1, new[0] * new[1], 1), atol=5e-6, rtol=0)


@pytest.mark.parametrize("width", [1, 8])
@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize(("old", "new"), [((4, 6), (8, 5)), ((6, 4), (3, 4)), ((6, 1), (3, 1)), ((6, 5), (3, 1))])
def test_rows_and_columns_are_treated_alike(old: Grid, new: Grid, convention: Convention, width: int) -> None:
    """A single column too, which torch by itself resizes wrongly."""

    def swap(tokens: Tensor, grid: Grid) -> Tensor:
        return tokens.reshape(1, *grid, width).transpose(1, 2).reshape(1, -1, width)

    positions = noise(1, old[0] * old[1], width)
    upright = resample_positions(positions, old, new, convention)
    lying = resample_positions(swap(positions, old), (old[1], old[0]), (new[1], new[0]), convention)
    torch.testing.assert_close(swap(upright, new), lying, atol=2e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_other_dtypes_are_computed_in_float32_and_returned_as_they_came(
    convention: Convention, dtype: torch.dtype
) -> None:
    positions = noise(1, 24, 8).to(dtype)
    found = resample_positions(positions, (4, 6), (7, 5), convention)
    assert found.dtype == dtype
    expected = resample_positions(positions.float(), (4, 6), (7, 5), convention)
    # float64 in, float64 out: what is computed more exactly than in float32 is not rounded on the way.
    torch.testing.assert_close(found, expected.to(dtype), atol=1e-6, rtol=0)


def test_an_unknown_convention_is_refused_with_the_known_ones_named_even_for_an_equal_grid() -> None:
    with pytest.raises(ValueError, match=r"no convention 'dino'.*'timm', 'dinov2', .*'big_vision'"):
        resample_positions(noise(1, 4, 8), (2, 2), (2, 2), cast("Any", "dino"))


@pytest.mark.parametrize("shape", [(1, 25, 8), (2, 24, 8), (24, 8)])
def test_positions_that_are_not_the_old_grid_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"4 x 6 grid have shape \(1, 24, d\), got .*class and register"):
        resample_positions(noise(*shape), (4, 6), (7, 5))


def test_an_empty_grid_or_patch_is_refused() -> None:
    with pytest.raises(ValueError, match="each side of a patch grid is at least 1, got 0 x 5"):
        resample_positions(noise(1, 24, 8), (4, 6), (0, 5))
    with pytest.raises(ValueError, match="each side of a patch is at least 1, got 4 x 0"):
        resample_patches(noise(2, 3, 4, 4), (4, 0))


def test_an_equal_patch_comes_back_as_the_same_tensor() -> None:
    kernel = noise(4, 3, 8, 6)
    assert resample_patches(kernel, (8, 6)) is kernel


@pytest.mark.parametrize(
    ("old", "new"), [((8, 8), (16, 16)), ((14, 14), (16, 16)), ((4, 8), (7, 12)), ((8, 4), (8, 6)), ((1, 6), (3, 6))]
)
def test_an_enlarged_patch_gets_the_answer_of_the_original(old: Grid, new: Grid) -> None:
    kernel, patches = noise(5, 3, *old), noise(7, 3, *old, seed=1)
    found = respond(resize(patches, new), resample_patches(kernel, new))
    torch.testing.assert_close(found, respond(patches, kernel), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("old", "new"), [((8, 8), (4, 4)), ((8, 6), (5, 9))])
def test_the_kernel_for_a_smaller_patch_answers_most_nearly_like_the_original(old: Grid, new: Grid) -> None:
    """The mean squared error over white noise is ||w - B^T w_new||^2, whose gradient must vanish."""
    kernel = noise(5, 1, *old)
    best = resample_patches(kernel, new).requires_grad_()
    impulses = torch.eye(old[0] * old[1]).reshape(-1, 1, *old)
    error = (respond(resize(impulses, new), best) - respond(impulses, kernel)).square().sum()
    (gradient,) = torch.autograd.grad(error, best)
    assert error > 1, "detail is lost, so the best is not perfect"
    assert gradient.abs().max() < 1e-4


@pytest.mark.parametrize("sides", [(32, 8, 32), (8, 16, 8), (16, 32, 16)])
def test_a_round_trip_keeps_a_smooth_kernel_and_not_a_rough_one(sides: tuple[int, int, int]) -> None:
    def there_and_back(kernel: Tensor) -> Tensor:
        return resample_patches(resample_patches(kernel, (sides[1], sides[1])), (sides[2], sides[2]))

    smooth, rough = smooth_kernel(sides[0]), noise(4, 3, sides[0], sides[0])
    assert relative(there_and_back(smooth), smooth) < 0.05
    assert relative(there_and_back(rough), rough) > 0.5


def test_patches_are_resampled_exactly_however_imprecise_float32_products_are_set() -> None:
    kernel = noise(4, 3, 16, 16)
    expected = resample_patches(kernel, (8, 8))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        found = resample_patches(kernel, (8, 8))
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(found, expected)


def test_a_kernel_keeps_its_dtype() -> None:
    kernel = noise(4, 3, 8, 8).bfloat16()
    assert resample_patches(kernel, (4, 4)).dtype == torch.bfloat16
    for channels in (1, 5):
        assert adapt_channels(kernel, channels).dtype == torch.bfloat16


def test_an_equal_number_of_channels_comes_back_as_the_same_tensor() -> None:
    kernel = noise(4, 3, 8, 8)
    assert adapt_channels(kernel, 3) is kernel


@pytest.mark.parametrize(("before", "after"), [(3, 1), (3, 6), (1, 3), (1, 13), (4, 1), (4, 3), (13, 3), (2, 5)])
def test_images_with_equal_channels_get_the_answer_they_got_before(before: int, after: int) -> None:
    kernel, grey = noise(5, before, 8, 6), noise(7, 1, 8, 6, seed=1)
    found = respond(grey.expand(-1, after, -1, -1), adapt_channels(kernel, after))
    torch.testing.assert_close(found, respond(grey.expand(-1, before, -1, -1), kernel), atol=5e-5, rtol=0)


@pytest.mark.parametrize("channels", [2, 4, 13])
def test_colour_filters_stay_apart_in_images_of_many_channels(channels: int) -> None:
    kernel = noise(4, 3, 8, 8)
    found = adapt_channels(kernel, channels)
    for channel in range(channels):
        torch.testing.assert_close(found[:, channel], kernel[:, channel % 3] * 3 / channels)


def test_an_adapted_kernel_shares_no_memory_between_channels() -> None:
    kernel = noise(2, 1, 4, 4)
    found = adapt_channels(kernel, 3)
    found[:, 0] = 0
    assert found[:, 1].abs().sum() > 0
    assert kernel.abs().sum() > 0


def test_no_channels_and_flat_kernels_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 channel, got 0"):
        adapt_channels(noise(2, 3, 4, 4), 0)
    for call in (lambda: adapt_channels(noise(2, 48), 1), lambda: resample_patches(noise(2, 48), (8, 8))):
        with pytest.raises(ValueError, match=r"shape \(d, c, ph, pw\), got \(2, 48\)"):
            call()
