"""`vitreous explain`: heat maps of images as files, with their faithfulness."""

from __future__ import annotations

import hashlib
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
    """Write `NAME.METHOD.heatmap.png` (grey, original size) and `NAME.METHOD.overlay.png` for each image into `out`.

    Raises what `expand` and `vitreous.explanation.explain_image` raise; DataError when no image can be used.
    """
    reporter = reporter or Silent()
    # Gradient methods need the eager engine; `auto` prefers them where a Vision Transformer and torch are at hand.
    predictor = Predictor.load(run, _engine_for(engine, method), threads)
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
            stem = f"{_stem(path)}.{explanation.method}"
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


def _engine_for(engine: str, method: str) -> str:
    import importlib.util

    wants_gradients = method in ("auto", "relevance", "rollout")
    return "eager" if engine == "auto" and wants_gradients and importlib.util.find_spec("torch") else engine


def _stem(path: str) -> str:
    """The file's name, and a few digits of where it lies, so that equal names from two folders do not collide."""
    return f"{Path(path).stem}-{hashlib.sha256(path.encode()).hexdigest()[:6]}"


def _save(image: Image.Image, path: Path) -> None:
    write_with(path, lambda temporary: image.save(temporary, format="PNG"))
