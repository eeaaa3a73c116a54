from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest

from vitreous.data.splitting.bursts import group_by_camera
from vitreous.data.splitting.folds import make_folds
from vitreous.errors import DataError


def test_folds_of_single_images_differ_by_one_image_of_a_class_at_most() -> None:
    labels = np.repeat([0, 1, 2], [203, 57, 11])
    folds = make_folds(labels, np.arange(len(labels)), 5, seed=0)
    assert folds.shape == labels.shape
    for label in range(3):
        counts = np.bincount(folds[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 1
    sizes = np.bincount(folds, minlength=5)
    assert sizes.max() - sizes.min() <= 2


@pytest.mark.parametrize("seed", range(5))
def test_units_are_never_divided_and_no_class_is_missing_where_units_suffice(seed: int) -> None:
    rng = np.random.default_rng(seed)
    units = rng.integers(0, 120, 900) * 7
    labels = (units // 7 + (rng.random(900) < 0.2)) % 4
    folds = make_folds(labels, units, 6, seed)
    of_unit: defaultdict[int, set[int]] = defaultdict(set)
    for unit, fold in zip(units, folds, strict=True):
        of_unit[unit].add(int(fold))
    assert all(len(found) == 1 for found in of_unit.values())
    assert np.bincount(folds).min() > 0.85 * 150
    assert np.bincount(folds).max() < 1.15 * 150
    for label in range(4):
        share = np.array([np.mean(labels[folds == fold] == label) for fold in range(6)])
        assert np.abs(share - np.mean(labels == label)).max() < 0.07


def test_the_seed_decides_the_folds_and_the_order_of_images_does_not() -> None:
    rng = np.random.default_rng(0)
    units, labels = rng.integers(0, 60, 300), rng.integers(0, 3, 300)
    first = make_folds(labels, units, 5, seed=1)
    order = rng.permutation(300)
    assert (make_folds(labels[order], units[order], 5, seed=1) == first[order]).all()
    assert (make_folds(labels, units, 5, seed=2) != first).any()


@pytest.mark.parametrize("k", [1, 4])
def test_more_folds_than_units_are_refused(k: int) -> None:
    with pytest.raises(DataError, match=f"{k} folds cannot be made of 3 independent groups"):
        make_folds(np.array([0, 1, 1, 0]), np.array([5, 5, 6, 7]), k, seed=0)


def test_images_of_one_camera_within_the_gap_form_a_group() -> None:
    cameras = ["A", "B", "A", "A", "A", "", "A"]
    taken = [
        "2024:05:01 10:00:00",
        "2024:05:01 10:00:00",
        "2024:05:01 10:05:00",
        "2024:05:01 10:10:00",
        "2024:05:01 10:15:01",
        "2024:05:01 10:00:00",
        "",
    ]
    groups = group_by_camera(cameras, taken)
    assert groups[0] == groups[2] == groups[3]
    assert len({groups[0], groups[1], groups[4]}) == 3
    assert groups[5] is None
    assert groups[6] is None


def test_bursts_depend_on_neither_order_nor_day_boundaries() -> None:
    taken = ["2023:12:31 23:59:00", "2024:01:01 00:01:00", "2024:01:01 08:00:00"]
    groups = group_by_camera(["A"] * 3, taken)
    assert groups[0] == groups[1] != groups[2]
    assert group_by_camera(["A"] * 3, taken[::-1]) == groups[::-1]
    assert len(Counter(group_by_camera(["A"] * 3, taken, gap_seconds=60))) == 3


@pytest.mark.parametrize("text", ["0000:00:00 00:00:00", "    :  :     :  :  ", "2024-05-01", "\0"])
def test_a_time_that_is_none_gives_no_group(text: str) -> None:
    assert group_by_camera(["A", "A"], [text, text]) == [None, None]


def test_the_serial_number_of_a_camera_is_not_in_the_name() -> None:
    (name,) = group_by_camera(["Maker Model 123456"], ["2024:05:01 10:00:00"])
    assert name is not None
    assert name.startswith("2024-05-01 10:00:00 ")
    assert "123456" not in name
