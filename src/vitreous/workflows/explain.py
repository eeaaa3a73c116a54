"""`vitreous explain`: heat maps of images as files, with their faithfulness."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vitreous.errors import DataError, ImageError
from vitreous.runs.atomic import write_with
from vitreous.serving.predictor import Predictor
from vitreous.workflows.predict import expand
from vitreous.workflows.reporter import Reporter, Silent


@dataclass(frozen=True)
class Explained:
    """Facts of each picture written, as `--json` prints them."""

    images: list[dict[str, Any]]
    bad_files: list[dict[str, str]]


def explain(
    run: Path,
    images: Sequence[str],
    *,
    method: str = "auto",
    target: str | None = None,
    out: Path | None = None,
    engine: str = "auto",
    threads: int | None = None,
    faithfulness: bool = True,
    reporter: Reporter | None = None,
) -> Explained:
    """Write two pictures of each image into `out` (the run's folder `explanations` when None).

    They are `NAME-DIGITS.METHOD.TARGET.heatmap.png`, grey, at the image's own size, and `... .overlay.png`: DIGITS
    tell files of one name apart, TARGET is the explained class with all but letters, digits, `_` and `-` replaced.

    Raises what `expand` and `vitreous.explanation.explain_image` raise; DataError when no image can be used.
    """
    reporter = reporter or Silent()
    predictor = Predictor.load(run, engine, threads)
    folder = out or predictor.run.path / "explanations"
    paths = expand(images)
    found = Explained([], [])
    with reporter.task("explaining", "images") as progress:
        for done, path in enumerate(paths):
            try:
                explanation = predictor.explain(path, method, target, faithfulness=faithfulness)
            except ImageError as error:
                found.bad_files.append({"path": path, "reason": error.message})
                continue
            stem = f"{_stem(path)}.{explanation.method}.{_safe(explanation.target)}"
            heatmap, overlay = folder / f"{stem}.heatmap.png", folder / f"{stem}.overlay.png"
            _save(Image.fromarray(np.rint(255 * explanation.heatmap).astype(np.uint8)), heatmap)
            _save(explanation.overlay, overlay)
            found.images.append(
                {"path": path, **explanation.to_dict(), "heatmap": str(heatmap), "overlay": str(overlay)}
            )
            progress.update(done + 1, len(paths))
    if not found.images:
        first = found.bad_files[0]
        raise DataError(f"None of {len(paths):,} images can be used; the first: {first['path']} {first['reason']}.")
    return found


def _stem(path: str) -> str:
    """The file's name, and a few digits of where it lies, so that equal names from two folders do not collide."""
    return f"{Path(path).stem}-{_digits(path)}"


def _safe(target: str) -> str:
    """A class name as part of a file name; one that had to be changed gets digits, so that no two become one."""
    safe = re.sub(r"[^\w-]+", "_", target)[:40]
    return safe if safe == target else f"{safe}-{_digits(target)}"


def _digits(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def _save(image: Image.Image, path: Path) -> None:
    write_with(path, lambda temporary: image.save(temporary, format="PNG"))
