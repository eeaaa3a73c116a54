"""Does a model notice images of another kind? AUROC of its strangeness scores, other sets' images against its own test images.

    .venv/bin/vitreous train ../shared/data/clothing --init scratch --image-size 64 --time 2m --out runs/benchmarks/clothing
    .venv/bin/python benchmarks/ood.py runs/benchmarks/clothing [--others chest_xray_nih,document_pages]

Scores: distance to the nearest class mean in feature space (Mahalanobis), energy of the logits (Liu et al. 2020,
arXiv:2010.03759), distance of how an image looks (`inputs.looks`), one minus the highest probability, and `ood`, the most unusual of
the first three as predictions give it. Flagged: share of the other
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
from sklearn.metrics import roc_auc_score

import vitreous
from vitreous.data import load_source
from vitreous.inputs import prepare
from vitreous.inputs.looks import looks
from vitreous.runs.decision import energies

MOST = 300
"""Images of each set."""


def outputs(classifier: Any, images: list[Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(logits, features, looks) of images that are opened one by one."""
    predictor, found = classifier.predictor, []
    for start in range(0, len(images), 64):
        batch = np.stack([prepare(image, classifier.spec) for image in images[start : start + 64]])
        said = predictor.engine.predict(batch)
        found.append((said.logits, said.features, looks(batch, classifier.spec)))
    logits, features, seen = (np.concatenate(each) for each in zip(*found, strict=True))
    return logits, features, seen


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
    assert strangeness is not None and strangeness.beside is not None
    beside = strangeness.beside

    def scores(logits: np.ndarray, features: np.ndarray, seen: np.ndarray) -> dict[str, np.ndarray]:
        distances, energy = strangeness.distances(features), energies(logits)
        shifted = logits - logits.max(axis=1, keepdims=True)
        return {
            "distance": distances,
            "energy": energy,
            "looks": beside.looks.distances(seen),
            "1 - score": 1 - 1 / np.exp(shifted).sum(axis=1),
            "ood": beside.largest(distances, seen, energy),
            "rank": beside.score(distances, seen, energy),
        }

    own = scores(*outputs(classifier, own_images(classifier, "test")))
    rows: dict[str, Any] = {}
    for name in options.others.split(","):
        source = load_source(str(options.data / name), trainable=False)
        chosen = np.linspace(0, len(source.samples) - 1, min(MOST, len(source.samples))).astype(int)
        other = scores(*outputs(classifier, [source.open(int(row)) for row in chosen]))
        truth = np.repeat([0, 1], [len(own["ood"]), len(other["ood"])])
        rows[name] = {
            kind: float(roc_auc_score(truth, np.concatenate([own[kind], other[kind]])))
            for kind in own
            if kind != "rank"
        } | {
            "flagged": float((other["rank"] >= 1).mean()),
            "own flagged": float((own["rank"] >= 1).mean()),
        }
        print(f"{options.run.name} against {name}: {rows[name]}", flush=True)
    earlier = FOLDER / "ood.json"
    runs = json.loads(earlier.read_text(encoding="utf-8"))["runs"] if earlier.is_file() else {}
    runs[options.run.name] = rows
    write("ood", {"runs": runs})


if __name__ == "__main__":
    main()
