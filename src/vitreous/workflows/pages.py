"""The report, the model card and the plots of a run, put together from what the run found."""

from __future__ import annotations

import io
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from vitreous.config.train import TrainConfig
from vitreous.data import PixelStore
from vitreous.engines import Engine, Outputs
from vitreous.evaluation import facts as report
from vitreous.evaluation import words
from vitreous.evaluation.card import write_model_card
from vitreous.evaluation.chance import chance_note
from vitreous.evaluation.evaluate import PartResult
from vitreous.evaluation.plots import draw_pictures
from vitreous.evaluation.report import write_report
from vitreous.explanation import Explainer
from vitreous.explanation.draw import display
from vitreous.inputs import open_image
from vitreous.models.vit import VisionTransformer
from vitreous.runs.atomic import write_bytes
from vitreous.runs.decision import squared_distances
from vitreous.runs.folder import CARD, PLOTS, REPORT, RunFolder, read_history
from vitreous.workflows.environment import processor
from vitreous.workflows.reporter import Reporter
from vitreous.workflows.setup import Setup

MOST_MISTAKES = 12
MOST_HEAT_MAPS = 4
GALLERY_SIDE = 224
"""Pixels of the longer side of a picture in the report."""
NEIGHBOURS, NEIGHBOUR_SIDE = 3, 96
"""Training images shown beside a mistake, and the pixels of their longer side."""


@dataclass(frozen=True)
class Usual:
    """Training images, evenly spaced over all of them, and where they lie in feature space."""

    store: PixelStore
    points: np.ndarray
    """float32 (n, r): `Strangeness.whitened` features."""

    def nearest(self, points: np.ndarray, most: int) -> np.ndarray:
        """int (b, most): for each point (b, r) which images of the data are nearest, the nearest first."""
        squared = squared_distances(points, self.points)
        return self.store.indices[np.argsort(squared, axis=1, kind="stable")[:, :most]]


def write_pages(
    run: RunFolder,
    engine: Engine,
    setup: Setup,
    results: Mapping[str, PartResult],
    document: Mapping[str, Any],
    store: PixelStore,
    test: Outputs,
    usual: Usual,
    reporter: Reporter,
) -> None:
    """Write plots/*.png, report.html and README.md. `run` need not be finished, but its facts must be.

    store: the test images. test: what the model says of them. usual: training images to compare mistakes with.
    """
    known = {**document, "abstention": run.facts["abstention"]}
    pictures = draw_pictures(known, read_history(run.path), "test")
    for name, png in pictures.items():
        write_bytes(run.path / PLOTS / f"{name}.png", png)
    scores = run.scores(test.logits)
    with reporter.task("writing the report", "pictures") as progress:
        maps = _heat_maps(run, engine, setup, store, scores, progress.update)
    facts = report.ReportFacts(
        title=f"{run.name}: {setup.start.architecture.name}",
        metrics=document,
        warnings=_warnings(run, setup, results),
        data=_data(run, setup),
        model=report.ModelSummary(
            name=setup.start.architecture.name,
            parameters=setup.parameters,
            macs=setup.macs,
            image_size=setup.spec.height,
            initial_weights=str(setup.start.weights["source"] or "random, trained from scratch"),
            licence=str(setup.start.weights["licence"] or ""),
        ),
        decisions=_decisions(setup.config, setup.spec.resize, run.several_labels),
        abstention=None if run.several_labels else run.facts["abstention"],
        several_labels=run.several_labels,
        pictures=pictures,
        mistakes=_mistakes(run, setup, store, scores, test.features, usual),
        heat_maps=maps,
        environment={**run.facts["versions"], "processor": processor()},
        command=f"vitreous train {shlex.quote(run.facts['data']['source'])} --config {shlex.quote(str(run.path / 'config.json'))}",
        next_commands=next_commands(run.path),
    )
    write_report(run.path / REPORT, facts)
    write_model_card(run.path / CARD, facts)


def next_commands(path: Path) -> list[tuple[str, str]]:
    """What one does with a finished run: (command, what for)."""
    folder = shlex.quote(str(path))
    return [
        (f"vitreous predict {folder} IMAGE...", "label new images"),
        (f"vitreous explain {folder} IMAGE", "see what a label rests on"),
        (f"vitreous export {folder} --format onnx", "run it without PyTorch"),
        (f"vitreous serve {folder}", "a web page and an HTTP API on this machine"),
    ]


def _warnings(run: RunFolder, setup: Setup, results: Mapping[str, PartResult]) -> list[str]:
    found = []
    split, scan = setup.material.split, setup.material.scan
    if split.leaks:
        leak = split.leaks[0]
        found.append(
            f"{words.counted(split.leak_count, 'pair')} of images in different given parts are the same, so the test numbers flatter; the first ({leak.reason}): {leak.first} and {leak.second}."
        )
    if split.conflicts:
        found.append(f"{len(split.conflicts):,} pairs show the same pixels under two labels.")
    if scan.bad:
        found.append(f"{len(scan.bad):,} files could not be used; no number counts them.")
    if note := chance_note(results["val"]):
        found.append(note)
    if results["test"].n < 200:
        found.append(f"The test part has only {results['test'].n} images: read the intervals, not the points.")
    if run.facts["training"]["stopped_early"]:
        trained = run.facts["training"]
        found.append(f"Training ended after step {trained['steps']:,} of {setup.config.steps:,}.")
    return found


