"""The trainings of a study, one after the other, and what they found."""

from __future__ import annotations

import json
import shlex
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from vitreous.config.convert import from_dict, to_dict
from vitreous.config.study import StudyConfig
from vitreous.config.train import TrainConfig, parse_fold
from vitreous.data.sources.locate import in_words, short_name
from vitreous.errors import RunError, StoppedError, UsageError, VitreousError
from vitreous.evaluation.groups import Grouping
from vitreous.evaluation.intervals import Interval
from vitreous.evaluation.paired import PairResult, compare_all
from vitreous.evaluation.several import mean_accuracy
from vitreous.evaluation.spread import spread
from vitreous.evaluation.words import counted
from vitreous.models.build import check_known
from vitreous.runs.atomic import write_json
from vitreous.runs.create import Claim, claim, default_place, is_occupied, is_run
from vitreous.runs.folder import METRICS, PREDICTIONS, RUN_JSON, SPLITS, RunFolder
from vitreous.training.signals import Interrupted, stop_on_signal
from vitreous.workflows.continued import at_new_places
from vitreous.workflows.environment import processor, require, versions
from vitreous.workflows.finish import leak_note
from vitreous.workflows.initial import check_model
from vitreous.workflows.latency import check_engines
from vitreous.workflows.reporter import Once, Reporter, Silent
from vitreous.workflows.study.ahead import Ahead, for_model, look_ahead
from vitreous.workflows.study.cost import growth, measured
from vitreous.workflows.study.page import write_page
from vitreous.workflows.study.words import verdict
from vitreous.workflows.track import check_trackers
from vitreous.workflows.train import train

STUDY = "study.json"
COMPARISON = "comparison.json"
SPREAD = ("balanced_accuracy", "macro_f1", "auroc", "ece", "nll")
"""Metrics of the test part whose mean over the seeds is given beside the accuracy."""


@dataclass(frozen=True)
class Comparison:
    """Runs on the same split, and what may be said of their differences."""

    folder: Path
    runs: list[RunFolder]
    """Of each model the run of its first seed, on the whole training part; models that failed have none."""
    models: list[dict[str, Any]]
    """As `--json` gives them: name, run, runs, accuracy {value, low, high}, parameters, macs, train_seconds, latency_ms (batch
    1, eager, here), latency (every engine), memory, cost_per_million, failed (why, or None)."""
    pairs: list[PairResult]
    facts: dict[str, Any]
    """What else `comparison.json` says: budget, equal, margin, seeds, verdict, growth, learning."""

    def notes(self) -> list[str]:
        """What every one of the numbers has to say with it."""
        return list(self.facts["notes"])

    def to_dict(self) -> dict[str, Any]:
        return {
            "models": self.models,
            "pairs": [pair.to_dict() for pair in self.pairs],
            **self.facts,
            "folder": str(self.folder),
            "processor": processor(),
            "versions": versions(),
        }


@dataclass(frozen=True)
class _Member:
    """One training of a study."""

    model: str
    seed: int
    share: float
    path: Path

    @property
    def words(self) -> str:
        return f"{self.model}, seed {self.seed}" + (
            f", {self.share:.3g} of the training part" if self.share < 1 else ""
        )


