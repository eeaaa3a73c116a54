from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from vitreous.config.input import InputSpec
from vitreous.config.train import AugmentConfig
from vitreous.data.augmentation.augment import Augment
from vitreous.data.augmentation.size import SizePlan, plan_sizes
from vitreous.data.batches import TrainBatches
from vitreous.errors import UsageError
from vitreous.recipes import AUGMENTATION

torch.set_num_threads(1)
HALF = AugmentConfig(start_size=0.5, full_size_from=0.6)


def _plan(config: AugmentConfig = HALF, full: tuple[int, int] = (32, 32), patch: int = 4, held: int = 10) -> SizePlan:
    plan = plan_sizes(config, full, (patch, patch), held)
    assert plan is not None
    return plan


def test_sizes_grow_to_the_full_one_in_steps_of_whole_patches() -> None:
    assert _plan().sizes == ((16, 16), (20, 20), (28, 28), (32, 32))
    assert _plan(full=(224, 112), patch=16).sizes == ((112, 64), (144, 80), (192, 96), (224, 112))
    assert _plan(replace(HALF, start_size=0.01)).sizes[0] == (8, 8), "never fewer than two patches a side"


def test_each_size_has_an_equal_part_of_the_steps_and_the_full_one_the_rest() -> None:
    plan = _plan()
    stages = [plan.stage(step, 100) for step in range(100)]
    assert stages == sorted(stages)
    assert plan.at(59, 100) == (28, 28)
    assert plan.at(60, 100) == plan.at(99, 100) == (32, 32)
    assert np.bincount(stages)[3] == 40
    assert stages[:10] == [0] * 10
    assert all(16 <= count <= 27 for count in np.bincount(stages)[:3])


@pytest.mark.parametrize("steps", [11, 40, 1000])
def test_the_warm_up_has_one_size_however_many_steps_follow(steps: int) -> None:
    plan = _plan(replace(HALF, full_size_from=0.05))
    assert {plan.at(step, steps) for step in range(10)} == {(16, 16)}
    assert plan.at(steps - 1, steps) == (32, 32)


def test_without_a_start_size_there_is_no_plan() -> None:
    assert plan_sizes(AugmentConfig(), (32, 32), (4, 4), 0) is None
    assert plan_sizes(AugmentConfig(start_size=1.0, full_size_from=0.7), (32, 32), (4, 4), 0) is None


def test_a_start_size_that_changes_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match=r"start-size 0.5 .*full-size-from 0 "):
        _plan(replace(HALF, full_size_from=0.0))
    with pytest.raises(UsageError, match=r"start-size 0\.5 leaves 8 x 8 pixels as they are"):
        _plan(full=(8, 8))


@pytest.mark.parametrize("begin", [0, 7, 10, 33, 95, 100])
def test_the_cost_of_many_steps_is_the_sum_of_each(begin: int) -> None:
    plan = _plan()
    by_hand = sum(plan.relative_cost(step, 100) for step in range(begin, 100))
    assert plan.total_cost(begin, 100) == pytest.approx(by_hand)
    assert plan.relative_cost(0, 100) == 0.25
    assert plan.relative_cost(99, 100) == 1


class _Kept:
    """A store of pixels that no file need hold."""

    where = "memory"

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def get(self, rows: np.ndarray, *, beside_training: bool = False) -> np.ndarray:
        return self.pixels[rows]


def _batches(config: AugmentConfig, batch_size: int = 8, count: int = 20) -> TrainBatches:
    spec = InputSpec(height=16, width=16, mean=(0.5,) * 3, std=(0.2,) * 3)
    pixels = np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3)).astype(np.uint8)
    plan = _plan(replace(config, start_size=0.5, full_size_from=0.6), full=(16, 16), held=2)
    return TrainBatches(
        _Kept(pixels),  # type: ignore[arg-type]
        np.arange(count) % 2,
        batch_size=batch_size,
        seed=0,
        augment=Augment(config, spec, 2, 0.0),
        mix_until_step=0,
        size=lambda step: plan.at(step, 10),
    )


def test_batches_have_the_size_of_their_step_and_are_the_same_when_asked_for_again() -> None:
    config = AUGMENTATION["natural"]
    sides = [images.shape[-1] for _, images, _ in _batches(config).prefetch(0, 10)]
    assert sides == sorted(sides)
    assert sides[0] == 8
    assert sides[6:] == [16] * 4
    assert torch.equal(_batches(config).batch(3)[0], _batches(config).batch(3)[0])


@pytest.mark.parametrize(("batch_size", "repeats"), [(8, 2), (9, 3), (8, 3), (7, 64)])
def test_each_image_stands_repeatedly_in_its_batch_and_each_time_different(batch_size: int, repeats: int) -> None:
    batches = _batches(replace(AUGMENTATION["natural"], repeats=repeats), batch_size)
    different = -(-batch_size // repeats)
    for step in (0, 5):
        rows = batches.rows(step)
        copies = np.bincount(rows)[np.unique(rows)]
        assert len(rows) == batch_size
        assert len(copies) == different
        assert copies.max() - copies.min() <= 1
        images, targets = batches.batch(step)
        assert len({image.numpy().tobytes() for image in images}) == batch_size
        assert targets.argmax(1).tolist() == (rows % 2).tolist()
        if different > 1:
            assert (rows != np.roll(rows, 1)).all(), "neighbours, which mixing joins, are different images"


def test_repeats_leave_the_length_of_an_epoch_and_miss_no_image() -> None:
    repeated, plain = (_batches(replace(AUGMENTATION["natural"], repeats=repeats), 6, 21) for repeats in (3, 1))
    assert repeated.steps_per_epoch == plain.steps_per_epoch == 4
    # Seven epochs of 3.5 batches are two passes and a third; of the first two each image has had three copies.
    seen = np.concatenate([repeated.rows(step) for step in range(21)])
    assert (np.bincount(seen, minlength=21) == 6).all()
    assert np.array_equal(_batches(replace(AUGMENTATION["natural"], repeats=3), 6, 21).rows(17), repeated.rows(17))


def test_repeats_end_before_training_does_and_the_stream_of_images_goes_on() -> None:
    batches = _batches(replace(AUGMENTATION["natural"], repeats=3), 6, 24)
    batches.strong_until_step = 4
    before = np.concatenate([batches.rows(step)[:2] for step in range(4)])
    after = np.concatenate([batches.rows(step) for step in range(4, 8)])
    assert all(len(np.unique(batches.rows(step))) == 2 for step in range(4))
    assert all(len(np.unique(batches.rows(step))) == 6 for step in (4, 5, 7))  # 6 lies in two passes
    # Eight images of the first pass were seen with copies; the rest of it follows, then the next pass.
    assert sorted([*before, *after[:16]]) == list(range(24))
    images, _ = batches.batch(5)
    assert len(images) == 6
