"""Occlusion and faithfulness against models whose reasons are known."""

from __future__ import annotations

import numpy as np
import pytest

from vitreous.engines import Outputs
from vitreous.explanation.faithfulness import Faithfulness, measure
from vitreous.explanation.masking import cell_of_pixel, masked_scores
from vitreous.explanation.occlusion import occlusion_grid, occlusion_map


class PlantedPatch:
    """Says class 1 by as much as one patch (rows 8 to 11, columns 16 to 19) is bright, and sees nothing else."""

    name = "planted"

    def __init__(self) -> None:
        self.largest_batch = 0

    def predict(self, batch: np.ndarray) -> Outputs:
        self.largest_batch = max(self.largest_batch, len(batch))
        bright = batch[:, :, 8:12, 16:20].mean(axis=(1, 2, 3))
        logits = np.stack([np.zeros_like(bright), 8 * bright - 4], axis=1).astype(np.float32)
        return Outputs(logits, bright[:, None])


def scene(seed: int = 0) -> np.ndarray:
    image = np.random.default_rng(seed).normal(0, 0.1, (3, 20, 28)).astype(np.float32)
    image[:, 8:12, 16:20] = 1.0
    return image


def planted_probability(batch: np.ndarray) -> np.ndarray:
    logit = PlantedPatch().predict(batch).logits[:, 1].astype(np.float64)
    return np.stack([1 / (1 + np.exp(logit)), 1 / (1 + np.exp(-logit))], axis=1)


TRUE_MAP = np.zeros((5, 7), np.float32)
TRUE_MAP[2, 4] = 1.0


def test_the_true_map_beats_chance_and_its_opposite_loses() -> None:
    found = measure(planted_probability, scene(), TRUE_MAP, 1)
    assert found.deletion < found.random_deletion - 0.2
    assert found.insertion > found.random_insertion + 0.2
    assert found.beats_random
    wrong = measure(planted_probability, scene(), -TRUE_MAP, 1)
    assert wrong.deletion > wrong.random_deletion and wrong.insertion < wrong.random_insertion
    assert not wrong.beats_random


def test_the_areas_are_those_of_the_curves_drawn_by_hand() -> None:
    # Four cells in a row, the probability is the share of cells still bright: both curves are straight lines.
    image = np.array([[[1.0, -1.0, 1.0, -1.0]]], np.float32)

    def brightness(batch: np.ndarray) -> np.ndarray:
        return np.stack([1 - np.abs(batch).mean((1, 2, 3)), np.abs(batch).mean((1, 2, 3))], axis=1)

    found = measure(brightness, image, np.array([[4.0, 3.0, 2.0, 1.0]]), 1)
    assert list(found.to_dict().values()) == pytest.approx([0.5] * 4)

    # The probability is 1 while the first cell is bright: hidden first the area is that of one falling step of 1/4.
    def first_cell(batch: np.ndarray) -> np.ndarray:
        return np.stack([1 - batch[:, 0, 0, 0], batch[:, 0, 0, 0]], axis=1)

    found = measure(first_cell, image, np.array([[4.0, 3.0, 2.0, 1.0]]), 1)
    assert (found.deletion, found.insertion) == pytest.approx((0.125, 0.875))


def test_the_same_seed_gives_the_same_scores_and_a_flat_map_scores_like_chance() -> None:
    flat = np.ones((5, 7), np.float32)
    first = measure(planted_probability, scene(), flat, 1, seed=3)
    assert first == measure(planted_probability, scene(), flat, 1, seed=3)
    means = np.mean([measure(planted_probability, scene(), flat, 1, seed=seed).deletion for seed in range(30)])
    assert means == pytest.approx(0.5, abs=0.12)


def test_a_map_is_trusted_when_it_beats_chance_in_either_way() -> None:
    assert Faithfulness(0.2, 0.4, 0.3, 0.5).beats_random
    assert Faithfulness(0.4, 0.6, 0.3, 0.5).beats_random
    assert not Faithfulness(0.3, 0.5, 0.3, 0.5).beats_random


def test_a_map_of_one_cell_can_be_measured() -> None:
    found = measure(planted_probability, scene(), np.ones((1, 1), np.float32), 1)
    assert found.deletion == pytest.approx(found.random_deletion)


def test_hidden_cells_take_the_mean_of_the_image_and_others_stay() -> None:
    image = scene()
    seen: list[np.ndarray] = []

    def record(batch: np.ndarray) -> np.ndarray:
        seen.append(batch)
        return planted_probability(batch)

    shown = np.ones((1, 5, 7), bool)
    shown[0, 2, 4] = False
    masked_scores(record, image, shown, 1)
    hidden = seen[0][0]
    assert np.allclose(hidden[:, 8:12, 16:20], image.mean(axis=(1, 2))[:, None, None])
    hidden[:, 8:12, 16:20] = image[:, 8:12, 16:20]
    assert np.array_equal(hidden, image)


@pytest.mark.parametrize("window", [1, 2, 3])
def test_occlusion_finds_the_planted_patch(window: int) -> None:
    engine = PlantedPatch()
    found = occlusion_map(engine, scene()[None], np.array([1]), grid=(5, 7), window=window)[0]
    assert found.shape == (5, 7) and found.dtype == np.float32
    assert np.unravel_index(found.argmax(), found.shape) == (2, 4)
    assert engine.largest_batch <= 32


def test_occlusion_of_one_cell_at_a_time_is_the_fall_in_probability() -> None:
    image = scene()
    found = occlusion_map(PlantedPatch(), image[None], np.array([1]), grid=(5, 7), window=1)[0]
    hidden = image.copy()
    hidden[:, 8:12, 16:20] = image.mean(axis=(1, 2))[:, None, None]
    before, after = planted_probability(np.stack([image, hidden]))[:, 1]
    assert found[2, 4] == pytest.approx(before - after, abs=1e-6)
    found[2, 4] = 0
    assert np.abs(found).max() < 1e-6


def test_occlusion_of_the_other_class_is_the_opposite() -> None:
    images = np.stack([scene(), scene()])
    one, other = occlusion_map(PlantedPatch(), images, np.array([1, 0]))
    assert np.allclose(one, -other, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((224, 224), (14, 14)),
        ((8, 8), (4, 4)),
        ((160, 320), (7, 14)),
        ((1, 1), (1, 1)),
        ((28, 3), (14, 2)),
        ((32, 32), (11, 11)),
    ],
)
def test_the_occlusion_grid_has_nearly_square_cells_and_at_most_fourteen_a_side(
    size: tuple[int, int], grid: tuple[int, int]
) -> None:
    assert occlusion_grid(*size) == grid


def test_cells_differ_by_at_most_one_pixel_and_all_are_used() -> None:
    for pixels, cells in ((224, 14), (32, 11), (7, 7), (5, 2)):
        counts = np.bincount(cell_of_pixel(pixels, cells), minlength=cells)
        assert counts.sum() == pixels and counts.max() - counts.min() <= 1