def compare(
    data: object,
    models: Sequence[str],
    config: TrainConfig | None = None,
    reporter: Reporter | None = None,
    study: StudyConfig | None = None,
) -> Comparison:
    """Train each model on the same split with the same seeds and the same budget, and test the differences.

    All start from random weights unless `init` says otherwise: published weights for one and none for the other would
    compare the weights. `config.seeds` trainings of each model differ in their seed. With `resume` finished trainings are
    kept and the others continued or started, with the settings and models stored with the study; more models and seeds may be
    asked for.
    A model that fails in the middle is reported in its entry, and the others finish. Raises UsageError for fewer than two
    or unknown names and for models that cannot be trained here, what reading the data raises, and, where every
    training failed, what the last one raised.
    """
    require("Comparing", "train")
    config, study, reporter = config or TrainConfig(), study or StudyConfig(), Once(reporter or Silent())
    if config.init == "auto":
        config = replace(config, init="scratch")
    config = replace(config, stop_after=None)  # of a single run, whose settings these may be
    config, names, study = _before(config, list(dict.fromkeys(models)), study)
    _check(names, config, study)
    named = str(data) if isinstance(data, str | Path) else None
    place = _place(config, f"compare-{'dataset' if named is None else short_name(named)}")
    if place.note:
        reporter.say(place.note)
    try:
        members = list(_members(names, config, (*study.shares, 1.0), place.path))
        _check_places(members)
        place.path.mkdir(parents=True, exist_ok=True)
        with place.held() as note, stop_on_signal(at_once=True):
            if note:
                reporter.warn(note)
            ahead = look_ahead(data, names, config, study, place.path, reporter)
            reporter.say(
                f"{len(names)} models, {counted(config.seeds, 'seed')}; the same for all: split, image size, {ahead.budget}"
            )
            ahead.split.write_csv(place.path / SPLITS)
            write_json(place.path / STUDY, _stored(config, names, study, in_words(data)))
            done, failed = _train_all(data, members, config, ahead, place.path, reporter)
            found = _concluded(place.path, names, done, failed, ahead, config, study, reporter)
            write_json(place.path / COMPARISON, found.to_dict())
            write_page(found.to_dict(), in_words(data), place.path)
    except (StoppedError, Interrupted) as error:
        if isinstance(error, Interrupted) and not begun(place.path):
            place.release()
            raise StoppedError(
                f"Stopped by {error.signal_name} before the first training.", "Run the same command again."
            ) from error
        again = [
            "vitreous",
            "compare",
            named or "DATA",
            "--models",
            ",".join(names),
            "--out",
            str(place.path),
            "--resume",
        ]
        said = (
            f"Stopped by {error.signal_name}; finished trainings are kept."
            if isinstance(error, Interrupted)
            else error.message
        )
        raise StoppedError(said, f"Continue with: {shlex.join(again)}") from error
    except BaseException:
        place.release()
        raise
    return found


def begun(out: Path | None) -> bool:
    """Whether a folder holds a study to go on with."""
    return out is not None and (out / STUDY).is_file()


def _check(names: Sequence[str], config: TrainConfig, study: StudyConfig) -> None:
    """Raise UsageError for what cannot be compared."""
    if len(names) < 2:
        raise UsageError("A comparison needs at least two different models.", "Such as --models vit_micro,resnet_micro")
    for name in names:
        check_known(name)
        check_model(for_model(replace(config, resume=False), name))
    check_engines(study.engines)
    check_trackers(config.track)
    if config.pretrains:
        raise UsageError("Models are compared by what they classify, and --method pretrain trains none that does.")
    if config.k_fold is not None and parse_fold(config.k_fold)[0] == 0:
        raise UsageError(
            f"--k-fold {config.k_fold} asks for every fold; models are compared on the test part, which all folds share.",
            "Leave it out; --seeds N repeats each training.",
        )
    if config.train_share < 1:
        raise UsageError(
            f"--train-share {config.train_share:g} is for one training; a study has all of the training part and shares of it.",
            f"Such as: --shares {config.train_share:g}",
        )


def _members(names: Sequence[str], config: TrainConfig, shares: Iterable[float], place: Path) -> Iterator[_Member]:
    """In the order of training: a study that is interrupted has as much of one model as of the others."""
    for share in sorted(shares, reverse=True):
        above = place if share == 1 else place / f"share_{share:g}"
        for seed in range(config.seed, config.seed + config.seeds):
            for name in names:
                yield _Member(name, seed, share, above / (name if seed == config.seed else f"{name}-seed_{seed}"))


