from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vitreous.config.input import InputSpec
from vitreous.config.train import AugmentConfig
from vitreous.data.augmentation.augment import Augment
from vitreous.data.augmentation.rand_augment import MOVES, NAMES, SIGNED, apply, operation_names, rand_augment
from vitreous.data.augmentation.three import three_augment
from vitreous.errors import UsageError
from vitreous.inputs import normalise

torch.set_num_threads(1)

OFF = AugmentConfig(
    horizontal_flip=False,
    vertical_flip=False,
    quarter_turns=False,
    rotate=0.0,
    translate=0.0,
    scale=0.0,
    shear=0.0,
    crop_area=1.0,
    pad_crop=0,
    rand_augment_ops=0,
    rand_augment_magnitude=0,
    brightness=0.0,
    contrast=0.0,
    gamma=0.0,
    blur=0.0,
    noise=0.0,
    erase=0.0,
    mixup=0.0,
    cutmix=0.0,
    mix_probability=0.0,
    mix_until=1.0,
    strong_until=1.0,
    three_augment=False,
    repeats=1,
    start_size=1.0,
    full_size_from=0.0,
)
ALL = AugmentConfig(
    horizontal_flip=True,
    vertical_flip=True,
    quarter_turns=True,
    rotate=15.0,
    translate=0.1,
    scale=0.2,
    shear=5.0,
    crop_area=0.5,
    pad_crop=0,
    rand_augment_ops=2,
    rand_augment_magnitude=9,
    brightness=0.2,
    contrast=0.2,
    gamma=0.3,
    blur=0.05,
    noise=0.05,
    erase=0.5,
    mixup=0.8,
    cutmix=1.0,
    mix_probability=1.0,
    mix_until=1.0,
    strong_until=1.0,
    three_augment=False,
    repeats=1,
    start_size=1.0,
    full_size_from=0.0,
)
RGB = InputSpec(height=16, width=16, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
RAW = InputSpec(height=16, width=16, mean=(0.0,), std=(1.0,), channels=1)


def _pixels(spec: InputSpec, count: int = 8, seed: int = 0) -> Tensor:
    shape = (count, spec.channels, spec.height, spec.width)
    values = np.random.default_rng(seed).integers(0, spec.max_value + 1, shape)
    return torch.from_numpy(values.astype(np.uint8 if spec.bit_depth == 8 else np.uint16))


def _run(
    config: AugmentConfig, pixels: Tensor, spec: InputSpec, *, seed: int = 0, mix: bool = False, smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    labels = torch.arange(len(pixels)) % 3
    return Augment(config, spec, 3, smoothing)(pixels, labels, torch.Generator().manual_seed(seed), mix)


@pytest.mark.parametrize("spec", [RGB, replace(RGB, bit_depth=16)], ids=["8 bits", "16 bits"])
def test_with_nothing_on_training_sees_exactly_what_prediction_sees(spec: InputSpec) -> None:
    pixels = _pixels(spec)
    images, targets = _run(OFF, pixels, spec)
    assert images.dtype == torch.float32
    np.testing.assert_array_equal(images.numpy(), normalise(pixels.permute(0, 2, 3, 1).numpy(), spec))
    assert torch.equal(targets, torch.eye(3)[torch.arange(8) % 3])


@pytest.mark.parametrize("depth", [8, 16])
def test_one_seed_gives_one_batch_and_another_seed_another(depth: int) -> None:
    spec = replace(RGB, bit_depth=depth)
    first, second = (_run(ALL, _pixels(spec), spec, seed=1, mix=True) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    other = _run(ALL, _pixels(spec), spec, seed=2, mix=True)
    assert not torch.equal(first[0], other[0])


def test_neither_input_nor_global_random_state_is_touched() -> None:
    pixels, state = _pixels(RGB), torch.random.get_rng_state()
    kept = pixels.clone()
    _run(ALL, pixels, RGB, mix=True)
    assert torch.equal(pixels, kept)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_everything_at_once_gives_finite_images_of_the_right_size() -> None:
    images, targets = _run(ALL, _pixels(replace(RGB, height=24, width=24)), RGB, mix=True, smoothing=0.1)
    assert images.shape == (8, 3, 16, 16)
    assert images.isfinite().all()
    torch.testing.assert_close(targets.sum(1), torch.ones(8))


def test_flips_give_the_image_or_its_mirror_and_both_occur() -> None:
    pixels = _pixels(RAW, 64)
    plain = pixels.float() / 255
    for name, axis in (("horizontal_flip", -1), ("vertical_flip", -2)):
        images, _ = _run(replace(OFF, **{name: True}), pixels, RAW)
        same = (images - plain).abs().amax((1, 2, 3)) < 1e-4
        mirrored = (images - plain.flip(axis)).abs().amax((1, 2, 3)) < 1e-4
        assert (same ^ mirrored).all()
        assert 16 < int(mirrored.sum()) < 48


def test_quarter_turns_give_all_four_and_only_these() -> None:
    pixels = _pixels(RAW, 64)
    images, _ = _run(replace(OFF, quarter_turns=True), pixels, RAW)
    turned = torch.stack([torch.rot90(pixels.float() / 255, k, (-2, -1)) for k in range(4)])
    match = (images - turned).abs().amax((2, 3, 4)) < 1e-4
    assert (match.sum(0) == 1).all()
    assert (match.sum(1) > 4).all()


def test_oblong_images_are_not_turned_by_quarters() -> None:
    spec = replace(RAW, width=8)
    pixels = _pixels(spec)
    images, _ = _run(replace(OFF, quarter_turns=True), pixels, spec)
    assert torch.equal(images, _run(OFF, pixels, spec)[0])


def test_a_rotation_of_an_oblong_image_keeps_shapes() -> None:
    """A disc stays a disc: turned in [-1, 1] coordinates it would become an ellipse."""
    spec = InputSpec(height=64, width=128, channels=1, mean=(0.0,), std=(1.0,))
    y, x = torch.meshgrid(torch.arange(64) - 31.5, torch.arange(128) - 63.5, indexing="ij")
    disc = ((x**2 + y**2) < 24**2).to(torch.uint8) * 255
    images, _ = _run(replace(OFF, rotate=90.0), disc.expand(16, 1, 64, 128).contiguous(), spec)
    assert ((images[:, 0] - disc / 255).abs().mean((1, 2)) < 0.02).all()


def test_translation_reaches_as_far_as_it_says() -> None:
    """A ramp whose value is its column tells how far each image was shifted."""
    spec = InputSpec(height=100, width=100, channels=1, mean=(0.0,), std=(1.0,))
    ramp = torch.arange(100, dtype=torch.uint8).expand(200, 1, 100, 100).contiguous()
    images, _ = _run(replace(OFF, translate=0.1), ramp, spec)
    shift = images[:, 0, 50, 50] * 255 - 50
    assert shift.abs().max() <= 10.001
    assert shift.max() > 9
    assert shift.min() < -9


def test_scale_reaches_as_far_as_it_says() -> None:
    spec = InputSpec(height=100, width=100, channels=1, mean=(0.0,), std=(1.0,))
    ramp = torch.arange(100, dtype=torch.uint8).expand(200, 1, 100, 100).contiguous()
    images, _ = _run(replace(OFF, scale=0.2), ramp, spec)
    slope = (images[:, 0, 50, 60] - images[:, 0, 50, 40]) * 255 / 20
    assert slope.max() == pytest.approx(1 / 0.8, abs=0.02)
    assert slope.min() == pytest.approx(1 / 1.2, abs=0.02)


def test_a_random_crop_keeps_at_least_the_area_it_says_and_stays_inside() -> None:
    spec = InputSpec(height=100, width=100, channels=1, mean=(0.0,), std=(1.0,))
    columns = torch.arange(100, dtype=torch.uint8).expand(300, 1, 100, 100)
    config = replace(OFF, crop_area=0.3)
    across = _run(config, columns.contiguous(), spec)[0] * 255
    down = _run(config, columns.transpose(-1, -2).contiguous(), spec)[0] * 255
    width = (across[:, 0, 50, 60] - across[:, 0, 50, 40]) / 20
    height = (down[:, 0, 60, 50] - down[:, 0, 40, 50]) / 20
    area = width * height
    assert area.min() >= 0.29
    assert area.min() < 0.4
    assert area.max() > 0.9
    assert (width / height).max() <= 4 / 3 + 0.02
    # Linear all the way: no border was repeated, so the crop lies inside.
    torch.testing.assert_close(across[:, 0, 50, 80] - across[:, 0, 50, 20], 60 * width, atol=0.02, rtol=0)


def test_a_stored_image_larger_than_the_model_takes_is_shrunk_even_with_nothing_on() -> None:
    pixels = torch.full((2, 1, 32, 32), 51, dtype=torch.uint8)
    images, _ = _run(OFF, pixels, RAW)
    torch.testing.assert_close(images, torch.full((2, 1, 16, 16), 0.2))


def test_brightness_contrast_and_noise_stay_between_black_and_white() -> None:
    pixels = _pixels(RAW, 64)
    images, _ = _run(replace(OFF, brightness=0.9, contrast=0.9, noise=0.5), pixels, RAW)
    assert images.min() >= 0
    assert images.max() <= 1


def test_brightness_scales_each_image_by_its_own_factor_within_reach() -> None:
    pixels = torch.full((100, 1, 16, 16), 100, dtype=torch.uint8)
    images, _ = _run(replace(OFF, brightness=0.3), pixels, RAW)
    factors = images[:, 0, 0, 0] * 255 / 100
    assert factors.min() >= 0.7 - 1e-4
    assert factors.max() <= 1.3 + 1e-4
    assert factors.std() > 0.1
    assert images.std((1, 2, 3)).max() < 1e-6


def test_contrast_leaves_the_mean_alone() -> None:
    pixels = _pixels(RAW) // 2 + 64
    images, _ = _run(replace(OFF, contrast=0.5), pixels, RAW)
    torch.testing.assert_close(images.mean((1, 2, 3)), pixels.float().mean((1, 2, 3)) / 255)
    assert not torch.allclose(images.std((1, 2, 3)), pixels.float().std((1, 2, 3)) / 255, rtol=0.01)


def test_noise_has_at_most_the_deviation_it_says() -> None:
    pixels = torch.full((50, 1, 16, 16), 128, dtype=torch.uint8)
    images, _ = _run(replace(OFF, noise=0.1), pixels, RAW)
    deviation = images.std((1, 2, 3))
    assert deviation.max() < 0.115
    assert deviation.max() > 0.08
    assert deviation.min() < 0.02


def test_erasing_sets_one_rectangle_to_the_mean_in_the_share_of_images_it_says() -> None:
    spec = replace(RGB, mean=(0.9, 0.9, 0.9))
    pixels = torch.zeros((400, 3, 16, 16), dtype=torch.uint8)
    images, _ = _run(replace(OFF, erase=0.5), pixels, spec)
    blank = (images == 0).all(1)
    erased = blank.any(2).any(1)
    assert 150 < int(erased.sum()) < 250
    for mask in blank[erased][:50]:
        rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
        box = (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
        assert int(box) == int(mask.sum())
        assert 1 <= int(box) <= 0.45 * 256


def test_label_smoothing_spreads_mass_over_all_classes() -> None:
    _, targets = _run(OFF, _pixels(RGB), RGB, smoothing=0.3)
    torch.testing.assert_close(targets[0], torch.tensor([0.8, 0.1, 0.1]))


def test_mixup_blends_images_and_targets_by_one_share() -> None:
    pixels = _pixels(RAW)
    plain, hard = _run(OFF, pixels, RAW)
    images, targets = _run(replace(OFF, mixup=1.0, mix_probability=1.0), pixels, RAW, mix=True)
    share = float(targets[0, 0])
    assert 0 < share < 1
    torch.testing.assert_close(images, plain * share + plain.roll(1, 0) * (1 - share))
    torch.testing.assert_close(targets, hard * share + hard.roll(1, 0) * (1 - share))


def test_cutmix_pastes_a_box_and_counts_its_pixels() -> None:
    pixels = _pixels(RAW)
    plain, hard = _run(OFF, pixels, RAW)
    images, targets = _run(replace(OFF, cutmix=1.0, mix_probability=1.0), pixels, RAW, mix=True)
    own, foreign = images == plain, images == plain.roll(1, 0)
    assert (own | foreign).all()
    pasted = (~own).any(0)[0]
    rows, columns = pasted.any(1).nonzero(), pasted.any(0).nonzero()
    box = int((rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1))
    torch.testing.assert_close(targets, hard * (1 - box / 256) + hard.roll(1, 0) * box / 256)


def test_mixing_stops_where_the_caller_says_and_happens_as_often_as_set() -> None:
    pixels, config = _pixels(RAW), replace(OFF, mixup=1.0, cutmix=1.0, mix_probability=0.5)
    plain, _ = _run(OFF, pixels, RAW)
    assert torch.equal(_run(config, pixels, RAW, mix=False)[0], plain)
    mixed = [not torch.equal(_run(config, pixels, RAW, seed=seed, mix=True)[0], plain) for seed in range(100)]
    assert 30 < sum(mixed) < 70


def test_beta_shares_have_the_spread_of_beta() -> None:
    config = replace(OFF, mixup=0.2, mix_probability=1.0)
    shares = [float(_run(config, _pixels(RAW, 3), RAW, seed=seed, mix=True)[1][0, 0]) for seed in range(300)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.08)
    assert np.var(shares) == pytest.approx(0.25 / (2 * 0.2 + 1), abs=0.04)


def test_unresolved_and_impossible_settings_are_refused_by_name() -> None:
    with pytest.raises(UsageError, match="without a value: horizontal_flip, vertical_flip"):
        Augment(AugmentConfig(), RGB, 3, 0.0)
    with pytest.raises(UsageError, match=r"--augment.crop-area must lie in \[0.001, 1\], got 1.5"):
        Augment(replace(OFF, crop_area=1.5), RGB, 3, 0.0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_each_rand_augment_operation_keeps_shape_and_range(name: str, channels: int) -> None:
    images = _pixels(replace(RGB, channels=channels, mean=(0.5,) * channels, std=(0.5,) * channels))
    images = (images // 3 + 40).float()  # room for autocontrast and equalize to act
    for strength in (0.9, -0.9):
        out = _apply(name, images, strength)
        assert out.shape == images.shape
        assert 0 <= out.min() <= out.max() <= 255
        if name not in SIGNED:
            assert torch.equal(out, _apply(name, images, -strength))
        # Grey images have no colour to change.
        unchanged = name == "identity" or (name == "color" and channels == 1)
        assert torch.equal(out, images) == unchanged


def _many_bands(channels: int, depth: int) -> InputSpec:
    settings: dict[str, Any] = {"height": 16, "width": 16, "channels": channels, "bit_depth": depth}
    return InputSpec(**settings, mean=(0.4,) * channels, std=(0.2,) * channels)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("channels", [1, 2, 4, 6, 13])
def test_images_of_any_number_of_channels_go_through_everything(channels: int, depth: int) -> None:
    spec = _many_bands(channels, depth)
    first, second = (_run(ALL, _pixels(spec), spec, seed=4, mix=True)[0] for _ in range(2))
    assert first.shape == (8, channels, 16, 16)
    assert first.isfinite().all()
    assert torch.equal(first, second)
    assert not torch.equal(first, _run(OFF, _pixels(spec), spec)[0])


@pytest.mark.parametrize("channels", [2, 4, 13])
def test_bands_get_only_operations_that_keep_the_order_of_their_values(channels: int) -> None:
    assert set(NAMES) - set(operation_names(channels)) == {
        "color", "posterize", "solarize", "autocontrast", "equalize"
    }  # fmt: skip
    assert operation_names(3) == operation_names(1) == NAMES
    ramp = torch.linspace(50, 150, 100).expand(1, channels, 100, 100)
    for name in ("brightness", "contrast"):
        changed = _apply(name, ramp, 0.5)
        assert (changed.diff(dim=-1) >= 0).all()
        assert not torch.equal(changed, ramp)


def test_an_operation_on_one_band_does_not_depend_on_the_others() -> None:
    images = (_pixels(_many_bands(4, 8)) // 2 + 40).float()
    for name in operation_names(4):
        alone = _apply(name, images[:, 2:3], 0.5)
        torch.testing.assert_close(_apply(name, images, 0.5)[:, 2:3], alone, msg=name)


def test_weights_multiply_the_targets_before_mixing() -> None:
    pixels, config = _pixels(RAW, 3), replace(OFF, mixup=1.0, mix_probability=1.0)
    labels, weights = torch.arange(3), torch.tensor([0.5, 2.0, 0.0])
    augment = Augment(config, RAW, 3, 0.1)
    plain, mixed = (augment(pixels, labels, torch.Generator().manual_seed(1), mix, weights) for mix in (False, True))
    bare = augment(pixels, labels, torch.Generator().manual_seed(1), False)
    torch.testing.assert_close(plain[1], bare[1] * weights[:, None])
    share = 1 - float(((mixed[0] - plain[0]) / (plain[0].roll(1, 0) - plain[0])).nanmedian())
    assert 0.01 < share < 0.99
    torch.testing.assert_close(mixed[1], plain[1] * share + plain[1].roll(1, 0) * (1 - share), rtol=1e-4, atol=1e-5)


PEERS = {
    "brightness": "Brightness",
    "color": "Color",
    "contrast": "Contrast",
    "sharpness": "Sharpness",
    "posterize": "Posterize",
    "solarize": "Solarize",
    "autocontrast": "AutoContrast",
    "equalize": "Equalize",
}


def _apply(name: str, images: Tensor, strength: float) -> Tensor:
    return apply(name, images, torch.full((len(images),), strength))


@pytest.mark.parametrize("magnitude", [0, 9, 30])
@pytest.mark.parametrize("name", PEERS)
def test_rand_augment_operations_are_those_of_torchvision(name: str, magnitude: int) -> None:
    from torchvision.transforms.v2 import RandAugment

    peer = RandAugment()
    images = _pixels(RGB, 2) // 2 + 40
    strengths = peer._AUGMENTATION_SPACE[PEERS[name]][0](31, 16, 16)
    strength = 0.0 if strengths is None else float(strengths[magnitude])
    expected = peer._apply_image_or_video_transform(
        images, PEERS[name], strength, interpolation=peer.interpolation, fill=peer._fill
    )
    assert isinstance(expected, Tensor)
    found = _apply(name, images.float(), magnitude / 30)
    assert (found - expected.float()).abs().max() <= 1.001, "it cuts fractions off"


@pytest.mark.parametrize("strength", [-1.0, 0.3, 0.9])
@pytest.mark.parametrize("name", MOVES)
def test_rand_augment_moves_pixels_as_torchvision_does(name: str, strength: float) -> None:
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2.functional import affine

    images = torch.nn.functional.avg_pool2d(_pixels(replace(RGB, width=24), 2).float(), 3, 1, 1)
    slant, shift = math.degrees(math.atan(0.3 * strength)), 150 / 331 * strength
    expected = affine(
        images,
        angle=30.0 * strength if name == "rotate" else 0.0,
        translate=[shift * 24 * (name == "translate_x"), shift * 16 * (name == "translate_y")],  # type: ignore[list-item]
        scale=1.0,
        shear=[slant * (name == "shear_x"), slant * (name == "shear_y")],
        interpolation=InterpolationMode.BILINEAR,
        fill=[128.0] * 3,
    )
    # Where the image ends torchvision mixes the filling in twice: a line one pixel wide.
    differing = (_apply(name, images, strength) - expected).abs() > 0.01
    assert float(differing.float().mean()) < 0.12


def test_rand_augment_gives_each_image_its_own_operations_and_keeps_their_order() -> None:
    one = _pixels(RGB, 1) // 2 + 30
    images = one.expand(64, -1, -1, -1).float().contiguous()
    out = rand_augment(images, 2, 15, torch.Generator().manual_seed(0))
    assert len({image.numpy().tobytes() for image in out}) > 40
    assert torch.equal(rand_augment(images, 0, 15, torch.Generator().manual_seed(0)), images)
    levels = torch.arange(64.0).mul(2).add(60)[:, None, None, None].expand(64, 1, 8, 8).contiguous()
    changed = rand_augment(levels, 2, 1, torch.Generator().manual_seed(0))
    assert ((changed - levels)[:, 0, 4, 4].abs() < 20).float().mean() > 0.8, "an operation of little strength"
    assert torch.equal(levels[:, 0, 0, 0], torch.arange(64.0).mul(2).add(60))


@pytest.mark.parametrize("depth", [8, 16])
def test_three_augment_makes_each_image_grey_or_inverts_its_bright_half_or_blurs_it(depth: int) -> None:
    spec = replace(RGB, bit_depth=depth, mean=(0.0,) * 3, std=(1.0,) * 3, height=32, width=32)
    pixels = _pixels(spec, 90)
    plain = _run(OFF, pixels, spec)[0]
    images = _run(replace(OFF, three_augment=True), pixels, spec)[0]
    grey = (images == images[:, :1]).flatten(1).all(1)
    inverted = ((images - torch.where(plain >= 0.5, 1 - plain, plain)).abs() < 1e-5).flatten(1).all(1)
    blurred = ~grey & ~inverted
    assert all(18 < int(some.sum()) < 42 for some in (grey, inverted, blurred))
    assert (images[blurred].std((1, 2, 3)) <= plain[blurred].std((1, 2, 3)) + 1e-4).all()
    torch.testing.assert_close(images[blurred].mean((2, 3)), plain[blurred].mean((2, 3)), atol=0.02, rtol=0)
    red, green, blue = plain[grey].unbind(1)
    torch.testing.assert_close(images[grey][:, 0], 0.2989 * red + 0.587 * green + 0.114 * blue, atol=1e-3, rtol=0)


@pytest.mark.parametrize(("channels", "kinds"), [(1, 2), (6, 1)])
def test_three_augment_leaves_out_what_other_images_cannot_bear(channels: int, kinds: int) -> None:
    step = torch.cat([torch.full((40, channels, 16, 8), 0.1), torch.full((40, channels, 16, 8), 0.9)], -1)
    out = three_augment(step, 1.0, torch.Generator().manual_seed(0))
    flat = (out[:, 0, 0, -1] < 0.5).sum()  # the bright half was inverted
    assert (10 < int(flat) < 30) if kinds == 2 else int(flat) == 0
    assert not torch.equal(out, step)


def test_a_padded_crop_shifts_by_whole_pixels_and_fills_with_the_mirrored_image() -> None:
    pixels = _pixels(RAW, 200)
    images, _ = _run(replace(OFF, pad_crop=2), pixels, RAW)
    padded = torch.nn.functional.pad(pixels.float() / 255, (2, 2, 2, 2), mode="reflect")
    windows = torch.stack([padded[:, :, y : y + 16, x : x + 16] for y in range(5) for x in range(5)])
    match = ((images - windows).abs() < 1e-6).flatten(2).all(2)
    assert (match.sum(0) == 1).all()
    assert (match.sum(1) > 0).all()


def test_symmetries_and_shifts_taken_as_an_index_are_those_of_the_affine_map() -> None:
    """With a rotation of no degree the same draws go through sampling."""
    pixels = _pixels(RGB, 64)
    config = replace(OFF, horizontal_flip=True, vertical_flip=True, quarter_turns=True)
    indexed, _ = _run(config, pixels, RGB)
    sampled, _ = _run(replace(config, rotate=1e-6), pixels, RGB)
    torch.testing.assert_close(indexed, sampled, atol=1e-3, rtol=0)


@pytest.mark.parametrize("config", [OFF, ALL, replace(OFF, horizontal_flip=True, quarter_turns=True)])
def test_smaller_images_are_the_large_ones_shrunk_and_changed_alike(config: AugmentConfig) -> None:
    spec = replace(RGB, height=32, width=32)
    augment = Augment(replace(config, noise=0.0), spec, 3, 0.0)
    smooth = torch.nn.functional.interpolate(_pixels(RGB).float(), (32, 32), mode="bicubic").clamp(0, 255)
    pixels, labels = smooth.to(torch.uint8), torch.arange(8) % 3
    large, small = (
        augment(pixels, labels, torch.Generator().manual_seed(3), mix=True, size=size)[0] for size in (None, (16, 16))
    )
    assert small.shape == (8, 3, 16, 16)
    shrunk = torch.nn.functional.avg_pool2d(large, 2)
    # Equal but for the fine structure that shrinking loses.
    assert float((small - shrunk).abs().mean()) < 0.35 * float((shrunk - shrunk.roll(1, 0)).abs().mean())


def test_rotation_angles_are_degrees() -> None:
    """A horizontal ramp turned by an angle has the gradient's direction turned by that angle."""
    spec = InputSpec(height=100, width=100, channels=1, mean=(0.0,), std=(1.0,))
    ramp = torch.arange(100, dtype=torch.uint8).expand(200, 1, 100, 100).contiguous()
    images, _ = _run(replace(OFF, rotate=30.0), ramp, spec)
    dx = images[:, 0, 50, 55] - images[:, 0, 50, 45]
    dy = images[:, 0, 55, 50] - images[:, 0, 45, 50]
    degrees = torch.atan2(dy, dx).abs() * 180 / math.pi
    assert 28 < degrees.max() <= 30.01
