from __future__ import annotations

import numpy as np

from vitreous.evaluation.chance import chance_note
from vitreous.evaluation.evaluate import evaluate_part

CLASSES = ("a", "b", "c")
LABELS = np.arange(90) % 3
GUESSES = np.random.default_rng(0).normal(size=(90, 3))


def test_a_model_that_learned_nothing_is_said_to() -> None:
    note = chance_note(evaluate_part(GUESSES, LABELS, None, CLASSES, 1.0))
    assert "cannot tell this model from guessing" in note and "guessing gives 33.3" in note


def test_one_that_always_names_the_commonest_class_has_learned_nothing_however_often_it_is_right() -> None:
    labels = np.where(np.arange(90) < 80, 0, LABELS)
    assert chance_note(evaluate_part(np.tile([5.0, 0, 0], (90, 1)), labels, None, CLASSES, 1.0))


def test_one_that_learned_something_is_not() -> None:
    assert chance_note(evaluate_part(GUESSES + 4 * np.eye(3)[LABELS], LABELS, None, CLASSES, 1.0)) == ""
