"""`vitreous evaluate`: metrics with intervals on a part of the run's own data, or on other labelled data."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from vitreous.config.convert import from_dict, read_settings
from vitreous.config.train import TrainConfig
from vitreous.data import PixelStore, Source, Split
from vitreous.data.sources.locate import in_words
from vitreous.engines import Engine, Outputs, load_engine
from vitreous.engines.onnxruntime import available_cores
from vitreous.engines.select import describe
from vitreous.errors import UsageError, unknown_name
from vitreous.evaluation.costs import expected_costs, read_costs
from vitreous.evaluation.evaluate import evaluate_part, metrics_document
from vitreous.evaluation.fitted import Fitted
from vitreous.evaluation.groups import Grouping
from vitreous.evaluation.intervals import class_mean
from vitreous.evaluation.multilabel import evaluate_labels, label_f1
from vitreous.evaluation.subgroups import Measure, by_column
from vitreous.evaluation.words import counted
from vitreous.runs.folder import CONFIG, RUN_JSON, SPLITS, RunFolder, read_facts
from vitreous.workflows.environment import available_memory, processor, require
from vitreous.workflows.mistakes import Answers
from vitreous.workflows.reporter import Reporter, Silent
from vitreous.workflows.robustness import robustness
from vitreous.workflows.subject import PARTS, Subject, foreign, is_own, own_part

CHOSEN_ON = ("train", "val")


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found."""

    part: str
    """train, val, test, or "data" for other data."""
    metrics: dict[str, Any]
    """As `metrics.json`, with the one part."""
    bad_files: list[tuple[str, str]]
    """(path, reason) of images left out; no number counts them."""
    answers: Answers
    """What the run says of each image."""
    source: Source
    """The images."""
    data: str | None = None
    """Other data than those the run was made from, as the caller named them."""
    split: str | None = None
    """The part that the caller asked for."""


def evaluate(
    run: RunFolder,
    data: object = None,
    *,
    split: str | None = None,
    engine: str = "auto",
    threads: int | None = None,
    by: Sequence[str] = (),
    costs: Path | None = None,
    corrupt: int = 0,
    learning: bool = False,
    reporter: Reporter | None = None,
) -> Evaluation:
    """Score a run. Without `data`, on the part `split` (val) of the data it was made from, found again by `splits.csv`.

    With other data, on its part `split`; where none is named, on its test part, or on all of it when it has no parts.

    by: columns of the data (of its manifest or groups.csv); each gives a table of its values, the worst named. costs: a CSV of
    what it costs to take one class for another. corrupt: number of images to make worse in every way of
    `evaluation.corruptions`, evenly spaced over the part; 0 for none. learning: also tell what more labels would bring.

    Looking at the test part is recorded in `run.json`. Raises UsageError for an unknown part, DataError where images
    or classes are missing, and the errors of the engine.
    """
    require("Evaluation", "train")
    reporter = reporter or Silent()
    if split is not None and split not in PARTS:
        raise unknown_name("part", split, PARTS)
    if run.several_labels and (costs is not None or learning):
        raise UsageError(
            f"{run.name!r} gives an image several labels or none; --costs and --learning are for one label each.",
            "Leave them out.",
        )
    if learning and split == "train":
        raise UsageError(
            "--learning asks about images that training has not seen, and --split train was given.",
            "Leave out --split, which means val.",
        )
    if data is None or (isinstance(data, str | Path) and is_own(run, str(data))):
        part, named = split or "val", None
        subject = own_part(run, part)
    else:
        part, named = split or "data", in_words(data)
        subject = foreign(run, data, split, reporter)
    # What is missing is found out before anything takes its time.
    trained = own_part(run, "train") if learning else None
    source, labels = subject.source, subject.labels
    columns = {name: column_values(source, name) for name in by}
    prices = None if costs is None else read_costs(costs, run.classes)
    began = time.monotonic()
    threads = threads or available_cores()
    loaded = load_engine(run, engine, threads)
    reporter.say(describe(loaded))
    store, found = _scored(source, part, loaded, run, threads, reporter)
    if (thresholds := run.thresholds) is not None:
        result = evaluate_labels(found.logits, labels, subject.groups, run.classes, run.temperature, thresholds)
    else:
        fitted = replace(Fitted.from_dict(run.facts.get("operating_points", {})), abstain_below=run.abstain_below)
        result = evaluate_part(found.logits, labels, subject.groups, run.classes, run.temperature, fitted=fitted)
    more: dict[str, Any] = {}
    answers, grouping = Answers(run, labels, run.scores(found.logits)), Grouping.of(subject.groups, len(labels))
    if columns:
        also = _measures(answers)
        tables = {name: by_column(name, values, answers.right, grouping, also) for name, values in columns.items()}
        more["subgroups"] = {part: {name: each.to_dict() for name, each in tables.items()}}
    if prices is not None:
        more["costs"] = {part: expected_costs(prices, answers.scores, labels, grouping)}
    if corrupt:
        rows = np.linspace(0, len(store) - 1, min(corrupt, len(store))).round().astype(np.int64)
        grouping = Grouping.of([subject.groups[row] for row in rows], len(rows))

        def judge(logits: np.ndarray, rows: np.ndarray) -> np.ndarray:
            return Answers(run, labels[rows], run.scores(logits)).right

        with reporter.task("scoring corrupted images", "images") as progress:
            worse = robustness(loaded, store, rows, judge, grouping, threads=threads, progress=progress.update)
        more["robustness"] = {part: worse}
    notes = _notes(run, subject.known, len(labels))
    if trained is not None:
        more["learning"] = {part: _learning(run, trained, loaded, found.features, subject, threads, reporter)}
    seconds = time.monotonic() - began
    timing = {"seconds": round(seconds, 2), "images_per_s": round(len(labels) / seconds, 1), "processor": processor()}
    for note in notes:
        reporter.warn(note)
    document = {**metrics_document({part: result}, timing, notes), **more, "engine": loaded.name}
    bad = [(entry.path, entry.reason) for entry in subject.bad]
    return Evaluation(part, document, bad, answers, source, named, split)


