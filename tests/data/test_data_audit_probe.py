"""The quick probe: out of fold, honest, and about as good as logistic regression on the same features."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from vitreous.data.audit.features import VISUAL_BLOCKS, border_features, ring_features, tiny_features, visual_features
from vitreous.data.audit.probe import out_of_fold, out_of_fold_several
from vitreous.errors import DataError


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Thumbnails uint8 (600, 32, 32, 3) and labels of the first digits."""
    bunch: Any = load_digits()
    images = np.rint(bunch.images[:600] * (255 / 16)).astype(np.uint8)
    large = images.repeat(4, axis=1).repeat(4, axis=2)
    return np.repeat(large[..., None], 3, axis=3), np.asarray(bunch.target[:600], np.int64)


def _blobs(count: int, classes: int, seed: int, distance: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, count)
    centers = generator.standard_normal((classes, 8)) * distance
    return (centers[labels] + generator.standard_normal((count, 8))).astype(np.float32), labels


def test_digits_are_told_about_as_well_as_logistic_regression_tells_them(
    digits: tuple[np.ndarray, np.ndarray],
) -> None:
    thumbnails, labels = digits
    features = visual_features(thumbnails)
    probabilities = out_of_fold(features, labels, np.arange(600), 10, seed=0, blocks=VISUAL_BLOCKS, components=384)
    assert probabilities.shape == (600, 10)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    reference = cross_val_predict(make_pipeline(StandardScaler(), LogisticRegression()), features, labels, cv=3)
    accuracy = float((probabilities.argmax(1) == labels).mean())
    assert accuracy > 0.95
    assert accuracy > float(np.mean(np.asarray(reference) == labels)) - 0.02


def test_probabilities_are_about_as_often_right_as_they_say() -> None:
    features, labels = _blobs(1500, 4, 0, distance=0.6)
    probabilities = out_of_fold(features, labels, np.arange(1500), 4, seed=0, components=256)
    right, sure = (probabilities.argmax(1) == labels).mean(), probabilities.max(1).mean()
    assert 0.4 < right < 0.9
    assert abs(right - sure) < 0.06


def test_nothing_is_found_in_shuffled_labels() -> None:
    features, labels = _blobs(800, 4, 1)
    labels = np.random.default_rng(2).permutation(labels)
    probabilities = out_of_fold(features, labels, np.arange(800), 4, seed=0, components=256)
    assert abs(float((probabilities.argmax(1) == labels).mean()) - 0.25) < 0.06


def test_images_of_one_unit_do_not_vouch_for_each_other() -> None:
    """Ten copies of each of 40 random images with random labels: seen across folds they would be told perfectly."""
    generator = np.random.default_rng(0)
    features = generator.standard_normal((40, 20)).astype(np.float32).repeat(10, axis=0)
    labels = np.tile([0, 1], 20).repeat(10)
    units = np.arange(40).repeat(10)
    accuracy = (out_of_fold(features, labels, units, 2, seed=0).argmax(1) == labels).mean()
    alone = (out_of_fold(features, labels, np.arange(400), 2, seed=0).argmax(1) == labels).mean()
    assert accuracy < 0.75
    assert alone > 0.95


def test_the_label_of_a_fold_does_not_reach_its_own_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = _blobs(300, 3, 3, distance=1.0)
    folds = np.arange(300) % 5
    monkeypatch.setattr("vitreous.data.audit.probe.make_folds", lambda *_: folds)
    before = out_of_fold(features, labels, np.arange(300), 3, seed=0, components=128)
    changed = np.where(folds == 2, (labels + 1) % 3, labels)
    after = out_of_fold(features, changed, np.arange(300), 3, seed=0, components=128)
    np.testing.assert_array_equal(before[folds == 2], after[folds == 2])
    assert not np.allclose(before[folds == 0], after[folds == 0])


