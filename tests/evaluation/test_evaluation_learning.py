"""Learning curves: the power law behind some points, and what it says of more images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from vitreous.evaluation.groups import Grouping
from vitreous.evaluation.learning import fit_power_laws, learning_curve

COUNTS = (50, 100, 200, 400, 800)


def error(images: float) -> float:
    return 0.05 + 1.6 * images**-0.5


def drawn(
    rng: np.random.Generator, asked: int, draws: int = 5, rate: Callable[[float], float] = error, copies: int = 1
) -> dict[int, list[np.ndarray]]:
    """Right answers for `asked` images, some of which are hard for every classifier; each `copies` times."""
    hard = rng.random(asked)
    return {
        count: [
            np.repeat(np.clip(hard + 0.1 * rng.normal(size=asked), 0, 1) > rate(count), copies) for _ in range(draws)
        ]
        for count in COUNTS
    }


def test_a_power_law_is_found_behind_its_own_points() -> None:
    images = np.array(COUNTS, np.float64)
    errors = np.array([error(count) for count in COUNTS])
    law = fit_power_laws(images, errors[None])
    assert law.errors(1600)[0] == pytest.approx(error(1600), abs=2e-3)
    assert law.errors(3200)[0] == pytest.approx(error(3200), abs=3e-3)


def test_a_floor_is_never_below_zero_and_a_curve_that_rises_is_flat() -> None:
    images = np.array(COUNTS, np.float64)
    steep = fit_power_laws(images, (40 / images)[None])
    assert steep.floor[0] == pytest.approx(0, abs=3e-3)
    rising = fit_power_laws(images, np.linspace(0.1, 0.2, len(images))[None])
    assert rising.errors(1600)[0] == pytest.approx(0.15)


def test_the_gain_of_twice_as_many_lies_in_its_interval() -> None:
    rng, held, found = np.random.default_rng(0), 0, {}
    for seed in range(20):
        found = learning_curve(drawn(rng, 400), np.zeros(400, int), Grouping.of(None, 400), seed)
        gain = found["further"][0]["gain"]
        assert found["further"][0]["images"] == 1600
        held += gain["low"] <= error(800) - error(1600) <= gain["high"]
    assert held >= 16
    assert "Twice as many labelled images (1,600) would bring" in found["verdict"]
    assert [point["images"] for point in found["points"]] == list(COUNTS)


def test_nothing_is_promised_where_nothing_grows() -> None:
    found = learning_curve(
        drawn(np.random.default_rng(1), 4000, rate=lambda count: 0.2), np.zeros(4000, int), Grouping.of(None, 4000)
    )
    assert "these features nothing" in found["verdict"] or "cannot tell that from nothing" in found["verdict"]
    assert found["further"][0]["gain"]["value"] < 0.005


def test_copies_of_the_images_asked_about_make_no_interval_narrower() -> None:
    alone = learning_curve(drawn(np.random.default_rng(2), 200), np.zeros(200, int), Grouping.of(None, 200))
    groups = np.repeat(np.arange(200), 4)
    copies = learning_curve(
        drawn(np.random.default_rng(2), 200, copies=4), np.zeros(800, int), Grouping.of(groups, 800)
    )
    widths = [each["points"][0]["accuracy"]["high"] - each["points"][0]["accuracy"]["low"] for each in (alone, copies)]
    assert widths[1] == pytest.approx(widths[0], rel=0.1)
    few = learning_curve(
        drawn(np.random.default_rng(2), 200), np.zeros(200, int), Grouping.of(np.arange(200) // 40, 200)
    )
    assert few["further"][0]["gain"]["low"] is None and "so few groups" in few["verdict"]


def test_classes_count_alike_and_no_share_leaves_its_range() -> None:
    strata = np.repeat([0, 1], [180, 20])
    hits = {count: [strata == 0] for count in COUNTS}  # the rare class is always wrong
    found = learning_curve(hits, strata, Grouping.of(None, 200))
    assert found["points"][0]["accuracy"]["value"] == pytest.approx(0.5)
    perfect = learning_curve({count: [np.ones(200, bool)] for count in COUNTS}, strata, Grouping.of(None, 200))
    for row in [*perfect["points"], *perfect["further"]]:
        assert row["accuracy"]["value"] == 1 and 0 < row["accuracy"]["low"] <= row["accuracy"]["high"] == 1
    assert perfect["points"][0]["accuracy"]["low"] < 0.99, "all right is not certainty"
