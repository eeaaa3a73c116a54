"""Where benchmark results go: one JSON file a script, with what is needed to read the numbers."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vitreous.engines.onnxruntime import available_cores
from vitreous.workflows.environment import processor, versions

FOLDER = Path(__file__).parent / "results"


def write(name: str, facts: dict[str, Any]) -> Path:
    """Write results/NAME.json with machine, versions and date."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.json"
    whole = {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": processor(),
        "cores": available_cores(),
        "versions": versions(),
        **facts,
    }
    path.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    return path


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}
