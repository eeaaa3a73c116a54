from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vitreous.config.train import AugmentConfig
from vitreous.data.augmentation.light import change_light, gaussian_blur

torch.set_num_threads(1)


def _change(images: Tensor, config: AugmentConfig, top: float = 255.0, seed: int = 0) -> Tensor:
    return change_light(images, config, top, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_a_point_blurs_into_a_gaussian_of_the_width_asked_for(channels: int) -> None:
    sigma = torch.tensor([0.0, 0.7, 1.5, 2.5])
    point = torch.zeros(4, channels, 41, 41)
    point[:, :, 20, 20] = 1
    blurred = gaussian_blur(point, sigma, 2.5)
    torch.testing.assert_close(blurred.sum((2, 3)), torch.ones(4, channels))
    distance = torch.arange(41.0) - 20
    across = (blurred.sum(2) * distance**2).sum(-1).sqrt()
    down = (blurred.sum(3) * distance**2).sum(-1).sqrt()
    torch.testing.assert_close(across, sigma[:, None].expand(-1, channels), atol=0.04, rtol=0)
    torch.testing.assert_close(down, across)
    assert torch.equal(blurred[0], point[0]), "a width of 0 leaves every bit"


def test_blur_is_that_of_torchvision() -> None:
    from torchvision.transforms.v2.functional import gaussian_blur as peer

    images = torch.rand(3, 2, 20, 30, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.5, 1.0, 1.9])
    blurred = gaussian_blur(images, sigma, 2.0)
    for image, width, ours in zip(images, sigma.tolist(), blurred, strict=True):
        theirs = peer(image, [13, 13], [width, width])
        # The two differ in what lies beyond the edge.
        torch.testing.assert_close(ours[:, 6:-6, 6:-6], theirs[:, 6:-6, 6:-6])


def test_blur_leaves_an_even_image_even_up_to_its_edge() -> None:
    even = torch.full((2, 3, 9, 9), 77.0)
    torch.testing.assert_close(gaussian_blur(even, torch.tensor([1.0, 3.0]), 3.0), even)


def test_blur_is_a_share_of_the_shorter_side_and_each_image_has_its_own() -> None:
    step = torch.cat([torch.zeros(64, 1, 100, 100), torch.full((64, 1, 100, 100), 255.0)], -1)
    blurred = _change(step, AugmentConfig(blur=0.02))
    steepest = blurred.diff(dim=-1).amax((1, 2, 3)) / 255
    assert len(steepest.unique()) > 55
    # The slope of a blurred step is the Gaussian's peak: at most 2 px wide here, hence at least 0.2.
    assert 0.19 < float(steepest.min()) < 0.25
    assert float(steepest.max()) > 0.9


def test_a_blur_too_narrow_to_change_a_grey_level_draws_nothing() -> None:
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 255
    noisy = AugmentConfig(noise=0.1)
    assert torch.equal(_change(images, AugmentConfig(noise=0.1, blur=0.02)), _change(images, noisy))
    assert not torch.equal(_change(images, AugmentConfig(noise=0.1, blur=0.05)), _change(images, noisy))


def test_gamma_keeps_black_and_white_and_reaches_as_far_as_it_says() -> None:
    images = torch.tensor([0.0, 0.5, 1.0]).mul(65535.0).view(1, 1, 1, 3).expand(300, 1, 1, 3)
    changed = _change(images, AugmentConfig(gamma=0.25), 65535.0) / 65535
    assert torch.equal(changed[..., 0], torch.zeros(300, 1, 1))
    torch.testing.assert_close(changed[..., 2], torch.ones(300, 1, 1))
    exponents = changed[:, 0, 0, 1].log2().neg()
    assert 0.8 - 1e-4 < float(exponents.min()) < 0.81
    assert 1.24 < float(exponents.max()) < 1.25 + 1e-4


def test_contrast_keeps_the_mean_of_every_band_of_a_multi_band_image() -> None:
    generator = torch.Generator().manual_seed(0)
    level = torch.tensor([40.0, 90.0, 130.0, 200.0, 60.0])
    images = level.view(1, 5, 1, 1) + torch.rand(8, 5, 12, 12, generator=generator) * 20
    changed = _change(images, AugmentConfig(contrast=0.5))
    torch.testing.assert_close(changed.mean((2, 3)), images.mean((2, 3)))
    assert not torch.allclose(changed, images, atol=1.0)


def test_one_seed_changes_alike_with_one_thread_and_with_two() -> None:
    images = torch.rand(8, 3, 40, 40, generator=torch.Generator().manual_seed(0)) * 255
    config = AugmentConfig(brightness=0.1, contrast=0.2, gamma=0.2, blur=0.03, noise=0.02)
    one = _change(images, config, seed=3)
    torch.set_num_threads(2)
    try:
        two = _change(images, config, seed=3)
    finally:
        torch.set_num_threads(1)
    assert torch.equal(one, two)
    assert not torch.equal(one, _change(images, config, seed=4))
