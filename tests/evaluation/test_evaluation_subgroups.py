"""A table for each value of a column, and the worst of them named."""

from __future__ import annotations

import numpy as np
import pytest

from vitreous.evaluation.groups import Grouping
from vitreous.evaluation.intervals import proportion
from vitreous.evaluation.subgroups import MISSING, by_column


def test_the_worst_value_is_named_and_whether_chance_explains_it():
    camera = ["A"] * 200 + ["B"] * 200 + [None] * 20
    right = np.ones(420, dtype=bool)
    right[200:280] = False
    found = by_column("camera", camera, right, Grouping.of(None, 420))
    assert [(row["value"], row["n"]) for row in found.rows] == [("A", 200), ("B", 200), (MISSING, 20)]
    assert found.worst == "B"
    assert found.rows[1]["accuracy"]["value"] == pytest.approx(0.6)
    assert "beyond what chance explains" in found.verdict and "'B'" in found.verdict
    right[200:] = True
    right[::40] = False
    level = by_column("camera", camera, right, Grouping.of(None, 420))
    assert "does not tell from the whole" in level.verdict


def test_small_subgroups_are_listed_but_not_called_the_worst():
    right = np.array([True] * 50 + [False] * 3)
    found = by_column("site", ["a"] * 25 + ["b"] * 25 + ["c"] * 3, right, Grouping.of(None, 53))
    assert found.worst in ("a", "b")
    assert by_column("site", ["a"] * 50 + ["c"] * 3, right, Grouping.of(None, 53)).worst is None


def test_many_numbers_become_quarters_in_order_and_many_words_do_not():
    rng = np.random.default_rng(0)
    age = [f"{value:.1f}" for value in rng.uniform(1, 90, size=200)]
    found = by_column("age", age, np.ones(200, dtype=bool), Grouping.of(None, 200))
    assert len(found.rows) == 4
    assert [row["n"] for row in found.rows] == pytest.approx([50] * 4, abs=2)
    starts = [float(row["value"].split(" to ")[0]) for row in found.rows]
    assert starts == sorted(starts)
    words = [f"w{number}" for number in range(200)]
    assert len(by_column("word", words, np.ones(200, dtype=bool), Grouping.of(None, 200)).rows) == 200


def test_few_numbers_are_in_order_of_size():
    values = [str(number) for number in [10, 2, 9, 1] * 10]
    found = by_column("exposure", values, np.ones(40, dtype=bool), Grouping.of(None, 40))
    assert [row["value"] for row in found.rows] == ["1", "2", "9", "10"]


def test_what_else_is_measured_stands_beside_the_accuracy():
    right, grouping = np.arange(40) % 4 > 0, Grouping.of(None, 40)
    found = by_column(
        "site", ["a", "b"] * 20, right, grouping, {"micro_f1": lambda own, among: proportion(~right[own], among)}
    )
    for row in found.rows:
        assert row["micro_f1"]["value"] == pytest.approx(1 - row["accuracy"]["value"])


def test_the_lowest_of_many_alike_is_seldom_said_to_be_lower():
    rng, alarms = np.random.default_rng(0), 0
    values = [str(number) for number in range(20)] * 60
    for _ in range(100):
        found = by_column("site", values, rng.random(1200) < 0.8, Grouping.of(None, 1200))
        alarms += "beyond what chance explains" in found.verdict
    assert alarms <= 8, "one in twenty would be as promised"
