"""CIFAR-10 from scratch in ten minutes, everything included: `vitreous train cifar10 --time 10m`, several seeds.

    .venv/bin/python benchmarks/cifar10.py [--seeds 0,1,2] [--time 10m]

Needs ../shared/data/cifar10 (or --data FOLDER). The cache of looked-at images is a fresh one for each run, so that nothing
is remembered from the run before.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from record import FOLDER, write


def run(data: Path, budget: str, seed: int) -> dict[str, Any]:
    """One training as a user starts it; wall time includes starting Python."""
    command = [sys.executable, "-m", "vitreous", "train", str(data), "--time", budget, "--seed", str(seed), "--json"]
    command += ["--init", "scratch", "--out", f"runs/benchmarks/cifar10_seed{seed}", "--overwrite"]
    with tempfile.TemporaryDirectory() as cache:
        begin = time.monotonic()
        done = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, env={**os.environ, "VITREOUS_CACHE": cache}, text=True
        )
        wall = time.monotonic() - begin
    return row(json.loads(done.stdout)["run"], wall, budget)


def row(folder: str, wall: float, budget: str) -> dict[str, Any]:
    facts = json.loads((Path(folder) / "run.json").read_text(encoding="utf-8"))
    metrics = json.loads((Path(folder) / "metrics.json").read_text(encoding="utf-8"))
    return {
        "wall_seconds": round(wall, 1),
        "budget": budget,
        "model": facts["architecture"]["name"],
        "parameters": facts["parameters"],
        "steps": facts["training"]["steps"],
        "stopped_early": facts["training"]["stopped_early"],
        "images_per_s": metrics["timing"]["images_per_s"],
        "accuracy": metrics["test"]["accuracy"],
        "ece": metrics["test"]["ece"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--time", default="10m")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data" / "cifar10")
    options = parser.parse_args()
    if not options.data.is_dir():
        sys.exit(f"{options.data} is not there.")
    earlier = FOLDER / "cifar10.json"
    seeds: dict[str, Any] = json.loads(earlier.read_text(encoding="utf-8"))["seeds"] if earlier.is_file() else {}
    for seed in options.seeds.split(","):
        seeds[seed] = run(options.data, options.time, int(seed))
        print(f"seed {seed}: {100 * seeds[seed]['accuracy']['value']:.2f} % in {seeds[seed]['wall_seconds']:.0f} s")
        write("cifar10", {"seeds": seeds})


if __name__ == "__main__":
    main()