def _train_all(
    data: object, members: Sequence[_Member], config: TrainConfig, ahead: Ahead, place: Path, reporter: Reporter
) -> tuple[dict[_Member, RunFolder], dict[_Member, str]]:
    """The finished runs, and why others are not. Raises what the last training raised where none finished."""
    done: dict[_Member, RunFolder] = {}
    failed: dict[_Member, str] = {}
    last: Exception | None = None
    for number, member in enumerate(members):
        reporter.say(f"--- {member.words} (training {number + 1} of {len(members)})")
        settings = replace(
            ahead.settings[member.model, member.share],
            seed=member.seed,
            seeds=1,
            split=place / SPLITS,
            split_seed=config.seed if config.split_seed is None else config.split_seed,
            out=member.path,
        )
        try:
            done[member] = train(data, settings, reporter)
        except StoppedError:
            raise
        except Exception as error:
            # One model that runs out of memory, or whose loss is no number, says nothing of the others.
            # Without its frames, which hold the model and its images.
            traceback.clear_frames(error.__traceback__)
            last = error
            failed[member] = error.message if isinstance(error, VitreousError) else f"{type(error).__name__}: {error}"
            reporter.warn(f"{member.words} failed: {failed[member]}")
    if last is not None and not any(member.share == 1 for member in done):
        raise last
    return done, failed


def _concluded(
    place: Path,
    names: Sequence[str],
    done: Mapping[_Member, RunFolder],
    failed: Mapping[_Member, str],
    ahead: Ahead,
    config: TrainConfig,
    study: StudyConfig,
    reporter: Reporter,
) -> Comparison:
    """Every number of the study."""
    whole = {name: {m.seed: run for m, run in done.items() if m.model == name and m.share == 1} for name in names}
    finished = {name: list(runs.values()) for name, runs in whole.items() if runs}
    firsts = {name: runs[0] for name, runs in finished.items()}
    costs = measured(firsts, study, reporter)
    hits, groups = {}, []
    for name, runs in finished.items():
        hits[name], groups = test_hits(runs)
    entries = []
    for name in names:
        why = next((text for member, text in failed.items() if member.model == name), None)
        entry: dict[str, Any] = {"name": name, "run": None, "runs": [], "accuracy": _none(why), "failed": why}
        entry |= dict.fromkeys(("parameters", "macs", "train_seconds", "latency_ms"))
        if name in finished:
            entry |= _entry(finished[name], hits[name], groups) | costs[name]
        entries.append(entry)
    common = sorted(set.intersection(*(set(whole[name]) for name in finished)))
    rows = {name: hits[name][[list(whole[name]).index(seed) for seed in common]] for name in finished}
    pairs = compare_all(rows, groups, margin=study.margin) if common and len(finished) > 1 else []
    leaks = int(next(iter(firsts.values())).facts["data"].get("leaks", 0))
    notes = [leak_note(leaks)] if leaks else []
    notes += [f"{member.words}: failed: {text}" for member, text in failed.items()]
    facts: dict[str, Any] = {
        "verdict": verdict(entries, pairs),
        "equal": ahead.equal,
        "budget": ahead.budget,
        "seeds": [*range(config.seed, config.seed + config.seeds)],
        "margin": study.margin,
        "images": {part: len(ahead.split.indices(part)) for part in ("train", "val", "test")},
        "growth": growth(firsts, reporter) if study.curve else {},
        "learning": _learning(names, done, ahead),
        "price_per_hour": study.price_per_hour,
        "notes": notes,
    }
    return Comparison(place, list(firsts.values()), entries, pairs, facts)


def test_hits(runs: Sequence[RunFolder]) -> tuple[np.ndarray, list[str]]:
    """Which test images each run got right, bool (s, n), and the group of each image; in the order of their paths."""
    columns = ["path", "part", "label", "predicted", "group"]
    hits, paths, groups = [], [], []
    for run in runs:
        rows = pq.read_table(run.path / PREDICTIONS, columns=columns).to_pylist()
        test = sorted((row for row in rows if row["part"] == "test"), key=lambda row: row["path"])
        assert not paths or paths == [row["path"] for row in test], "runs of one comparison share their split"
        paths, groups = [row["path"] for row in test], [row["group"] for row in test]
        hits.append([row["label"] == row["predicted"] for row in test])
    return np.array(hits), groups


