"""How a model holds out when images get worse: the corruptions of `evaluation.corruptions` on a sample of a part."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from vitreous.data import PixelStore
from vitreous.engines import Engine
from vitreous.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from vitreous.evaluation.groups import Grouping
from vitreous.evaluation.intervals import mean, proportion
from vitreous.inputs import normalise

BATCH = 64


def robustness(
    engine: Engine,
    store: PixelStore,
    rows: np.ndarray,
    judge: Callable[[np.ndarray, np.ndarray], np.ndarray],
    grouping: Grouping,
    *,
    threads: int,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Accuracy of some images as they are and in every way and severity made worse, with intervals.

    rows: int (n,), which images of the store. judge: from logits (m, k) and the rows (m,) they are for to whether each image is
    answered rightly, bool (m,). grouping: of these n images.

    returns: {"clean", "mean" (over all ways and severities; the drop from clean as "drop"), "n", "corruptions": {name: {"kind",
    "mean", "severities": [of 1 to 5]}}}. The images are changed at the size that the model sees.
    """
    names = list(CORRUPTIONS)
    total, done = (1 + len(names) * len(SEVERITIES)) * len(rows), 0
    with ThreadPoolExecutor(threads, "vitreous-corrupt") as pool:

        def right(change: tuple[str, int] | None) -> np.ndarray:
            nonlocal done
            hits = []
            for start in range(0, len(rows), BATCH):
                own = rows[start : start + BATCH]
                pixels = store.get(own)
                if change is not None:
                    pixels = np.stack(list(pool.map(partial(_worse, change), pixels, own)))
                logits = engine.predict(normalise(pixels, store.spec)).logits
                hits.append(judge(logits, own))
                done += len(own)
                if progress is not None:
                    progress(done, total)
            return np.concatenate(hits)

        clean = right(None)
        found = {name: np.stack([right((name, severity)) for severity in SEVERITIES]) for name in names}
    whole = np.mean([found[name].mean(axis=0) for name in names], axis=0)
    return {
        "n": len(rows),
        "clean": proportion(clean, grouping).to_dict(),
        "mean": mean(whole, grouping).to_dict(),
        "drop": mean(clean - whole, grouping).to_dict(),
        "corruptions": {
            name: {
                "kind": CORRUPTIONS[name][0],
                "mean": float(hits.mean()),
                "severities": [proportion(each, grouping).to_dict() for each in hits],
            }
            for name, hits in found.items()
        },
    }


def _worse(change: tuple[str, int], pixels: np.ndarray, row: int) -> np.ndarray:
    return corrupt(pixels, *change, seed=int(row))
