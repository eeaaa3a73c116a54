"""The digits of the quickstart over several seeds: accuracy of both models, time, and the spread.

    .venv/bin/python benchmarks/quickstart.py [--seeds 5]

The seed decides the split, the initial weights and the order, so the spread is that of all of these together.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from record import spread, write


def run(seed: int, folder: Path) -> dict[str, Any]:
    """One quickstart in a process of its own, as a user runs it."""
    command = [sys.executable, "-m", "vitreous", "quickstart", "--json", "--seed", str(seed), "--out", str(folder)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    seeds = range(parser.parse_args().seeds)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            found = run(seed, Path(folder) / str(seed))
            row = {entry["name"]: entry for entry in found["comparison"]["models"]}
            rows.append({"seed": seed, "seconds": found["seconds"], "models": row})
            print(f"seed {seed}: " + ", ".join(f"{n} {100 * e['accuracy']['value']:.2f} %" for n, e in row.items()))
    summary = {
        name: {
            "accuracy": spread([row["models"][name]["accuracy"]["value"] for row in rows]),
            "train_seconds": spread([row["models"][name]["train_seconds"] for row in rows]),
        }
        for name in rows[0]["models"]
    }
    facts = {"summary": summary, "total_seconds": spread([row["seconds"] for row in rows]), "seeds": rows}
    print(json.dumps(summary, indent=2))
    print(write("quickstart", facts))


if __name__ == "__main__":
    main()
