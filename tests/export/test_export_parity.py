"""The proof must fail for what is wrong, and only for that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from vitreous.config.input import InputSpec
from vitreous.engines import Outputs
from vitreous.errors import GateError
from vitreous.export.parity import prove, synthetic_images

SPEC = InputSpec(height=12, width=20, classes=("a", "b", "c"))
WEIGHTS = np.random.default_rng(0).normal(0, 1, (3 * 12 * 20, 3)).astype(np.float32)


@dataclass
class Linear:
    """A linear model whose outputs may be tampered with."""

    change: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]] = lambda logits, features: (
        logits,
        features,
    )
    name: str = "linear"

    def predict(self, batch: np.ndarray) -> Outputs:
        features = batch.reshape(len(batch), -1) @ WEIGHTS / 27
        return Outputs(*self.change(features * 2, features))


def test_a_model_agrees_with_itself() -> None:
    found = prove(Linear(), Linear(), SPEC)
    assert found.passed and found.max_abs_difference == 0 and found.top1_agreement == 1
    assert found.to_dict()["batches"] == [1, 3, 8]


@pytest.mark.parametrize("which", ["logits", "features"])
def test_a_difference_in_either_output_fails(which: str) -> None:
    def nudge(logits: np.ndarray, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        amount = 1e-2
        return (logits + amount, features) if which == "logits" else (logits, features + amount)

    found = prove(Linear(), Linear(nudge), SPEC)
    assert not found.passed and found.max_abs_difference == pytest.approx(1e-2, rel=0.01)
    assert prove(Linear(), Linear(nudge), SPEC, tolerance=0.02).passed


def test_not_a_number_fails() -> None:
    def spoil(logits: np.ndarray, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        features = features.copy()
        features[-1, 0] = np.nan
        return logits, features

    assert not prove(Linear(), Linear(spoil), SPEC).passed


def test_an_error_that_shows_in_larger_batches_only_is_found() -> None:
    def first_for_all(logits: np.ndarray, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.repeat(logits[:1], len(logits), 0), features

    assert prove(Linear(), Linear(first_for_all), SPEC, batches=(1,)).passed
    assert not prove(Linear(), Linear(first_for_all), SPEC).passed


def test_rounding_is_judged_by_the_size_of_what_is_rounded() -> None:
    def large(logits: np.ndarray, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return logits, features * 1000

    def large_and_rounded(logits: np.ndarray, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return logits, features * 1000 + 1e-3

    found = prove(Linear(large), Linear(large_and_rounded), SPEC)
    assert found.passed and found.max_abs_difference > 1e-4


def test_a_tie_within_tolerance_agrees_and_a_wider_gap_does_not() -> None:
    def tied(gap: float) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        return lambda logits, features: (logits * 0 + np.array([gap, 0, -1], np.float32), features)

    assert prove(Linear(tied(5e-5)), Linear(tied(-5e-5)), SPEC).passed
    found = prove(Linear(tied(5e-4)), Linear(tied(-5e-4)), SPEC, tolerance=1e-4)
    assert not found.passed and found.top1_agreement == 0


def test_a_candidate_that_cannot_take_a_batch_or_answers_in_another_shape_is_refused() -> None:
    def fails(logits: np.ndarray, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if len(logits) > 2:
            raise RuntimeError("batch is fixed at 2")
        return logits, features

    with pytest.raises(GateError, match="batch of 3"):
        prove(Linear(), Linear(fails), SPEC)
    with pytest.raises(GateError, match="shape"):
        prove(Linear(), Linear(lambda logits, features: (logits[:1], features)), SPEC, batches=(2,))


def test_the_images_given_are_compared_too() -> None:
    marked = np.full((10, 3, 12, 20), 7.0, np.float32)

    class Fooled(Linear):
        def predict(self, batch: np.ndarray) -> Outputs:
            found = super().predict(batch)
            return Outputs(found.logits + (batch[:, 0, 0, :1] == 7.0), found.features)

    assert prove(Linear(), Fooled(), SPEC).passed
    assert not prove(Linear(), Fooled(), SPEC, images=marked).passed


@pytest.mark.parametrize(
    "spec", [SPEC, InputSpec(height=8, width=8, channels=1, mean=(0.3,), std=(0.2,), bit_depth=16)]
)
def test_synthetic_images_are_smooth_varied_seeded_and_in_the_range_of_real_ones(spec: InputSpec) -> None:
    images = synthetic_images(spec, 4, seed=1)
    assert images.shape == (4, *spec.shape) and images.dtype == np.float32
    assert np.array_equal(images, synthetic_images(spec, 4, seed=1))
    assert not np.array_equal(images, synthetic_images(spec, 4, seed=2))
    brightness = images * np.array(spec.std)[:, None, None] + np.array(spec.mean)[:, None, None]
    assert brightness.min() >= -1e-6 and brightness.max() <= 1 + 1e-6 and brightness.std() > 0.1
    assert np.abs(np.diff(brightness, axis=-1)).mean() < brightness.std()
    assert np.abs(images[0] - images[1]).max() > 0.1
