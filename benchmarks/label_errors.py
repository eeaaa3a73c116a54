"""Planted wrong labels: how many of them the audit's list holds, and how much of the list is right.

    .venv/bin/python benchmarks/label_errors.py
    .venv/bin/python benchmarks/label_errors.py --sets digits,rsscn7 --shares 0.05 --images 3000

A share of the labels is replaced by another class drawn at random. Errors that the data had before count against the
list, so precision on sets with noisy labels is a lower bound. Scikit-learn's logistic regression on the same features
and folds says how good a probe these features allow. Sets other than digits are read from --data; absent ones are
skipped and named.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from record import write
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from vitreous.data import load_source
from vitreous.data.audit.features import VISUAL_BLOCKS, visual_features
from vitreous.data.audit.labels import find_label_issues
from vitreous.data.audit.probe import assign_folds, out_of_fold
from vitreous.data.examination.scan import scan
from vitreous.engines.onnxruntime import available_cores

SETS = ("digits", "cifar10", "rsscn7", "clothing")
FIRST = 25


def read(data: str | Path, images: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (n, d), labels (n,) and units (n,) of at most so many images of the train part."""
    source = load_source(data)
    rows = [index for index, sample in enumerate(source.samples) if sample.part in (None, "train")]
    source = source.select(sorted(np.random.default_rng(0).permutation(rows)[:images].tolist()))
    found = scan(source, threads=available_cores())
    samples = [source.samples[index] for index in found.good]
    labels = np.asarray([source.classes.index(sample.label) for sample in samples])
    groups = [sample.group or sample.path for sample in samples]
    return visual_features(found.thumbnails), labels, np.unique(groups, return_inverse=True)[1]


def judge(features: np.ndarray, truth: np.ndarray, units: np.ndarray, share: float, seed: int) -> dict[str, Any]:
    """Plant this share of errors and look for them."""
    generator = np.random.default_rng(seed)
    classes = int(truth.max()) + 1
    wrong = np.zeros(len(truth), bool)
    wrong[generator.permutation(len(truth))[: round(share * len(truth))]] = True
    labels = np.where(wrong, (truth + generator.integers(1, classes, len(truth))) % classes, truth)
    begin = time.monotonic()
    probabilities = out_of_fold(features, labels, units, classes, seed=seed, blocks=VISUAL_BLOCKS)
    issues = find_label_issues(probabilities, labels)
    hits = wrong[issues.indices]
    return {
        "share": share,
        "planted": int(wrong.sum()),
        "estimated_share": round(issues.estimated_share, 4),
        "listed": len(hits),
        "precision": round(float(hits.mean()), 3) if len(hits) else None,
        "precision_of_first": round(float(hits[:FIRST].mean()), 3) if len(hits) else None,
        "recall": round(float(hits.sum() / wrong.sum()), 3) if wrong.any() else None,
        "seconds": round(time.monotonic() - begin, 1),
    }


def accuracies(features: np.ndarray, labels: np.ndarray, units: np.ndarray, seed: int) -> dict[str, float]:
    """Out-of-fold accuracy of the probe and of logistic regression, on the labels as they are."""
    classes = int(labels.max()) + 1
    ours = out_of_fold(features, labels, units, classes, seed=seed, blocks=VISUAL_BLOCKS)
    peer = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    folds = PredefinedSplit(assign_folds(labels, units, 5, seed))
    theirs = np.asarray(cross_val_predict(peer, features, labels, cv=folds))
    return {
        "chance": round(float(np.bincount(labels).max() / len(labels)), 3),
        "probe": round(float(np.mean(ours.argmax(1) == labels)), 3),
        "logistic_regression": round(float(np.mean(theirs == labels)), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--shares", default="0,0.02,0.05,0.1")
    parser.add_argument("--images", type=int, default=10_000, help="at most so many of each set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    for name in options.sets.split(","):
        if name != "digits" and not (options.data / name).is_dir():
            print(f"{name}: not in {options.data}, skipped")
            continue
        features, labels, units = read(name if name == "digits" else options.data / name, options.images)
        accuracy = accuracies(features, labels, units, options.seed)
        print(
            f"{name}: {len(labels):,} images, accuracy " + ", ".join(f"{key} {accuracy[key]:.1%}" for key in accuracy)
        )
        rows = [judge(features, labels, units, float(share), options.seed) for share in options.shares.split(",")]
        for row in rows:
            print("  " + "  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        found[name] = {"images": len(labels), "accuracy": accuracy, "rows": rows}
    write("label_errors", {"seed": options.seed, "sets": found})


if __name__ == "__main__":
    main()
