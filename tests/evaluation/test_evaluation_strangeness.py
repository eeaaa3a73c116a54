from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vitreous.errors import DataError, VitreousError
from vitreous.evaluation.strangeness import fit_strangeness, with_looks
from vitreous.runs.decision import Strangeness


def features(num_images: int, num_features: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Three classes around different means, with a covariance that is far from round."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num_images) % 3
    stretch = np.linspace(0.2, 3, num_features)
    return (5 * np.eye(3, num_features)[labels] + rng.normal(size=(num_images, num_features)) * stretch), labels


def test_distances_are_mahalanobis_to_the_nearest_class_mean():
    train, labels = features(60000, 4, 0)
    points, _ = features(50, 4, 1)
    found = fit_strangeness(train, labels, points, 3)
    means = np.stack([train[labels == label].mean(axis=0) for label in range(3)])
    residuals = train - means[labels]
    inverse = np.linalg.inv(residuals.T @ residuals / (60000 - 3))
    offsets = points[:, None] - means
    expected = np.sqrt(np.einsum("nkd,de,nke->nk", offsets, inverse, offsets).min(axis=1))
    np.testing.assert_allclose(found.distances(points), expected, rtol=0.02)
    np.testing.assert_allclose(found.reference, np.sort(found.distances(points)))


def test_validation_images_spread_evenly_and_strangers_score_one():
    train, labels = features(600, 16, 0)
    val, _ = features(300, 16, 1)
    fresh, _ = features(300, 16, 2)
    found = fit_strangeness(train, labels, val, 3)
    assert 0.4 < found.score(fresh).mean() < 0.6
    np.testing.assert_array_equal(found.score(40 + np.zeros((5, 16))), np.ones(5))


@pytest.mark.parametrize(("num_images", "num_features"), [(30, 200), (3, 8), (1, 5), (200, 1)])
def test_few_images_or_many_features_give_finite_distances(num_images: int, num_features: int):
    train, labels = features(num_images, num_features, 0)
    val, _ = features(40, num_features, 1)
    found = fit_strangeness(train, labels, val, 3)
    assert np.isfinite(found.distances(val)).all()
    assert (np.diff(found.reference) >= 0).all()


def test_more_features_than_images_still_tell_a_stranger():
    train, labels = features(60, 300, 0)
    val, _ = features(60, 300, 1)
    found = fit_strangeness(train, labels, val, 3)
    assert found.score(val[:5] + 30).min() == 1


def test_constant_features_are_harmless_until_they_move():
    train, labels = features(300, 6, 0)
    val, _ = features(100, 6, 1)
    train[:, 2] = val[:, 2] = 7.0
    found = fit_strangeness(train, labels, val, 3)
    assert 0 < np.median(found.reference) < 10
    moved = val[:1].copy()
    moved[:, 2] = 9.0
    assert found.score(moved) == 1
    assert np.isfinite(fit_strangeness(np.ones((9, 4)), labels[:9], np.ones((3, 4)), 3).reference).all()


def test_a_class_without_training_images_attracts_nothing():
    train, labels = features(300, 6, 0)
    val, _ = features(100, 6, 1)
    without = fit_strangeness(train[labels != 2], labels[labels != 2], val, 3)
    assert without.means.shape == (2, 6)
    stranger = 5 * np.eye(3, 6)[[2]] * 4
    assert without.score(stranger) >= fit_strangeness(train, labels, val, 3).score(stranger)


def test_it_survives_saving(tmp_path: Path):
    train, labels = features(90, 5, 0)
    found = fit_strangeness(train, labels, train[:20], 3)
    found.save(tmp_path / "strangeness.npz")
    np.testing.assert_array_equal(Strangeness.load(tmp_path / "strangeness.npz").score(train), found.score(train))


def test_an_empty_part_or_broken_features_are_refused():
    train, labels = features(9, 4, 0)
    with pytest.raises(DataError, match="at least one"):
        fit_strangeness(train, labels, train[:0], 3)
    with pytest.raises(VitreousError, match="not finite"):
        fit_strangeness(train * np.nan, labels, train, 3)


@pytest.fixture
def usual() -> tuple[Strangeness, np.ndarray, np.ndarray, np.ndarray]:
    """A strangeness of features, looks and energy; and features, logits and looks of 50 fresh images like its own."""
    rng = np.random.default_rng(5)

    def seen(count: int) -> np.ndarray:
        return rng.normal(size=(count, 9))

    def logits(labels: np.ndarray) -> np.ndarray:
        return 6 * np.eye(3)[labels] + rng.normal(size=(len(labels), 3))

    (train, labels), (val, val_labels), (fresh, fresh_labels) = (
        features(n, 16, s) for n, s in ((600, 0), (300, 1), (50, 2))
    )
    fitted = fit_strangeness(train, labels, val, 3)
    fitted = with_looks(fitted, seen(600), seen(300), val, logits(val_labels))
    return fitted, fresh, logits(fresh_labels), seen(50)


def test_usual_images_spread_evenly_when_looks_and_energy_count_too(usual: tuple) -> None:
    fitted, *said = usual
    assert 0.35 < fitted.strange(*said).mean() < 0.65


def test_each_of_the_three_alone_makes_an_image_strange(usual: tuple) -> None:
    fitted, own, logits, seen = usual
    assert fitted.strange(own + 40, logits, seen).min() == 1
    assert fitted.strange(own, logits * 0, seen).min() == 1
    assert fitted.strange(own, logits, seen + 20).min() == 1


def test_a_stranger_by_looks_survives_saving_and_old_files_know_the_distance_alone(
    usual: tuple, tmp_path: Path
) -> None:
    fitted, *said = usual
    fitted.save(tmp_path / "new.npz")
    again = Strangeness.load(tmp_path / "new.npz")
    np.testing.assert_array_equal(again.strange(*said), fitted.strange(*said))
    replace(fitted, beside=None).save(tmp_path / "old.npz")
    old = Strangeness.load(tmp_path / "old.npz")
    assert old.beside is None
    np.testing.assert_array_equal(old.strange(*said), fitted.score(said[0]))


def test_digits_that_engines_differ_in_make_no_image_stranger_than_itself(usual: tuple) -> None:
    fitted, own, logits, seen = usual
    jitter = 1 + 1e-5 * np.random.default_rng(0).normal(size=own.shape)
    assert fitted.beside is not None
    before, after = fitted.strange(own, logits, seen), fitted.strange(own * jitter, logits, seen)
    assert np.abs(before - after).max() <= 2 / len(fitted.beside.reference)
