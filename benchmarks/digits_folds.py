"""scikit-learn's digits in five folds: `vitreous train` from scratch against a tuned SVC and nearest neighbours.

    .venv/bin/python benchmarks/digits_folds.py [--time 105s] [--seed 0]

Each fold is the test part once; nothing looks at it before the end. The support vector machine and the neighbours are
tuned by cross-validation within the other four folds. Two folds are trained at a time, each on one core. Runs land in runs/benchmarks/digits_folds/.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from cores import Cores
from PIL import Image
from record import FOLDER, write
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

from vitreous.evaluation.intervals import wilson

FOLDS = 5


def lay_out(images: np.ndarray, labels: np.ndarray, test: np.ndarray, folder: Path) -> None:
    """The images as a folder of parts and classes."""
    for row, (image, label) in enumerate(zip(images, labels, strict=True)):
        place = folder / ("test" if test[row] else "train") / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{row:04d}.png")


def ours(cores: Cores, folder: Path, out: Path, budget: str, seed: int) -> int:
    """Right answers on the test part."""
    command = [sys.executable, "-m", "vitreous", "train", str(folder), "--time", budget, "--seed", str(seed)]
    printed = cores.run([*command, "--init", "scratch", "--out", str(out), "--overwrite", "--json"])
    accuracy = json.loads(printed)["metrics"]["test"]["accuracy"]
    return round(accuracy["value"] * accuracy["n"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--time", default="105s")
    parser.add_argument("--seed", type=int, default=0, help="of the folds and of training")
    options = parser.parse_args()
    bunch: Any = load_digits()
    images, labels = np.rint(bunch["images"] * (255 / 16)).astype(np.uint8), bunch["target"]
    flat = images.reshape(len(images), -1) / 255
    right = {"vitreous": 0, "SVC": 0, "neighbours": 0}
    folds = list(StratifiedKFold(FOLDS, shuffle=True, random_state=options.seed).split(flat, labels))
    for train, test in folds:
        grids = {
            "SVC": (SVC(), {"C": [1, 3, 10, 30], "gamma": [0.1, 0.2, 0.4, 0.8]}),
            "neighbours": (KNeighborsClassifier(), {"n_neighbors": [1, 3, 5, 10], "weights": ["uniform", "distance"]}),
        }
        for name, (model, grid) in grids.items():
            best = GridSearchCV(model, grid, cv=5).fit(flat[train], labels[train])
            right[name] += int((best.predict(flat[test]) == labels[test]).sum())
    cores, begin = Cores(), time.monotonic()
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(2) as pool:
        jobs = []
        for number, (_, test) in enumerate(folds):
            folder = Path(place) / str(number) / "digits"
            lay_out(images, labels, np.isin(np.arange(len(labels)), test), folder)
            out = Path("runs/benchmarks/digits_folds") / f"seed{options.seed}_fold{number}"
            jobs.append(pool.submit(ours, cores, folder, out, options.time, options.seed))
        for number, job in enumerate(jobs):
            print(f"fold {number}: {job.result()} of {len(folds[number][1])} right", flush=True)
            right["vitreous"] += job.result()
    row: dict[str, Any] = {"seconds": round(time.monotonic() - begin, 1), "budget": options.time}
    for name, count in right.items():
        low, high = wilson(count, len(labels))
        row[name] = {"value": count / len(labels), "low": low, "high": high, "n": len(labels)}
        print(f"{name}: {100 * count / len(labels):.2f} % ({100 * low:.2f} to {100 * high:.2f})")
    earlier = FOLDER / "digits_folds.json"
    seeds = json.loads(earlier.read_text(encoding="utf-8"))["seeds"] if earlier.is_file() else {}
    write("digits_folds", {"seeds": seeds | {str(options.seed): row}})


if __name__ == "__main__":
    main()
