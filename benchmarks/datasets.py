"""`vitreous train SET --time 5m` on the six development sets: what comes out with no other argument.

    .venv/bin/python benchmarks/datasets.py [--time 5m] [--sets rsscn7,clothing]

Needs the sets in ../shared/data (or --data FOLDER); says so where they are absent. Runs land in runs/benchmarks/.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from record import FOLDER, write

SETS = ("magnetic_tile", "rsscn7", "chest_xray_nih", "clothing", "document_pages", "cifar10")


def run(data: Path, budget: str) -> dict[str, Any]:
    """One training as a user starts it; wall time includes starting Python."""
    command = [sys.executable, "-m", "vitreous", "train", str(data), "--time", budget, "--json"]
    command += ["--out", f"runs/benchmarks/{data.name}", "--overwrite"]
    begin = time.monotonic()
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    facts = json.loads((Path(found["run"]) / "run.json").read_text(encoding="utf-8"))
    return {
        "wall_seconds": round(time.monotonic() - begin, 1),
        "model": facts["architecture"]["name"],
        "parameters": facts["parameters"],
        "steps": facts["training"]["steps"],
        "stopped_early": facts["training"]["stopped_early"],
        "counts": facts["data"]["counts"],
        "test": {name: found["metrics"]["test"][name] for name in ("accuracy", "balanced_accuracy", "auroc", "ece")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--time", default="5m")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    options = parser.parse_args()
    earlier = FOLDER / "datasets.json"
    rows: dict[str, Any] = json.loads(earlier.read_text(encoding="utf-8"))["sets"] if earlier.is_file() else {}
    for name in options.sets.split(","):
        if not (options.data / name).is_dir():
            print(f"{name}: not in {options.data}, skipped")
            continue
        rows[name] = {"budget": options.time, **run(options.data / name, options.time)}
        accuracy = rows[name]["test"]["accuracy"]
        print(f"{name}: {100 * accuracy['value']:.1f} % in {rows[name]['wall_seconds']:.0f} s", flush=True)
        write("datasets", {"sets": rows})


if __name__ == "__main__":
    main()
