from __future__ import annotations

import json

import numpy as np
import pytest

from vitreous.errors import DataError, VitreousError
from vitreous.evaluation import metrics
from vitreous.evaluation.evaluate import PartResult, evaluate_part, metrics_document
from vitreous.runs.decision import probabilities


def drawn(
    num_classes: int, num_images: int = 120, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, list[str], list[str]]:
    rng = np.random.default_rng(seed)
    labels = np.arange(num_images) % num_classes
    logits = 2.5 * np.eye(num_classes)[labels] + rng.normal(size=(num_images, num_classes))
    return (
        logits.astype(np.float32),
        labels,
        [f"g{n // 4}" for n in range(num_images)],
        [f"c{n}" for n in range(num_classes)],
    )


def test_every_metric_has_value_interval_count_and_method():
    logits, labels, groups, classes = drawn(7)
    found = evaluate_part(logits, labels, groups, classes, 1.3)
    assert list(found.metrics) == [
        "accuracy",
        "top5_accuracy",
        "balanced_accuracy",
        "macro_precision",
        "macro_f1",
        "mcc",
        "auroc",
        "average_precision",
        "ece",
        "brier",
        "nll",
    ]
    scores = probabilities(logits, 1.3)
    for name, entry in found.metrics.items():
        assert set(entry) - {"bootstrap"} == {"value", "low", "high", "n", "method"}
        assert ("bootstrap" in entry) == (name in ("auroc", "average_precision"))
        if "bootstrap" in entry:
            assert entry["bootstrap"] == pytest.approx([entry["low"], entry["high"]], abs=0.06)
        assert entry["low"] <= entry["value"] <= entry["high"]
        assert entry["n"] == 120
        assert "30 groups" in entry["method"]
        assert entry["value"] == pytest.approx(float(getattr(metrics, name)(scores, labels)), abs=1e-12)


def test_top5_is_left_out_for_five_classes_or_fewer():
    logits, labels, groups, classes = drawn(5)
    assert "top5_accuracy" not in evaluate_part(logits, labels, groups, classes, 1.0).metrics


def test_accuracy_of_ungrouped_images_is_wilson_s():
    logits, labels, _, classes = drawn(3)
    assert evaluate_part(logits, labels, None, classes, 1.0).metrics["accuracy"]["method"] == "wilson"


def test_per_class_facts_follow_the_confusion():
    logits, labels, groups, classes = drawn(4)
    found = evaluate_part(logits, labels, groups, classes, 1.0)
    confusion = np.array(found.confusion)
    assert list(found.per_class) == classes
    for index, row in enumerate(found.per_class.values()):
        assert row["support"] == confusion[index].sum() == 30
        assert row["recall"] == pytest.approx(confusion[index, index] / 30)
        assert row["precision"] == pytest.approx(confusion[index, index] / confusion[:, index].sum())
        for score in ("recall", "precision", "f1", "auroc", "average_precision"):
            assert row[f"{score}_interval"]["low"] < row[score] < row[f"{score}_interval"]["high"]
        assert 0.5 < row["auroc"] <= 1


def test_a_class_without_images_is_null_and_said():
    logits, labels, groups, classes = drawn(4)
    kept = labels != 3
    found = evaluate_part(logits[kept], labels[kept], np.array(groups)[kept], classes, 1.0)
    row = found.per_class["c3"]
    assert row.pop("support") == 0
    assert set(row.values()) == {None}
    assert "'c3'" in found.notes[0]


def test_one_class_in_the_labels_leaves_auroc_undefined_but_the_rest_stands():
    logits, labels, _, classes = drawn(3)
    only = labels == 1
    found = evaluate_part(logits[only], labels[only], None, classes, 1.0).metrics
    assert (found["auroc"]["value"], found["auroc"]["low"]) == (None, None)
    assert found["balanced_accuracy"]["value"] == pytest.approx(found["accuracy"]["value"])


@pytest.mark.parametrize("num_images", [1, 2, 9])
def test_a_handful_of_images_still_gives_valid_json(num_images: int):
    logits, labels, groups, classes = drawn(3, num_images)
    part = evaluate_part(logits, labels, groups, classes, 1.0)
    json.dumps(metrics_document({"val": part}, {}), allow_nan=False)
    assert part.metrics["accuracy"]["low"] is not None


def test_perfect_answers_keep_an_interval_of_some_width():
    _, labels, groups, classes = drawn(3)
    found = evaluate_part(50.0 * np.eye(3)[labels], labels, groups, classes, 1.0).metrics
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "auroc"):
        assert found[name]["value"] == found[name]["high"] == 1
        assert 0.5 < found[name]["low"] < 0.95


def test_calibration_shows_before_and_after():
    logits, labels, groups, classes = drawn(3)
    found = evaluate_part(logits, labels, groups, classes, 2.0).calibration
    assert found["temperature"] == 2.0
    assert found["ece_before"] == pytest.approx(float(metrics.ece(probabilities(logits), labels)))
    assert found["ece_after"] == pytest.approx(float(metrics.ece(probabilities(logits, 2.0), labels)))
    assert sum(entry["count"] for entry in found["bins_after"]) == 120
    for when in ("before", "after"):
        assert found[f"ece_{when}_interval"]["value"] == found[f"ece_{when}"]
        assert found[f"ece_{when}_interval"]["low"] <= found[f"ece_{when}_interval"]["corrected"]


def test_the_document_has_the_shape_of_metrics_json():
    logits, labels, groups, classes = drawn(3)
    part = evaluate_part(logits, labels, groups, classes, 1.0)
    document = metrics_document({"val": part, "test": part}, {"train_seconds": 3.0}, ["a remark"])
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["test"]["accuracy"] == part.metrics["accuracy"]
    assert document["per_class"]["val"] == part.per_class
    assert document["confusion"]["test"] == part.confusion
    assert document["calibration"]["test"]["temperature"] == 1.0
    assert document["timing"] == {"train_seconds": 3.0}
    assert document["notes"] == ["a remark"]


def test_the_same_seed_gives_the_same_part():
    logits, labels, groups, classes = drawn(3)

    def evaluate(seed: int) -> PartResult:
        return evaluate_part(logits, labels, groups, classes, 1.0, seed)

    assert evaluate(1) == evaluate(1)
    assert evaluate(1).metrics["nll"] != evaluate(2).metrics["nll"]


def test_an_empty_part_and_broken_logits_are_refused():
    logits, labels, groups, classes = drawn(3)
    with pytest.raises(DataError, match="no image to evaluate"):
        evaluate_part(logits[:0], labels[:0], [], classes, 1.0)
    logits[3, 1] = np.nan
    with pytest.raises(VitreousError, match="not finite"):
        evaluate_part(logits, labels, groups, classes, 1.0)
