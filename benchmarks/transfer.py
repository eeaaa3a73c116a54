"""What each way of using trained weights reaches, and in what time: fine-tuning, LoRA, the head alone, a probe.

    .venv/bin/python benchmarks/transfer.py [--init runs/benchmarks/cifar10_seed0] [--sets rsscn7,clothing] [--seeds 0,1,2] [--epochs 20]

No published weights are needed: the model to start from is the run that benchmarks/cifar10.py leaves (0.6 M parameters,
photographs of 32 px), so the accuracies say how the ways compare, not what a large pretrained model reaches. Every
training sees each image as often as the others, and the way "probe" once; all else is at its defaults, as a user types it. Wall
time counts everything, the start of Python included. The data have been looked at before, so no time goes into that.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from record import FOLDER, write

WAYS = {
    "from scratch": ("--init", "scratch", "--model", "vit_micro"),
    "fine-tune": ("--method", "full"),
    "fine-tune, head at zero": ("--method", "full", "--head-init", "zero"),
    "LoRA": ("--method", "lora"),
    "head": ("--method", "head"),
    "probe": ("--method", "probe"),
}


def run(data: Path, init: str, way: str, seed: int, size: int, epochs: int) -> dict[str, Any]:
    """One training as a user starts it."""
    command = [sys.executable, "-m", "vitreous", "train", str(data), "--seed", str(seed), "--image-size", str(size)]
    command += ["--epochs", str(epochs)] if way != "probe" else []  # which is solved for
    command += WAYS[way] if way == "from scratch" else ("--init", init, *WAYS[way])
    command += ["--out", f"runs/benchmarks/transfer/{data.name}", "--overwrite", "--json"]
    begin = time.monotonic()
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    test = found["metrics"]["test"]
    return {
        "wall_seconds": round(time.monotonic() - begin, 1),
        "accuracy": test["accuracy"]["value"],
        "balanced_accuracy": test["balanced_accuracy"]["value"],
        "test_images": test["accuracy"]["n"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--init", default="runs/benchmarks/cifar10_seed0")
    parser.add_argument("--sets", default="rsscn7,clothing")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--size", type=int, default=32, help="side in pixels of what the model sees")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    options = parser.parse_args()
    if not Path(options.init).is_dir():
        sys.exit(f"There is no run {options.init}; benchmarks/cifar10.py makes one.")
    earlier = FOLDER / "transfer.json"
    sets: dict[str, Any] = json.loads(earlier.read_text(encoding="utf-8"))["sets"] if earlier.is_file() else {}
    for name in options.sets.split(","):
        if not (options.data / name).is_dir():
            print(f"{name}: not in {options.data}, skipped")
            continue
        ways: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
        sets[name] = {"size": options.size, "epochs": options.epochs, "ways": ways}
        for seed in options.seeds.split(","):
            for way, rows in ways.items():
                rows.append(
                    {
                        "seed": int(seed),
                        **run(options.data / name, options.init, way, int(seed), options.size, options.epochs),
                    }
                )
                print(f"{name} seed {seed} {way}: {100 * rows[-1]['accuracy']:.1f} %, {rows[-1]['wall_seconds']:.0f} s")
                write("transfer", {"sets": sets})
        for way, rows in ways.items():
            accuracies = [100 * row["accuracy"] for row in rows]
            print(
                f"{name} {way}: mean {statistics.mean(accuracies):.1f} % ({min(accuracies):.1f} to {max(accuracies):.1f})"
            )


if __name__ == "__main__":
    main()