def _data(run: RunFolder, setup: Setup) -> report.DataSummary:
    split, scan = setup.material.split, setup.material.scan
    classes = setup.spec.classes
    counts = {
        part: dict.fromkeys(classes, 0)
        | Counter(name for row in setup.material.rows(part) for name in setup.material.source.samples[row].label_names)
        for part in ("train", "val", "test")
    }
    grouped = len(set(split.groups)) < len(set(split.hashes))
    groups = {part: len({split.groups[row] for row in setup.material.rows(part)}) for part in counts} if grouped else {}
    widths, heights = zip(*scan.sizes, strict=True)
    if len(set(scan.sizes)) == 1:
        sizes = f"all {widths[0]} × {heights[0]} pixels"
    else:
        sizes = f"{min(widths)} to {max(widths)} × {min(heights)} to {max(heights)} pixels, median {median(widths):.0f} × {median(heights):.0f}"
    return report.DataSummary(
        source=run.facts["data"]["source"],
        counts=counts,
        groups=groups,
        sizes=sizes,
        modes=Counter(scan.modes),
        bad_files=[(bad.path, bad.reason) for bad in scan.bad],
    )


def _decisions(config: TrainConfig, resize: str, several_labels: bool) -> list[str]:
    """The choices a reader may want to question, in a sentence each."""
    chosen_by = "mean average precision" if several_labels else "balanced accuracy"
    assert config.steps is not None and config.optim.lr is not None
    return [
        f"Domain preset {config.preset}: it decides which changes of an image leave its label true.",
        f"Every image is brought to {config.image_size} × {config.image_size} pixels ({resize}).",
        f"{config.steps:,} steps of {config.batch_size} images, learning rate {config.optim.lr:g}, seed {config.seed}.",
        f"Unequal classes: {config.balance}.",
        f"Numbers computed in {config.precision}, weights kept in fp32.",
        f"The weights are the latest whose {chosen_by} on the validation part is within one standard error of the best.",
    ]


def _mistakes(
    run: RunFolder, setup: Setup, store: PixelStore, scores: np.ndarray, features: np.ndarray, usual: Usual
) -> list[report.Mistake]:
    """The test images the model got wrong while surest of itself, each with the training images that it resembles most."""
    labels = setup.labels(store)
    true, predicted, sureness, wrong = (_several if run.several_labels else _single)(run, labels, scores)
    worst = wrong[np.argsort(-sureness[wrong], kind="stable")][:MOST_MISTAKES]
    assert run.strangeness is not None
    near = usual.nearest(run.strangeness.whitened(features[worst]), NEIGHBOURS)
    return [
        report.Mistake(
            image=_thumbnail(setup, int(store.indices[row])),
            true=true(row),
            predicted=predicted(row),
            score=float(sureness[row]),
            path=setup.material.split.paths[store.indices[row]],
            neighbours=[
                report.Neighbour(
                    image=_thumbnail(setup, index, NEIGHBOUR_SIDE), label=setup.material.split.labels[index]
                )
                for index in own.tolist()
            ],
        )
        for row, own in zip(worst, near, strict=True)
    ]


_Told = tuple[Callable[[int], str], Callable[[int], str], np.ndarray, np.ndarray]
"""True and predicted label of a row, how sure the model is of each row (n,), and the rows that are wrong."""


def _single(run: RunFolder, labels: np.ndarray, scores: np.ndarray) -> _Told:
    classes, best = run.classes, scores.argmax(axis=1)
    return (
        lambda row: classes[labels[row]],
        lambda row: classes[best[row]],
        scores.max(axis=1),
        np.flatnonzero(labels != best),
    )


def _several(run: RunFolder, labels: np.ndarray, scores: np.ndarray) -> _Told:
    """Sure is the model of the wrong label that it is surest to give or not to give."""
    given, there = scores >= run.thresholds, labels > 0
    wrong = given != there
    sureness = (np.where(given, scores, 1 - scores) * wrong).max(axis=1)

    def named(rows: np.ndarray) -> Callable[[int], str]:
        return lambda row: ", ".join(run.classes[k] for k in np.flatnonzero(rows[row])) or "no label"

    return named(there), named(given), sureness, np.flatnonzero(wrong.any(axis=1))


def _heat_maps(
    run: RunFolder, engine: Engine, setup: Setup, store: PixelStore, scores: np.ndarray, progress: Any
) -> Sequence[report.HeatMap]:
    """What the model looks at in one test image of each of the first classes; none for convolutional models."""
    if not isinstance(setup.start.model, VisionTransformer):
        return []
    labels, classes = setup.labels(store), setup.spec.classes
    of_class = [labels[:, k] > 0 if run.several_labels else labels == k for k in range(len(classes))]
    rows = list(dict.fromkeys(int(np.flatnonzero(own)[0]) for own in of_class if own.any()))
    true = (_several if run.several_labels else _single)(run, labels, scores)[0]
    explainer, maps = Explainer(run, engine), []
    for done, row in enumerate(rows[:MOST_HEAT_MAPS]):
        index = int(store.indices[row])
        found = explainer.explain(setup.material.source.open(index), faithfulness=False)
        maps.append(
            report.HeatMap(
                image=_png(found.picture),
                overlay=_png(found.overlay),
                true=true(row),
                predicted=found.target,
                score=float(scores[row].max()),
                method=found.method,
                path=setup.material.split.paths[index],
            )
        )
        progress(done + 1, min(len(rows), MOST_HEAT_MAPS))
    return maps


def _thumbnail(setup: Setup, index: int, side: int = GALLERY_SIDE) -> bytes:
    image = open_image(setup.material.source.open(index), target=side, decode=setup.spec.decode)
    return _png(display(image, setup.spec), side)


def _png(image: Image.Image, side: int = GALLERY_SIDE) -> bytes:
    image = image.convert("RGB")
    if max(image.size) > side:
        image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
