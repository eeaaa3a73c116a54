"""The report, the model card and the plots of a run, put together from what the run found."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

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
from vitreous.models.vit import VisionTransformer
from vitreous.runs.atomic import write_bytes
from vitreous.runs.decision import squared_distances
from vitreous.runs.folder import CARD, PLOTS, REPORT, RunFolder, read_history
from vitreous.workflows.environment import processor
from vitreous.workflows.mistakes import NEIGHBOUR_SIDE, NEIGHBOURS, Answers, mistakes, png, thumbnail
from vitreous.workflows.reporter import Reporter
from vitreous.workflows.setup import Setup

MOST_HEAT_MAPS = 4


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
    for name, drawn in pictures.items():
        write_bytes(run.path / PLOTS / f"{name}.png", drawn)
    answers = Answers(run, setup.labels(store), run.scores(test.logits))
    with reporter.task("writing the report", "pictures") as progress:
        maps = _heat_maps(engine, setup, store, answers, progress.update)
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
        mistakes=mistakes(
            answers,
            lambda row: thumbnail(setup.material.source.open(int(store.indices[row])), setup.spec),
            lambda row: setup.material.split.paths[store.indices[row]],
            _resembling(run, setup, test.features, usual),
        ),
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


def _resembling(
    run: RunFolder, setup: Setup, features: np.ndarray, usual: Usual
) -> Callable[[int], list[report.Neighbour]]:
    """The training images that an image resembles most, by its row. features: (n, d) of the images."""
    strangeness = run.strangeness
    assert strangeness is not None

    def found(row: int) -> list[report.Neighbour]:
        (near,) = usual.nearest(strangeness.whitened(features[row : row + 1]), NEIGHBOURS)
        return [
            report.Neighbour(
                image=thumbnail(setup.material.source.open(index), setup.spec, NEIGHBOUR_SIDE),
                label=setup.material.split.labels[index],
            )
            for index in near.tolist()
        ]

    return found


def _heat_maps(
    engine: Engine, setup: Setup, store: PixelStore, answers: Answers, progress: Any
) -> Sequence[report.HeatMap]:
    """What the model looks at in one test image of each of the first classes; none for convolutional models."""
    if not isinstance(setup.start.model, VisionTransformer):
        return []
    labels, run = answers.labels, answers.run
    of_class = [labels[:, k] > 0 if run.several_labels else labels == k for k in range(len(run.classes))]
    rows = list(dict.fromkeys(int(np.flatnonzero(own)[0]) for own in of_class if own.any()))
    explainer, maps = Explainer(run, engine), []
    for done, row in enumerate(rows[:MOST_HEAT_MAPS]):
        index = int(store.indices[row])
        found = explainer.explain(setup.material.source.open(index), faithfulness=False)
        maps.append(
            report.HeatMap(
                image=png(found.picture),
                overlay=png(found.overlay),
                true=answers.true(row),
                predicted=found.target,
                score=float(answers.scores[row].max()),
                method=found.method,
                path=setup.material.split.paths[index],
            )
        )
        progress(done + 1, min(len(rows), MOST_HEAT_MAPS))
    return maps
