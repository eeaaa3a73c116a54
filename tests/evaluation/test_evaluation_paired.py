from __future__ import annotations

import json
from math import comb

import numpy as np
import pytest

from vitreous.evaluation.paired import compare_all, compare_pair, holm, mcnemar


@pytest.mark.parametrize(("only_a", "only_b"), [(6, 0), (3, 9), (10, 10), (1, 0), (2, 17)])
def test_mcnemar_is_the_two_sided_binomial_test_of_the_discordant_images(only_a: int, only_b: int):
    discordant = only_a + only_b
    tail = sum(comb(discordant, count) for count in range(min(only_a, only_b) + 1)) / 2**discordant
    assert mcnemar(only_a, only_b) == pytest.approx(min(1, 2 * tail), abs=1e-12)


def test_models_that_never_disagree_have_p_one():
    assert mcnemar(0, 0) == 1


def test_holm_steps_down():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_a_clear_winner_is_named_with_its_margin():
    rng = np.random.default_rng(0)
    strong, weak = rng.random(1000) < 0.95, rng.random(1000) < 0.85
    for pair in (compare_pair(strong, weak, None, ("vit", "cnn")), compare_pair(weak, strong, None, ("cnn", "vit"))):
        assert pair.verdict.startswith("vit is better by ")
        assert pair.mcnemar_p < 1e-6
    found = compare_pair(strong, weak, None, ("vit", "cnn"))
    difference = found.difference
    assert difference.value == pytest.approx(strong.mean() - weak.mean())
    assert difference.low is not None and difference.high is not None
    assert f"{100 * strong.mean() - 100 * weak.mean():.1f} points" in found.verdict
    assert f"({100 * difference.low:.1f} to {100 * difference.high:.1f})" in found.verdict


def test_models_as_good_are_not_told_apart():
    rng = np.random.default_rng(1)
    found = compare_pair(rng.random(360) < 0.9, rng.random(360) < 0.9, None, ("a", "b"))
    assert found.verdict.startswith("no difference that 360 images could show, and none larger than ")


def test_a_difference_that_one_patient_made_is_no_difference():
    base = np.ones(400, dtype=bool)
    worse = base.copy()
    worse[:40] = False  # all of them images of the first group
    groups = [f"patient {number // 40}" for number in range(400)]
    assert compare_pair(base, worse, None, ("a", "b")).verdict.startswith("a is better")
    grouped = compare_pair(base, worse, groups, ("a", "b"))
    assert grouped.verdict.startswith("no difference that 400 images in 10 groups could show")


def test_identical_models_leave_open_what_so_few_images_could_hide():
    same = np.ones(50, dtype=bool)
    found = compare_pair(same, same, None, ("a", "b"))
    assert found.difference.value == 0
    assert found.difference.low is not None and found.difference.high is not None
    assert -found.difference.low == found.difference.high > 0.05
    assert found.mcnemar_p == 1


def test_a_model_that_is_always_right_against_one_that_never_is():
    right = np.ones(30, dtype=bool)
    found = compare_pair(right, ~right, None, ("a", "b"))
    assert (found.difference.value, found.difference.high) == (1, 1)
    assert found.difference.low is not None
    assert 0.8 < found.difference.low < 1
    assert found.verdict.startswith("a is better")


def test_many_pairs_need_more_evidence():
    base = np.zeros(200, dtype=bool)
    slightly = base.copy()
    slightly[:7] = True
    alone = compare_pair(slightly, base, None, ("x", "base"))
    assert alone.verdict.startswith("x is better")
    correct = {"x": slightly, "base": base, "b1": base, "b2": base, "b3": base}
    pairs = compare_all(correct, None)
    assert len(pairs) == 10
    first = pairs[0]
    assert (first.a, first.b, first.mcnemar_p) == ("x", "base", alone.mcnemar_p)
    assert first.holm_p == pytest.approx(10 * alone.mcnemar_p)
    assert first.verdict.startswith("no difference that 200 images could show")


