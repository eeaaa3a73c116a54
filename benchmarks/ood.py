"""Does a model notice images of another kind? AUROC of its strangeness scores, other sets' images against its own test images.

    .venv/bin/python benchmarks/ood.py runs/benchmarks/against_timm/clothing_0 [--others chest_xray_nih,document_pages]

Scores: distance to the nearest class mean in feature space (Mahalanobis), energy of the logits (Liu et al. 2020,
arXiv:2010.03759), the larger of their ranks on validation, and one minus the highest probability. Flagged: share of the other
images that are stranger than every validation image, which is when a prediction abstains; and of the own ones.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from record import FOLDER, write
from scipy.special import logsumexp
from sklearn.metrics import roc_auc_score

import vitreous
from vitreous.data import load_source
from vitreous.inputs import prepare

MOST = 300
"""Images of each set."""


def outputs(classifier: Any, images: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """(logits, features) of images that are opened one by one."""
    predictor = classifier.predictor
    found = [
        predictor.engine.predict(np.stack([prepare(image, classifier.spec) for image in images[start : start + 64]]))
        for start in range(0, len(images), 64)
    ]
    return np.concatenate([each.logits for each in found]), np.concatenate([each.features for each in found])


def energy(logits: np.ndarray) -> np.ndarray:
    return -np.asarray(logsumexp(logits, axis=1))


def own_images(classifier: Any, part: str) -> list[Any]:
    source = load_source(classifier.run.facts["data"]["source"], trainable=False)
    rows = pq.read_table(classifier.run.path / "predictions.parquet", columns=["path", "part"]).to_pylist()
    wanted = [row["path"] for row in rows if row["part"] == part]
    index = {sample.path: number for number, sample in enumerate(source.samples)}
    return [source.open(index[path]) for path in wanted[:: max(1, len(wanted) // MOST)]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--others", default="chest_xray_nih,document_pages,magnetic_tile,rsscn7")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    options = parser.parse_args()
    classifier = vitreous.load(options.run)
    strangeness = classifier.run.strangeness
    assert strangeness is not None
    val_logits, val_features = outputs(classifier, own_images(classifier, "val"))
    references = np.sort(strangeness.distances(val_features)), np.sort(energy(val_logits))

    def scores(logits: np.ndarray, features: np.ndarray) -> dict[str, np.ndarray]:
        found = strangeness.distances(features), energy(logits)
        ranks = [
            np.searchsorted(reference, each) / len(reference) for reference, each in zip(references, found, strict=True)
        ]
        shifted = logits - logits.max(axis=1, keepdims=True)
        return {
            "distance": found[0],
            "energy": found[1],
            "larger rank": np.maximum(*ranks),
            "1 - score": 1 - 1 / np.exp(shifted).sum(axis=1),
            "ood": strangeness.score(features),
        }

    own = scores(*outputs(classifier, own_images(classifier, "test")))
    rows: dict[str, Any] = {}
    for name in options.others.split(","):
        source = load_source(str(options.data / name), trainable=False)
        chosen = np.linspace(0, len(source.samples) - 1, min(MOST, len(source.samples))).astype(int)
        other = scores(*outputs(classifier, [source.open(int(row)) for row in chosen]))
        truth = np.repeat([0, 1], [len(own["ood"]), len(other["ood"])])
        rows[name] = {kind: float(roc_auc_score(truth, np.concatenate([own[kind], other[kind]]))) for kind in own} | {
            "flagged": float((other["ood"] >= 1).mean()),
            "own flagged": float((own["ood"] >= 1).mean()),
        }
        print(f"{options.run.name} against {name}: {rows[name]}", flush=True)
    earlier = FOLDER / "ood.json"
    runs = json.loads(earlier.read_text(encoding="utf-8"))["runs"] if earlier.is_file() else {}
    runs[options.run.name] = rows
    write("ood", {"runs": runs})


if __name__ == "__main__":
    main()
