"""How often 95 % intervals hold the truth: 2,000 simulated test parts for each metric, with and without groups.

    .venv/bin/python benchmarks/coverage.py [--simulations 2000]

Three classes of 80, 60 and 40 images (or two of 100 and 60), also with a model that is sure and right of nine images in ten,
which leaves few to judge its losses by; scores are a softmax of the label plus noise, which with groups (of
1 to 7 images, mostly of one class, as a patient's are) is partly the group's. The truth is the metric on 200,000 images.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from record import write

from vitreous.evaluation import metrics
from vitreous.evaluation.calibration_error import calibration_error
from vitreous.evaluation.groups import Grouping
from vitreous.evaluation.intervals import CLASS_SCORES, bounded_mean, class_mean, proportion, skewed_mean

SIZES = {"three classes": (80, 60, 40), "two classes": (100, 60)}
LIKENESS = 0.3


def draw(
    sizes: tuple[int, ...], grouped: bool, times: int, rng: np.random.Generator, sure: float = 0.0
) -> tuple[Any, Any, Any]:
    """(scores, labels, groups or None) of one test part, `times` as large. sure: share of images that are certain."""
    labels = np.repeat(np.arange(len(sizes)), np.array(sizes) * times)
    noise = rng.normal(size=(len(labels), len(sizes)))
    groups = None
    if grouped:
        lengths = rng.integers(1, 8, size=len(labels))
        groups = np.repeat(np.arange(len(labels)), lengths)[: len(labels)]
        shared = rng.normal(size=(groups[-1] + 1, len(sizes)))[groups]
        noise = np.sqrt(LIKENESS) * shared + np.sqrt(1 - LIKENESS) * noise
    scores = np.exp(1.2 * (1.6 * np.eye(len(sizes))[labels] + noise))
    scores /= scores.sum(axis=1, keepdims=True)
    if sure:
        right = 0.98 * np.eye(len(sizes))[labels] + 0.02 / len(sizes)
        scores = np.where(rng.random(len(labels))[:, None] < sure, right, scores)
    return scores, labels, groups


def intervals(scores: np.ndarray, labels: np.ndarray, groups: np.ndarray | None, seed: int) -> dict[str, Any]:
    grouping = Grouping.of(groups, len(labels))
    correct = scores.argmax(axis=1) == labels
    found = {"accuracy": proportion(correct, grouping)}
    found |= {name: class_mean(name, scores, labels, grouping) for name in CLASS_SCORES}
    found["ece"] = calibration_error(scores.max(axis=1), correct, grouping, seed).interval
    found["brier"] = bounded_mean(metrics.squared_distances(scores, labels), 1 if scores.shape[1] == 2 else 2, grouping)
    found["nll"] = skewed_mean(metrics.log_losses(scores, labels), grouping, seed)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=2000)
    simulations = parser.parse_args().simulations
    rows: dict[str, Any] = {}
    for title, sizes in SIZES.items():
        for grouped, sure in ((False, 0.0), (True, 0.0), (False, 0.9)):
            rng = np.random.default_rng(0)
            scores, labels, _ = draw(sizes, grouped, 200_000 // sum(sizes), rng, sure)
            truth = {
                name: float(getattr(metrics, name)(scores, labels))
                for name in ("accuracy", *CLASS_SCORES, "ece", "brier", "nll")
            }
            held = dict.fromkeys(truth, 0)
            for seed in range(simulations):
                for name, found in intervals(*draw(sizes, grouped, 1, rng, sure), seed).items():
                    held[name] += found.low <= truth[name] <= found.high
            name = f"{title}, {'groups' if grouped else 'single images'}{', nearly all certain' if sure else ''}"
            rows[name] = {metric: count / simulations for metric, count in held.items()}
            print(name, {metric: f"{100 * share:.1f}" for metric, share in rows[name].items()}, flush=True)
    write("coverage", {"simulations": simulations, "coverage": rows})


if __name__ == "__main__":
    main()
