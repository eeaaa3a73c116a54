"""Does masked autoencoding on the very images that are labelled pay, at an equal number of steps?

    .venv/bin/python benchmarks/pretraining.py [--images 2000] [--steps 800] [--seeds 3] [--threads 1]

Of CIFAR-10 (../shared/data/cifar10, or --data FOLDER) the first N training images of a fixed shuffle, and as many test
images. Three ways to spend the same number of optimiser steps on one model: all from scratch; half on pretraining without
labels, half on fine-tuning from it; and, for what the weights are worth, half from scratch alone. Writes
results/pretraining.json after every run, so that an interrupted benchmark leaves what it has.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from record import write

import vitreous

MODEL = "vit_micro"


def subset(source: Path, target: Path, images: int) -> Path:
    """`images` rows of each part, in a shuffle of seed 0, as a manifest of parts."""
    target.mkdir(parents=True, exist_ok=True)
    for part in ("train", "test"):
        table = pq.read_table(source / f"{part}.parquet", columns=["image", "label_name"])
        rows = np.random.default_rng(0).permutation(len(table))[:images]
        pq.write_table(table.take(rows).rename_columns(["image", "label"]), target / f"{part}.parquet")
    return target


def run(data: Path, out: Path, steps: int, seed: int, threads: int, **settings: Any) -> tuple[float | None, float]:
    """Test accuracy (None after pretraining) and processor seconds of one training."""
    begin = time.process_time()
    common = {"model": MODEL, "image_size": 32, "steps": steps, "seed": seed, "threads": threads, "offline": True}
    found = vitreous.train(data, out=out, overwrite=True, **common, **settings).run.facts
    return found["headline"].get("accuracy", {}).get("value"), round(time.process_time() - begin, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data" / "cifar10")
    options = parser.parse_args()
    if not options.data.is_dir():
        raise SystemExit(f"There is no {options.data}; name the folder with --data.")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        place, half = Path(folder), options.steps // 2
        data = subset(options.data, place / "data", options.images)
        for seed in range(options.seeds):
            pre = place / f"pre-{seed}"
            for way, steps, settings in (
                ("scratch", options.steps, {"init": "scratch"}),
                ("scratch, half the steps", half, {"init": "scratch"}),
                ("pretraining", half, {"init": "scratch", "method": "pretrain"}),
                ("fine-tuned from pretraining", half, {"init": str(pre), "method": "full"}),
            ):
                out = pre if way == "pretraining" else place / "run"
                accuracy, seconds = run(data, out, steps, seed, options.threads, **settings)
                rows.append({"way": way, "seed": seed, "steps": steps, "accuracy": accuracy, "cpu_seconds": seconds})
                print(json.dumps(rows[-1]), flush=True)
                write("pretraining", {"images": options.images, "model": MODEL, "summary": summary(rows), "runs": rows})


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and deviation of the test accuracy over the seeds of each way that has any."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["accuracy"] is not None:
            found.setdefault(row["way"], []).append(row["accuracy"])
    return {
        way: {
            "mean": round(statistics.mean(values), 4),
            "deviation": round(statistics.stdev(values), 4) if len(values) > 1 else 0.0,
            "seeds": len(values),
        }
        for way, values in found.items()
    }


if __name__ == "__main__":
    main()
