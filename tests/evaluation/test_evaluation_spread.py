from __future__ import annotations

import pytest
from scipy import stats

from vitreous.evaluation.spread import spread


def test_the_interval_of_a_mean_is_students() -> None:
    values = [0.91, 0.95, 0.93, 0.97]
    found = spread(values)
    low, high = stats.t.interval(0.95, 3, loc=0.94, scale=stats.sem(values))
    assert found.mean == pytest.approx(0.94)
    assert found.deviation == pytest.approx(stats.tstd(values))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert found.n == 4


def test_one_run_has_no_spread_and_an_undefined_number_no_mean() -> None:
    assert spread([0.5]).to_dict() == {"mean": 0.5, "deviation": None, "low": None, "high": None, "n": 1}
    assert spread([0.5, None]).mean is None
    assert spread([]).mean is None


def test_runs_judged_on_what_others_learn_from_have_a_wider_interval() -> None:
    """Nadeau and Bengio's correction of five folds: 1/5 becomes 1/5 + 1/4."""
    values = [0.91, 0.95, 0.93, 0.97, 0.94]
    plain, folds = spread(values), spread(values, overlap=1 / 4)
    assert plain.low is not None and folds.low is not None and folds.mean is not None
    assert (folds.mean - folds.low) / (folds.mean - plain.low) == pytest.approx(((1 / 5 + 1 / 4) / (1 / 5)) ** 0.5)
