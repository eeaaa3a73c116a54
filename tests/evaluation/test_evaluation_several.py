from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from vitreous.evaluation.groups import Grouping
from vitreous.evaluation.intervals import Interval, mean, wilson
from vitreous.evaluation.paired import compare_all, compare_pair
from vitreous.evaluation.several import combined_p, mean_accuracy, seeds_decide, widened


def runs(rng: np.random.Generator, seeds: int, images: int, *, luck: float) -> np.ndarray:
    """bool (s, n): images of different difficulty, seeds of different skill; right 80 times in 100 on average."""
    difficulty = rng.normal(0, 1, images)
    skill = rng.normal(0, luck, seeds)
    noise = rng.normal(0, 1, (seeds, images))
    return difficulty + skill[:, None] + noise < stats.norm.ppf(0.8) * np.sqrt(2 + luck**2)


def test_one_seed_has_the_interval_of_a_plain_share() -> None:
    hits = np.array([[True] * 90 + [False] * 10])
    found = mean_accuracy(hits, Grouping.of(None, 100))
    assert (found.low, found.high) == wilson(90, 100)


def test_the_interval_covers_other_seeds_and_other_images() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        found = mean_accuracy(runs(rng, 3, 300, luck=0.15), Grouping.of(None, 300))
        assert found.low is not None and found.high is not None
        covered += found.low <= 0.8 <= found.high
    assert 0.925 <= covered / 400 <= 0.995


def test_equal_seeds_give_no_less_than_the_images_allow() -> None:
    hits = np.tile(np.arange(100) < 90, (3, 1))
    found = mean_accuracy(hits, Grouping.of(None, 100))
    low, high = wilson(90, 100)
    assert found.low is not None and found.high is not None
    assert found.low <= low and found.high >= high
    assert found.high - found.low == pytest.approx(high - low, rel=0.05)


def test_the_difference_of_two_recipes_covers_nothing_where_they_are_alike() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        both = runs(rng, 6, 300, luck=0.15)
        gains = both[:3].astype(float) - both[3:]
        found = widened(mean(gains.mean(axis=0), Grouping.of(None, 300)), gains, Grouping.of(None, 300))
        assert found.low is not None and found.high is not None
        covered += found.low <= 0 <= found.high
    assert 0.93 <= covered / 200 <= 1.0


def test_seeds_that_agree_leave_the_interval_as_it_is() -> None:
    gains = np.tile(np.r_[np.ones(10), np.zeros(90)], (3, 1))
    plain = Interval(0.1, 0.05, 0.16, 100, "bootstrap")
    assert widened(plain, gains, Grouping.of(None, 100)) == plain


@pytest.mark.parametrize(
    ("p_values", "expected"),
    [([0.03], 0.03), ([0.01, 0.5], 0.02), ([0.01, 0.02, 0.9], 0.03), ([0.9, 0.8, 0.7], 1.0)],
)
def test_several_tests_become_one_by_the_middle_of_them(p_values: list[float], expected: float) -> None:
    assert combined_p(p_values) == pytest.approx(expected)


def test_the_combined_p_is_valid_however_the_tests_depend_on_each_other() -> None:
    rng = np.random.default_rng(2)
    for dependence in (0.0, 0.5, 0.95):
        shared, own = rng.normal(size=(20_000, 1)), rng.normal(size=(20_000, 3))
        p_values = stats.norm.sf(np.sqrt(dependence) * shared + np.sqrt(1 - dependence) * own)
        false_alarms = np.mean([combined_p(list(row)) < 0.05 for row in p_values])
        assert false_alarms <= 0.055


def test_a_pair_of_several_seeds_says_when_seeds_are_what_is_missing() -> None:
    right = np.ones((3, 400), bool)
    a, b = right.copy(), right.copy()
    for seed, wrong in enumerate((0, 60, 10)):
        a[seed, :wrong] = False
    for seed, wrong in enumerate((50, 5, 45)):
        b[seed, :wrong] = False
    assert seeds_decide(a.astype(float) - b)
    found = compare_pair(a, b, None, ("vit", "cnn"))
    assert found.seeds == 3 and found.more_seeds and found.more_images is None
    assert "more of them come before more images" in found.verdict


def test_a_clear_difference_of_several_seeds_is_claimed() -> None:
    a, b = np.ones((3, 400), bool), np.ones((3, 400), bool)
    a[:, :20], b[:, :60] = False, False
    b[1, 60:63] = False
    found = compare_pair(a, b, None, ("vit", "cnn"))
    assert found.settled and found.verdict.startswith("vit is better by 10")
    assert found.only_a == 3 * 40 + 3


def test_equal_results_are_no_sign_that_seeds_differ() -> None:
    hits = np.tile(np.arange(150) < 140, (3, 1))
    found = compare_pair(hits, hits, None, ("a", "b"))
    assert not found.more_seeds and found.more_images is None


def test_one_group_of_images_gives_a_wide_interval_whatever_the_seeds_say() -> None:
    hits = np.tile(np.arange(200) < 160, (3, 1))
    found = mean_accuracy(hits, Grouping.of(["one patient"] * 200, 200))
    assert found.low is not None and found.high is not None
    assert found.high - found.low > 0.5


def test_advice_survives_a_correction_that_unsettles_a_pair() -> None:
    right = {name: np.ones(600, bool) for name in "abc"}
    right["b"][:11], right["c"][:10] = False, False
    right["a"][590:592] = False
    pairs = compare_all({**right, "d": right["a"]}, None)
    (pair,) = [each for each in pairs if (each.a, each.b) == ("a", "b")]
    assert pair.mcnemar_p < 0.05 <= pair.holm_p
    assert pair.more_images is not None and "more images would settle it" in pair.verdict
