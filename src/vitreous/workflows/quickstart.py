"""`vitreous quickstart`: the whole story on scikit-learn's digits, with nothing but this package and two cores."""

from __future__ import annotations

import io
import json
import time
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vitreous.config.study import StudyConfig
from vitreous.config.train import TrainConfig
from vitreous.data import Split, load_source
from vitreous.engines.select import engine_for
from vitreous.explanation import Explainer
from vitreous.export import export_run
from vitreous.export.export import ExportResult
from vitreous.inputs import as_picture, open_image
from vitreous.models.load import load_model
from vitreous.runs.atomic import write_bytes
from vitreous.runs.folder import REPORT, SPLITS, RunFolder
from vitreous.serving.predictor import Predictor
from vitreous.serving.run import BackgroundServer, require_server
from vitreous.workflows.environment import require
from vitreous.workflows.reporter import Reporter, Silent
from vitreous.workflows.study.compare import Comparison, compare
from vitreous.workflows.summary import comparison_table

VIT, CNN = "vit_micro", "resnet_micro"
EPOCHS = 26
EXPLAINED = 5
"""Digits that get a heat map."""


@dataclass(frozen=True)
class Quickstart:
    """What the tour made and found."""

    comparison: Comparison
    export: ExportResult
    heat_maps: list[dict[str, Any]]
    picture: Path
    served: dict[str, Any]
    """The server's reply for one test digit, with its true label under "true"."""
    seconds: float

    @property
    def run(self) -> RunFolder:
        return self.comparison.runs[0]


def quickstart(
    out: Path | None = None, *, seed: int = 0, overwrite: bool = False, reporter: Reporter | None = None
) -> Quickstart:
    """Train a ViT and a CNN on the embedded digits, compare, explain, export, serve one image.

    out: folder for both runs; runs/quickstart (numbered when that exists) when None. Raises MissingExtraError first.
    """
    began = time.monotonic()
    require("The quickstart", "train", "serve", "export")
    require_server()
    reporter = reporter or Silent()
    config = TrainConfig(
        out=out or Path("runs/quickstart"), epochs=EPOCHS, seed=seed, overwrite=overwrite, init="scratch"
    )
    quick = StudyConfig(engines=("eager",), batches=(1,), seconds=0.2, curve=False)
    comparison = compare("digits", (VIT, CNN), config, reporter, quick)
    run = comparison.runs[0]
    reporter.say("--- heat maps, export, server")
    heat_maps, picture = _explain(run, reporter)
    exported = export_run(run, "onnx")
    reporter.say(
        f"exported to {exported.files[0]}, largest difference from PyTorch {exported.parity.max_abs_difference:.1e}"
    )
    served = _serve_once(exported.run, reporter)
    comparison = replace(comparison, runs=[exported.run, *comparison.runs[1:]])
    return Quickstart(comparison, exported, heat_maps, picture, served, time.monotonic() - began)


def _test_digits(run: RunFolder) -> list[tuple[np.ndarray, str]]:
    """One test image of each class with its label, as stored: uint8 (8, 8)."""
    split, source = Split.read_csv(run.path / SPLITS), load_source("digits")
    index = {sample.path: number for number, sample in enumerate(source.samples)}
    first: dict[str, np.ndarray] = {}
    for row in split.indices("test"):
        first.setdefault(split.labels[row], np.asarray(source.open(index[split.paths[row]])))
    return [(first[label], label) for label in run.classes if label in first]


def _explain(run: RunFolder, reporter: Reporter) -> tuple[list[dict[str, Any]], Path]:
    """Heat maps of a few test digits side by side in one PNG, with their faithfulness."""
    explainer = Explainer(run, engine_for(load_model(run), run.spec.shape))
    found, tiles = [], []
    with reporter.task("explaining", "digits") as progress:
        for done, (image, label) in enumerate(_test_digits(run)[:EXPLAINED]):
            explanation = explainer.explain(image)
            found.append({"true": label, **explanation.to_dict()})
            tiles.append((explanation.picture, explanation.overlay))
            progress.update(done + 1, EXPLAINED)
    side = tiles[0][0].width
    sheet = Image.new("RGB", (len(tiles) * (side + 8) - 8, 2 * side + 8), "white")
    for column, (picture, overlay) in enumerate(tiles):
        sheet.paste(picture, (column * (side + 8), 0))
        sheet.paste(overlay, (column * (side + 8), side + 8))
    path = run.path / "explanations" / "digits.png"
    write_bytes(path, _png(sheet))
    return found, path


def _serve_once(run: RunFolder, reporter: Reporter) -> dict[str, Any]:
    """Start the server on a free loopback port, classify one test digit through it, stop it."""
    image, label = _test_digits(run)[-1]
    with BackgroundServer(Predictor.load(run)) as server:
        request = urllib.request.Request(
            f"{server.url}/predict",
            data=_png(as_picture(open_image(image))),
            headers={"Content-Type": "image/png"},
            method="POST",
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            reply = json.loads(answer.read())
        found = reply["predictions"][0]
        reporter.say(
            f"the server at {server.url} says {found['label']} ({100 * found['score']:.1f} %); it is a {label}"
        )
    return {"url": server.url, "true": label, **reply}


def summary(tour: Quickstart) -> str:
    """The table of results, the paths made, and three commands to try next."""
    run, parity, pair = tour.run.path, tour.export.parity, tour.comparison.pairs[0]
    served = tour.served["predictions"][0]
    return "\n".join(
        [
            "",
            comparison_table(tour.comparison.models),
            "",
            f"ViT against CNN   {pair.verdict} (McNemar p = {pair.mcnemar_p:.2f})",
            f"ONNX export       largest difference {parity.max_abs_difference:.1e}, same label for {100 * parity.top1_agreement:.0f} %",
            f"server            said {served['label']} ({100 * served['score']:.1f} %) of a {tour.served['true']}",
            f"time              {tour.seconds:.0f} s",
            "",
            f"run folder        {run}",
            f"report            {run / REPORT}",
            f"heat maps         {tour.picture}",
            f"exported model    {tour.export.files[0]}",
            "",
            "Next:",
            f"  vitreous serve {run}",
            f"  vitreous evaluate {run}",
            "  vitreous train YOUR_FOLDER --time 5m",
        ]
    )


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