def test_the_difference_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(2)
    inside = []
    for seed in range(1000):
        shared = rng.random(60) < 0.2
        a = np.where(np.repeat(shared, 4), rng.random(240) < 0.6, rng.random(240) < 0.9)
        b = np.where(np.repeat(shared, 4), rng.random(240) < 0.5, rng.random(240) < 0.85)
        found = compare_pair(a, b, np.repeat(np.arange(60), 4), ("a", "b"), seed).difference
        assert found.low is not None and found.high is not None
        inside.append(found.low <= 0.2 * 0.1 + 0.8 * 0.05 <= found.high)
    assert 0.93 <= np.mean(inside) <= 0.97


def test_a_pair_is_ready_for_json():
    found = compare_pair(np.array([True, False] * 9), np.array([True, True] * 9), None, ("a", "b")).to_dict()
    assert {"a", "b", "difference", "mcnemar_p", "holm_p", "verdict"} <= set(found)
    assert {"value", "low", "high"} <= set(json.loads(json.dumps(found, allow_nan=False))["difference"])


@pytest.mark.parametrize("num_images", [1, 5, 8, 12, 40])
def test_verdict_and_interval_never_contradict_each_other(num_images: int):
    nothing = ("no difference that", "as good as each other")
    for only_a in range(min(num_images, 9) + 1):
        for only_b in range(min(num_images - only_a, 3) + 1):
            a, b = np.zeros(num_images, dtype=bool), np.zeros(num_images, dtype=bool)
            a[:only_a] = True
            b[only_a : only_a + only_b] = True
            neither = np.zeros(num_images, dtype=bool)
            alone = compare_pair(a, b, None, ("a", "b"))
            for pair in (alone, *compare_all({"a": a, "b": b, "c": neither, "d": neither}, None)):
                low, value, high = pair.difference.low, pair.difference.value, pair.difference.high
                assert low is not None and high is not None and value is not None
                assert -1 <= low <= value <= high <= 1
                assert pair.verdict.startswith(nothing) == (low <= 0 <= high)
                assert low <= 0 <= high or pair.holm_p < 0.05


def test_four_images_won_to_none_are_no_difference_and_the_interval_is_the_exact_one():
    a = np.arange(12) < 4
    found = compare_pair(a, np.zeros(12, dtype=bool), None, ("a", "b")).difference
    # Clopper and Pearson for 4 of 4: from 0.025 ** (1 / 4) to 1.
    assert found.low == pytest.approx((2 * 0.025**0.25 - 1) * 4 / 12)
    assert found.high is not None and found.high >= 4 / 12
    assert "exact" in found.method


def test_many_images_without_a_difference_are_as_good_as_each_other():
    rng = np.random.default_rng(3)
    a = rng.random(20_000) < 0.95
    b = np.where(rng.random(20_000) < 0.1, rng.random(20_000) < 0.95, a)
    found = compare_pair(a, b, None, ("a", "b"), margin=0.02)
    assert found.equivalent and found.more_images is None
    if found.mcnemar_p > 0.05:
        assert found.verdict.startswith("as good as each other: 20000 images leave no difference larger than")
    assert not compare_pair(a[:200], b[:200], None, ("a", "b"), margin=0.02).equivalent


def test_as_many_more_images_as_it_says_show_the_difference_four_times_in_five():
    rng = np.random.default_rng(4)

    def draw(number: int) -> tuple[np.ndarray, np.ndarray]:
        kind = rng.choice(3, size=number, p=[0.9, 0.06, 0.04])  # both right, only a, only b: a is better by two points
        return kind != 2, kind != 1

    a = np.array([True] * 90 + [True] * 6 + [False] * 4)
    b = np.array([True] * 90 + [False] * 6 + [True] * 4)
    more = compare_pair(a, b, None, ("a", "b")).more_images
    assert more is not None
    shown = [
        mcnemar(int((x & ~y).sum()), int((y & ~x).sum())) < 0.05 for x, y in (draw(100 + more) for _ in range(1000))
    ]
    assert 0.74 <= np.mean(shown) <= 0.84


def test_groups_ask_for_more_images_and_no_difference_for_none():
    rng = np.random.default_rng(5)
    patient = np.repeat(np.arange(50), 6)
    a = np.ones(300, dtype=bool)
    b = np.repeat(rng.random(50) < 0.94, 6)  # wrong on all images of a patient
    alone, grouped = (compare_pair(a, b, groups, ("a", "b")).more_images for groups in (None, patient))
    assert alone is None and grouped is not None
    assert compare_pair(a, a, None, ("a", "b")).more_images is None
