from __future__ import annotations

import numpy as np
import pytest

from vitreous.data.sampling import balanced_order

LABELS = np.repeat([0, 1, 2], [300, 24, 61])


def test_every_class_is_shown_equally_often_up_to_one_image() -> None:
    order = balanced_order(LABELS, seed=0)
    for epoch in range(5):
        counts = np.bincount(LABELS[order(epoch)], minlength=3)
        assert counts.sum() == len(LABELS)
        assert counts.max() - counts.min() <= 1
    total = np.bincount(LABELS[np.concatenate([order(epoch) for epoch in range(9)])], minlength=3)
    assert total.max() - total.min() <= 1, "the odd rows go round the classes"


def test_a_small_class_goes_round_evenly_and_a_large_one_is_not_repeated_before_all_of_it_was_shown() -> None:
    order = balanced_order(LABELS, seed=1)
    first = np.bincount(order(0), minlength=len(LABELS))
    rare, common = first[LABELS == 1], first[LABELS == 0]
    assert rare.min() >= 1
    assert rare.max() - rare.min() <= 1
    assert common.max() == 1
    shown = [rows[LABELS[rows] == 0] for rows in map(order, range(3))]
    assert len(np.unique(np.concatenate(shown[:2]))) == len(shown[0]) + len(shown[1]) < 300
    assert len(np.unique(np.concatenate(shown))) == 300


def test_an_epoch_is_the_same_whichever_was_asked_for_before_and_differs_from_others_and_other_seeds() -> None:
    order, again = balanced_order(LABELS, seed=3), balanced_order(LABELS, seed=3)
    third = order(2)
    _ = order(7)
    np.testing.assert_array_equal(again(2), third)
    assert not np.array_equal(order(3), third)
    assert not np.array_equal(balanced_order(LABELS, seed=4)(2), third)


@pytest.mark.parametrize("labels", [np.zeros(5, int), np.array([1, 1, 4]), np.arange(7)])
def test_one_class_missing_classes_and_single_images_are_taken(labels: np.ndarray) -> None:
    rows = np.concatenate([balanced_order(labels, seed=0)(epoch) for epoch in range(len(labels))])
    assert set(rows.tolist()) == set(range(len(labels)))
    counts = np.bincount(labels[rows])
    assert np.ptp(counts[counts > 0]) <= 1


def test_equal_classes_show_every_image_once() -> None:
    rows = balanced_order(np.repeat([0, 1], 20), seed=0)(4)
    np.testing.assert_array_equal(np.sort(rows), np.arange(40))