def _entry(runs: Sequence[RunFolder], hits: np.ndarray, groups: Sequence[str]) -> dict[str, Any]:
    """What is known of one model without measuring anything."""
    first, tests = runs[0], [json.loads((run.path / METRICS).read_text(encoding="utf-8"))["test"] for run in runs]
    return {
        "run": str(first.path),
        "runs": [
            {"run": str(run.path), "seed": run.facts["seed"], "accuracy": float(row.mean())}
            for run, row in zip(runs, hits, strict=True)
        ],
        "accuracy": mean_accuracy(hits, Grouping.of(groups, hits.shape[1])).to_dict(),
        "spread": {
            name: spread([test[name]["value"] for test in tests]).to_dict() for name in SPREAD if name in tests[0]
        },
        "parameters": first.facts["parameters"],
        "macs": first.facts["macs"],
        "steps": first.facts["training"]["steps"],
        "train_seconds": round(float(np.median([run.facts["training"]["seconds"] for run in runs])), 2),
        "image_size": first.spec.height,
    }


def _none(why: str | None) -> dict[str, Any]:
    return Interval(None, None, None, 0, f"failed: {why}").to_dict()


def _learning(names: Sequence[str], done: Mapping[_Member, RunFolder], ahead: Ahead) -> list[dict[str, Any]]:
    """Accuracy of each model by the share of the training part; nothing where all of it was always used."""
    if len(ahead.images) < 2:
        return []
    found = []
    for share, images in sorted(ahead.images.items()):
        for name in names:
            runs = [run for member, run in done.items() if member.model == name and member.share == share]
            if runs:
                hits, groups = test_hits(runs)
                accuracy = mean_accuracy(hits, Grouping.of(groups, hits.shape[1])).to_dict()
                found.append({"name": name, "share": share, "images": images, "accuracy": accuracy})
    return found


def _place(config: TrainConfig, name: str) -> Claim:
    """The folder that the runs go into. What to continue and what to replace is decided run by run, by `train`.

    Raises UsageError for a folder that is itself a run.
    """
    if not (config.resume or config.overwrite):
        return claim(config.out, name)
    path = config.out or default_place(name)
    if (path / RUN_JSON).is_file():
        raise UsageError(
            f"{str(path)!r} is one run and no study, so nothing is written into it.", "Choose another --out."
        )
    return Claim(path, "new")


def _check_places(members: Sequence[_Member]) -> None:
    """Raise UsageError for a folder in the place of a run that is none: what is in it is somebody's."""
    for member in members:
        if is_occupied(member.path) and not is_run(member.path):
            raise UsageError(
                f"{str(member.path)!r} is not a run folder, so the study leaves it alone.", "Choose another --out."
            )


def _before(config: TrainConfig, names: list[str], study: StudyConfig) -> tuple[TrainConfig, list[str], StudyConfig]:
    """Settings, models and measurements, those of a study that is continued first.

    What decides how its runs are trained, and the margin, are as they were stored; models, seeds and shares may be more. Raises
    RunError for a damaged `study.json`.
    """
    if not config.resume or config.out is None or not begun(config.out):
        return config, names, study
    try:
        found = json.loads((config.out / STUDY).read_text(encoding="utf-8"))
        stored, models = from_dict(TrainConfig, found["config"]), list(found["models"])
        equal, shares, margin = found["equal"], tuple(found["shares"]), float(found["margin"])
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{str(config.out / STUDY)!r} is damaged.", "Restore it, or start anew elsewhere.") from error
    kept = replace(
        at_new_places(stored, config),
        out=config.out,
        resume=True,
        threads=config.threads or stored.threads,
        seeds=max(stored.seeds, config.seeds),
    )
    more = tuple(sorted({*shares, *study.shares}))
    return kept, list(dict.fromkeys([*models, *names])), replace(study, equal=equal, shares=more, margin=margin)


def _stored(config: TrainConfig, names: Sequence[str], study: StudyConfig, data: str) -> dict[str, Any]:
    return {
        "data": data,
        "models": list(names),
        "equal": study.equal,
        "shares": list(study.shares),
        "margin": study.margin,
        "config": to_dict(replace(config, out=None, resume=False, overwrite=False)),
    }