def _scored(
    source: Source, part: str, engine: Engine, run: RunFolder, threads: int, reporter: Reporter
) -> tuple[PixelStore, Outputs]:
    from vitreous.workflows.score import outputs

    with reporter.task(f"reading {part} images", "images") as progress:
        store = PixelStore(
            source,
            np.arange(len(source.samples)),
            run.spec,
            threads=threads,
            max_bytes=available_memory() // 4,
            progress=progress.update,
        )
    with reporter.task(f"scoring {part}", "images") as progress:
        return store, outputs(engine, store, progress.update)


def _learning(
    run: RunFolder,
    trained: Subject,
    engine: Engine,
    asked: np.ndarray,
    subject: Subject,
    threads: int,
    reporter: Reporter,
) -> dict[str, Any]:
    """trained: the training images. asked: features of the images of the subject."""
    from vitreous.workflows.learning import learning

    _, found = _scored(trained.source, "train", engine, run, threads, reporter)
    config = from_dict(TrainConfig, read_settings(run.path / CONFIG))
    return learning(
        found.features,
        Split.read_csv(run.path / SPLITS),
        run.classes,
        asked,
        subject.labels,
        Grouping.of(subject.groups, len(subject.labels)),
        balanced=config.balance != "none",
        method=config.method,
        seed=config.seed,
    )


def _measures(answers: Answers) -> dict[str, Measure]:
    """What subgroups are measured by besides the share that is right."""
    scores, labels = answers.scores, answers.labels
    if answers.run.several_labels:
        return {"micro_f1": lambda own, among: label_f1(labels[own] > 0, answers.given[own], among)}
    return {"balanced_accuracy": lambda own, among: class_mean("balanced_accuracy", scores[own], labels[own], among)}


def column_values(source: Source, column: str) -> list[str | None]:
    """What a column of the data says of each image. Raises UsageError for one that is not there, naming those that are."""
    found = [sample.metadata.get(column) for sample in source.samples]
    if any(value is not None for value in found):
        return found
    known = sorted({name for sample in source.samples for name in sample.metadata})
    hint = (
        f"They have {', '.join(known)}."
        if known
        else "They come from a manifest or a groups.csv; these data have none."
    )
    raise UsageError(f"The data have no column {column!r}.", hint)


def _notes(run: RunFolder, known: Counter[str], total: int) -> list[str]:
    """What a reader must know of these images. A look at test images is written into `run.json`."""
    notes = []
    leaks = int(run.facts.get("data", {}).get("leaks", 0))
    if leaks and (known["val"] or known["test"]):
        notes.append(f"The given parts leak ({counted(leaks, 'pair')} of the same image): these numbers flatter.")
    seen = sum(known[part] for part in CHOSEN_ON)
    if seen:
        which = f"All {total:,}" if seen == total else f"{seen:,} of {total:,}"
        notes.append(f"{which} images were used for training or choosing: these numbers flatter.")
    if known["test"]:
        before = read_facts(run.path / RUN_JSON)  # as it is now: the caller may have opened the run long ago
        count = int(before.get("test_scored", 0)) + 1
        entry = {"when": datetime.now(UTC).isoformat(timespec="seconds"), "by": "evaluate", "images": known["test"]}
        run.updated(test_scored=count, test_log=[*before.get("test_log", []), entry])
        if count > 1:
            notes.append(f"The test part was scored {count} times; choosing by it would spoil it.")
    return notes
