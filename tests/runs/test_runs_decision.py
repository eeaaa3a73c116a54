from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vitreous.runs import Strangeness, decide
from vitreous.runs.decision import probabilities

CLASSES = ["cat", "dog", "fox"]


def test_probabilities_are_the_softmax_of_tempered_logits() -> None:
    logits = np.array([[1.0, 2.0, 3.0], [1000.0, 0.0, -1000.0]], np.float32)
    found = probabilities(logits, 2.0)
    expected = np.exp([0.5, 1.0, 1.5]) / np.exp([0.5, 1.0, 1.5]).sum()
    np.testing.assert_allclose(found[0], expected, rtol=1e-12)
    np.testing.assert_allclose(found[1], [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-12)


def test_a_higher_temperature_is_less_sure_and_never_changes_its_mind() -> None:
    logits = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    cold, hot = probabilities(logits, 0.5), probabilities(logits, 3.0)
    assert (hot.max(1) < cold.max(1)).all()
    assert (hot.argmax(1) == cold.argmax(1)).all()


def test_an_answer_names_the_likeliest_classes_best_first() -> None:
    (answer,) = decide(np.array([[0.2, 0.7, 0.1]]), np.array([0.25]), CLASSES, 0.5, top=2, paths=["a.jpg"])
    assert (answer.label, answer.score) == ("dog", 0.7)
    assert answer.top == [("dog", 0.7), ("cat", 0.2)]
    assert (answer.abstain, answer.ood, answer.path) == (False, 0.25, "a.jpg")
    assert answer.to_dict() == {
        "label": "dog",
        "score": 0.7,
        "top": [{"label": "dog", "score": 0.7}, {"label": "cat", "score": 0.2}],
        "abstain": False,
        "ood": 0.25,
        "path": "a.jpg",
    }


def test_ties_go_to_the_first_class() -> None:
    (answer,) = decide(np.array([[0.4, 0.4, 0.2]]), np.array([0.0]), CLASSES, 0.0)
    assert [label for label, _ in answer.top] == CLASSES


@pytest.mark.parametrize(
    ("scores", "strange", "abstains"),
    [
        ([0.6, 0.3, 0.1], 0.99, False),
        ([0.3, 0.5, 0.2], 0.0, False),
        ([0.49, 0.26, 0.25], 0.0, True),
        ([0.9, 0.1, 0.0], 1.0, True),
    ],
    ids=["sure", "just sure enough", "unsure", "stranger than all"],
)
def test_unsure_or_strange_images_are_abstained_from(scores: list[float], strange: float, abstains: bool) -> None:
    (answer,) = decide(np.array([scores]), np.array([strange]), CLASSES, 0.5)
    assert answer.abstain is abstains


def make_strangeness() -> Strangeness:
    return Strangeness(
        means=np.array([[0.0, 0.0], [4.0, 0.0]], np.float32),
        whitening=np.eye(2, dtype=np.float32),
        centre=np.array([1.0, 0.0], np.float32),
        reference=np.array([0.5, 1.0, 2.0, 3.0], np.float32),
    )


def test_strangeness_is_the_share_of_validation_images_that_were_nearer() -> None:
    strange = make_strangeness()
    features = np.array([[1.0, 0.0], [5.0, 1.5], [1.0, -2.5], [1.0, 50.0]])
    np.testing.assert_allclose(strange.distances(features), [0.0, 1.5, 2.5, 50.0], rtol=1e-6)
    np.testing.assert_allclose(strange.score(features), [0.0, 0.5, 0.75, 1.0])


def test_rounding_makes_no_validation_image_stranger_than_itself() -> None:
    strange = make_strangeness()
    farthest = np.array([[5.0, 3.0 * (1 + 3e-5)], [5.0, 3.0 * (1 + 3e-3)]])
    np.testing.assert_allclose(strange.score(farthest), [0.75, 1.0])


def test_strangeness_is_saved_without_pickle(tmp_path: Path) -> None:
    strange, file = make_strangeness(), tmp_path / "s.npz"
    strange.save(file)
    loaded = Strangeness.load(file)
    for name in ("means", "whitening", "centre", "reference"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(strange, name))
    np.savez(file, means=np.array([object()]), whitening=1, centre=1, reference=1)
    with pytest.raises(ValueError, match="allow_pickle"):
        Strangeness.load(file)


SCORES = np.array([[0.55, 0.35, 0.10], [0.30, 0.65, 0.05], [0.10, 0.15, 0.75]])


def test_an_operating_point_calls_its_class_from_its_threshold_on_and_the_next_likeliest_below() -> None:
    answers = decide(SCORES, np.zeros(3), ("sick", "well", "other"), 0.6, point=(0, 0.25))
    assert [answer.label for answer in answers] == ["sick", "sick", "other"]
    assert answers[1].score == 0.30 and not answers[1].abstain
    strict = decide(SCORES, np.zeros(3), ("sick", "well", "other"), 0.0, point=(0, 0.9))
    assert [answer.label for answer in strict] == ["well", "well", "other"]
    assert [answer.top for answer in answers] == [answer.top for answer in strict]


def test_a_conformal_set_holds_the_likeliest_class_and_all_above_its_threshold() -> None:
    answers = decide(SCORES, np.zeros(3), ("sick", "well", "other"), 0.0, set_from=0.3)
    assert [answer.set for answer in answers] == [["sick", "well"], ["well", "sick"], ["other"]]
    assert decide(SCORES, np.zeros(3), ("sick", "well", "other"), 0.0, set_from=0.9)[0].set == ["sick"]
    assert "set" not in decide(SCORES, np.zeros(3), ("sick", "well", "other"), 0.0)[0].to_dict()
