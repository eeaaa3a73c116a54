"""Costs of mistakes: reading them, and what answers cost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vitreous.errors import UsageError
from vitreous.evaluation.costs import expected_costs, read_costs
from vitreous.evaluation.groups import Grouping

CLASSES = ("bad", "good")


def written(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def test_rows_are_true_classes_whatever_their_order(tmp_path: Path):
    costs = read_costs(written(tmp_path / "c.csv", "label, good ,bad\ngood,0,1\nbad,20,0\n"), CLASSES)
    np.testing.assert_array_equal(costs, [[0, 20], [1, 0]])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "holds no costs"),
        ("label,good,bad\ngood,0,1\n", "no row for 'bad'"),
        ("label,good,bad\ngood,0,1\nbad,20,0\nugly,1,1\n", "a row for 'ugly', which is no class"),
        ("label,good\ngood,0\nbad,20\n", "no column for 'bad'"),
        ("label,good,bad\ngood,0,1\nbad,many,0\n", "'many' where 'bad' is taken for 'good'"),
        ("label,good,bad\ngood,0,1\nbad,20\n", "'' where 'bad' is taken for 'bad'"),
    ],
)
def test_costs_that_do_not_fit_are_said_in_a_sentence(tmp_path: Path, content: str, words: str):
    with pytest.raises(UsageError, match=words):
        read_costs(written(tmp_path / "c.csv", content), CLASSES)
    with pytest.raises(UsageError, match="cannot be read"):
        read_costs(tmp_path / "none.csv", CLASSES)


def test_the_cheapest_answer_costs_less_where_mistakes_differ_in_price():
    rng = np.random.default_rng(0)
    bad = rng.uniform(0, 0.6, size=4000)
    labels = (rng.random(4000) >= bad).astype(np.int64)  # scores are right: bad as often as they say
    scores = np.stack([bad, 1 - bad], axis=1)
    costs = np.array([[0.0, 10.0], [1.0, 0.0]])
    found = expected_costs(costs, scores, labels, Grouping.of(None, 4000))
    called = scores.argmax(axis=1)
    assert found["likeliest"]["value"] == pytest.approx(costs[labels, called].mean())
    assert found["cheapest"]["high"] < found["likeliest"]["low"]
    # Calling it bad from a chance of 1 in 11 on is what costs least (Elkan 2001, equation 2).
    assert found["changed"] == pytest.approx(((bad >= 1 / 11) & (bad < 0.5)).mean(), abs=0.01)
    even = expected_costs(1 - np.eye(2), scores, labels, Grouping.of(None, 4000))
    assert even["changed"] == 0
    assert even["likeliest"]["value"] == pytest.approx((called != labels).mean())
