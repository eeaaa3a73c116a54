"""Several runs that differ in their seed or their fold alone: what a recipe brings on average, and how much of it is luck.

Each is an ordinary run folder inside one that holds `repeats.json`: seed_0, seed_1, ... or fold_1, fold_2, ..., or
seed_0-fold_1, ... All runs share the test part, and those of one fold the validation part, so that they differ in initial
weights, order and augmentation only.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from vitreous.config.convert import from_dict, to_dict
from vitreous.config.train import TrainConfig, parse_duration, parse_fold
from vitreous.data.sources.locate import short_name
from vitreous.errors import RunError, StoppedError, UsageError
from vitreous.evaluation.groups import Grouping
from vitreous.evaluation.intervals import proportion
from vitreous.evaluation.spread import spread
from vitreous.runs.atomic import write_json
from vitreous.runs.create import claim
from vitreous.runs.folder import METRICS, PREDICTIONS, RunFolder, resume_command
from vitreous.workflows.continued import at_new_places
from vitreous.workflows.reporter import Reporter, Silent
from vitreous.workflows.seat import seat
from vitreous.workflows.train import train

REPEATS = "repeats.json"
LEAST = 1.0
"""Seconds below which a share of a budget is none."""


@dataclass(frozen=True)
class Trained:
    """What a call left: one run, or the one of several that validates best."""

    run: RunFolder
    repeats: dict[str, Any] | None = None
    """The content of `repeats.json`; None for a single run."""


@dataclass(frozen=True)
class _Member:
    """One of several runs."""

    name: str
    seed: int
    fold: int | None


def train_all(
    data: object, config: TrainConfig | None = None, reporter: Reporter | None = None, *, began: float | None = None
) -> Trained:
    """Train once, or once for each seed and fold that `config` asks for (`seeds`, `k_fold` without a fold's number).

    A time budget holds for all runs together. With `resume` finished runs are kept and the others continued or started,
    with the settings stored with them. Raises what training raises.
    """
    began = time.monotonic() if began is None else began
    config, reporter = config or TrainConfig(), reporter or Silent()
    before = _before(config)
    if before:
        config = _continued(config, before["config"])
    if not config.repeats:
        return Trained(train(data, config, reporter, began=began))
    if seat() is not None:
        raise UsageError(
            "--seeds and --k-fold start one run after the other, which processes that torchrun started cannot agree on.",
            "Give --devices N in place of torchrun.",
        )
    named = str(data) if isinstance(data, str | Path) else None
    folder = _folder(config, "dataset" if named is None else short_name(named), reporter)
    members = list(_members(config))
    # That of runs which are continued is the one they began with, so that the later ones do not get more.
    share = before.get("share") or _share(config, began, len(members))
    head = {"config": _stored(config), "share": share}
    write_json(folder / REPEATS, {"status": "training", **head, "runs": [m.name for m in members]})
    runs: list[RunFolder] = []
    try:
        for number, member in enumerate(members):
            reporter.say(f"--- {member.name}, run {number + 1} of {len(members)}")
            runs.append(train(data, _settings(config, member, folder, share), reporter))
    except StoppedError as error:
        raise StoppedError(error.message, f"Continue with: {resume_command(named, folder)}") from error
    found = summarise(folder, members, runs)
    write_json(folder / REPEATS, {"status": "complete", **head, **found})
    best = next(run for run in runs if str(run.path) == found["best"])
    return Trained(best, {"folder": str(folder), **found})


def summarise(folder: Path, members: Sequence[_Member], runs: Sequence[RunFolder]) -> dict[str, Any]:
    """What `repeats.json` says: `runs`, `test` and `val` {metric: mean, deviation, low, high, n}, `best`, and for folds
    `pooled`: the accuracy on every validation image, each judged by a model that did not learn from it.
    """
    documents = [json.loads((run.path / METRICS).read_text(encoding="utf-8")) for run in runs]
    entries = [
        {
            "name": member.name,
            "run": str(run.path),
            "seed": member.seed,
            "fold": member.fold,
            **{
                part: {name: found["value"] for name, found in document[part].items()} for part in document["per_class"]
            },
        }
        for member, run, document in zip(members, runs, documents, strict=True)
    ]
    found: dict[str, Any] = {"runs": entries}
    folds = len({member.fold for member in members})
    for part in documents[0]["per_class"]:
        values = {name: [entry[part].get(name) for entry in entries] for name in documents[0][part]}
        # Folds are judged on what the others learn from; the test part nobody learns from.
        overlap = 1 / (folds - 1) if part == "val" and folds > 1 else 0.0
        found[part] = {name: spread(numbers, overlap).to_dict() for name, numbers in values.items()}
    if folds > 1:
        found["pooled"] = {"accuracy": _pooled(runs)}
    chosen_by = "balanced_accuracy" if "balanced_accuracy" in entries[0]["val"] else "average_precision"
    best = max(range(len(runs)), key=lambda index: entries[index]["val"][chosen_by] or 0.0)
    found["best"] = str(runs[best].path)
    return found


def _pooled(runs: Sequence[RunFolder]) -> dict[str, Any]:
    """Accuracy over the validation parts of all runs with its interval; an image that several seeds judged is one group."""
    columns = ["path", "part", "label", "predicted", "group"]
    rows = [row for run in runs for row in pq.read_table(run.path / PREDICTIONS, columns=columns).to_pylist()]
    rows = [row for row in rows if row["part"] == "val"]
    hits = np.array([row["label"] == row["predicted"] for row in rows])
    return proportion(hits, Grouping.of([row["group"] for row in rows], len(rows))).to_dict()


def _members(config: TrainConfig) -> Iterator[_Member]:
    fold, count = parse_fold(config.k_fold) if config.k_fold else (None, 0)
    folds: list[int | None] = [*range(1, count + 1)] if fold == 0 else [fold]
    for seed, number in itertools.product(range(config.seed, config.seed + config.seeds), folds):
        words = [f"seed_{seed}"] if config.seeds > 1 else []
        words += [f"fold_{number}"] if fold == 0 else []
        yield _Member("-".join(words), seed, number)


def _settings(config: TrainConfig, member: _Member, folder: Path, share: str | None) -> TrainConfig:
    """The settings of one run; all have the split of the first."""
    fold = None if member.fold is None else f"{member.fold}/{parse_fold(config.k_fold or '')[1]}"
    return replace(
        config,
        seeds=1,
        k_fold=fold,
        seed=member.seed,
        split_seed=config.seed if config.split_seed is None else config.split_seed,
        out=folder / member.name,
        time=share,
    )


def _share(config: TrainConfig, began: float, runs: int) -> str | None:
    """What each run may take of the budget: the same for all, since recipe, search for look-alikes and with it folds depend
    on it.

    Raises UsageError for a budget that so many runs cannot share.
    """
    if config.time is None:
        return None
    each = (began + parse_duration(config.time) - time.monotonic()) / runs
    if each < LEAST:
        raise UsageError(
            f"--time {config.time} is for all {runs} runs together, which leaves {max(0.0, each):.1f} s for each.",
            "Give more time, or fewer seeds or folds.",
        )
    return f"{each:.2f}s"


def _folder(config: TrainConfig, name: str, reporter: Reporter) -> Path:
    """The folder that the runs go into. What to continue and what to replace is decided run by run, by `train`.

    Raises UsageError for a folder that holds one run.
    """
    if config.out is not None and (config.resume or config.overwrite):
        if config.out.is_dir() and any(config.out.iterdir()) and not (config.out / REPEATS).is_file():
            raise UsageError(
                f"{str(config.out)!r} holds something else than several runs, so they are not written into it.",
                "Choose another --out.",
            )
        config.out.mkdir(parents=True, exist_ok=True)
        return config.out
    place = claim(config.out, name)
    if place.note:
        reporter.say(place.note)
    return place.path


def _before(config: TrainConfig) -> Mapping[str, Any]:
    """What `repeats.json` holds of runs that are continued; nothing where there are none. Raises RunError for a damaged one."""
    if not config.resume or config.out is None or not (config.out / REPEATS).is_file():
        return {}
    try:
        found = json.loads((config.out / REPEATS).read_text(encoding="utf-8"))
        return {**found, "config": found["config"]}
    except (ValueError, KeyError) as error:
        raise RunError(f"{str(config.out / REPEATS)!r} is damaged.", "Restore it, or start anew elsewhere.") from error


def _continued(config: TrainConfig, stored: Mapping[str, Any]) -> TrainConfig:
    """The settings that the runs in a folder were started with, at the places where things lie now: the folder may have
    moved, and what those of its runs begin with that have not begun."""
    kept = at_new_places(from_dict(TrainConfig, stored), config)
    moved = kept.init not in ("auto", "scratch") and config.init not in ("auto", "scratch")
    return replace(
        kept,
        out=config.out,
        resume=True,
        init=config.init if moved else kept.init,
        threads=config.threads or kept.threads,
        time=config.time or kept.time,
    )


def _stored(config: TrainConfig) -> Mapping[str, Any]:
    return to_dict(replace(config, resume=False, overwrite=False))
