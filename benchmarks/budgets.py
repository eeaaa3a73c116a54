"""How a promise of time is kept: `vitreous train SET --time T`, from the start of Python to the written report.

    .venv/bin/python benchmarks/budgets.py [--cases clothing:1m,rsscn7:2m] [--seeds 0]

One training at a time, pinned to one core, so that the rest of the machine may be used otherwise. For each: the seconds
it took, the share of the budget, the steps that were planned and those that were taken, and what the run had set aside for
what comes after the last of them, beside what that took (without its validation).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from record import spread, write

from vitreous.config.train import parse_duration

CASES = "chest_xray_nih:1m,clothing:1m,document_pages:90s,rsscn7:2m,cifar10:4m,cifar10:10m"


def run(name: str, budget: str, seed: int, folder: Path) -> dict[str, Any]:
    """One training as a user starts it, with nothing remembered of the data."""
    command = [
        sys.executable,
        "-m",
        "vitreous",
        "train",
        f"../shared/data/{name}",
        "--time",
        budget,
        "--seed",
        str(seed),
    ]
    core = max(os.sched_getaffinity(0))
    begin = time.monotonic()
    done = subprocess.run(
        ["taskset", "-c", str(core), *command, "--init", "scratch", "--out", str(folder), "--json"],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "VITREOUS_CACHE": str(folder.parent / "cache")},
    )
    wall = time.monotonic() - begin
    facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    last_state = max(each.stat().st_mtime for each in (folder / "checkpoints").glob("step_*"))
    after = (folder / "run.json").stat().st_mtime - last_state
    found = re.search(r"and (\d+) s for scoring and the report", done.stderr)
    return {
        "set": name,
        "budget": budget,
        "seed": seed,
        "seconds": round(wall, 1),
        "share": round(wall / parse_duration(budget), 4),
        "steps_planned": config["steps"],
        "steps_taken": facts["training"]["steps"],
        "set_aside": int(found[1]) if found else None,
        "taken_after": round(after, 1),
        "accuracy": facts["headline"]["accuracy"]["value"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", default=CASES)
    parser.add_argument("--seeds", default="0")
    asked = parser.parse_args()
    rows: list[dict[str, Any]] = []
    facts: dict[str, Any] = {}
    for case in asked.cases.split(","):
        name, budget = case.split(":")
        for seed in map(int, asked.seeds.split(",")):
            with tempfile.TemporaryDirectory() as place:
                rows.append(run(name, budget, seed, Path(place) / "run"))
            print(json.dumps(rows[-1]), flush=True)
            facts = {"share_of_the_budget": spread([row["share"] for row in rows]), "runs": rows}
            write("budgets", facts)
    print(json.dumps(facts["share_of_the_budget"]))


if __name__ == "__main__":
    main()