def test_balancing_lets_a_rare_class_be_found() -> None:
    generator = np.random.default_rng(0)
    labels = (np.arange(600) % 20 == 0).astype(np.int64)
    features = (labels[:, None] * 1.0 + generator.standard_normal((600, 4))).astype(np.float32)
    rare = labels == 1
    plain, balanced = (
        out_of_fold(features, labels, np.arange(600), 2, seed=0, kernel="linear", balanced=flag).argmax(1)
        for flag in (False, True)
    )
    assert (plain[rare] == 1).mean() < 0.4
    assert (balanced[rare] == 1).mean() > 0.6


def test_classes_with_fewer_images_than_folds_and_absent_classes_are_taken() -> None:
    features, labels = _blobs(200, 3, 4)
    labels[:2], labels[2] = 4, 5  # two images of class 4, one of class 5, none of class 3
    probabilities = out_of_fold(features, labels, np.arange(200), 7, seed=0, components=64)
    assert np.isfinite(probabilities).all()
    assert (probabilities[3:].argmax(1) == labels[3:]).mean() > 0.9
    assert probabilities[2, 5] < 0.2
    assert probabilities[:, 6].mean() < 0.05


def test_the_same_seed_gives_the_same_bytes_and_progress_ends_full() -> None:
    features, labels = _blobs(300, 3, 5)
    seen: list[tuple[int, int]] = []
    one = out_of_fold(features, labels, np.arange(300), 3, seed=7, progress=lambda *pair: seen.append(pair))
    other = out_of_fold(features, labels, np.arange(300), 3, seed=7)
    np.testing.assert_array_equal(one, other)
    assert seen[-1] == (600, 600)
    assert seen == sorted(seen)


def test_each_of_several_labels_is_told_by_itself() -> None:
    generator = np.random.default_rng(0)
    targets = generator.random((500, 3)) < np.asarray([0.5, 0.2, 0.05])
    mix = generator.standard_normal((3, 10)) * 3
    features = (targets @ mix + generator.standard_normal((500, 10))).astype(np.float32)
    probabilities = out_of_fold_several(features, targets, np.arange(500), seed=0, components=256)
    assert probabilities.shape == (500, 3)
    assert ((probabilities > 0.5) == targets).mean(0).min() > 0.95
    np.testing.assert_allclose(probabilities.mean(0), targets.mean(0), atol=0.03)


def test_what_cannot_be_probed_is_said() -> None:
    features, labels = _blobs(20, 2, 6)
    with pytest.raises(DataError, match="all images have one class"):
        out_of_fold(features, labels * 0, np.arange(20), 2, seed=0)
    with pytest.raises(DataError, match="at least three"):
        out_of_fold(features, labels, np.arange(20) % 2, 2, seed=0)
    features[3, 1] = np.nan
    with pytest.raises(DataError, match="finite"):
        out_of_fold(features, labels, np.arange(20), 2, seed=0)


def test_features_see_what_they_say_and_nothing_else(digits: tuple[np.ndarray, np.ndarray]) -> None:
    thumbnails = digits[0][:5].copy()
    assert visual_features(thumbnails).shape == (5, sum(VISUAL_BLOCKS))
    assert tiny_features(thumbnails).shape == (5, 192)
    inside = thumbnails.copy()
    inside[:, 2:-2, 2:-2] = 255 - inside[:, 2:-2, 2:-2]
    np.testing.assert_array_equal(border_features(inside), border_features(thumbnails))
    assert not np.allclose(ring_features(inside, 6), ring_features(thumbnails, 6))
    outside = thumbnails.copy()
    outside[:, :2] = 77
    assert not np.allclose(border_features(outside), border_features(thumbnails))
    np.testing.assert_array_equal(ring_features(outside, 6), ring_features(thumbnails, 6))


def test_features_of_an_image_do_not_depend_on_the_others(
    digits: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    thumbnails = digits[0][:20]
    whole = visual_features(thumbnails)
    monkeypatch.setattr("vitreous.data.audit.features.CHUNK", 7)
    np.testing.assert_allclose(visual_features(thumbnails), whole, atol=1e-6)
    with pytest.raises(ValueError, match="uint8"):
        visual_features(thumbnails[:, :16])
