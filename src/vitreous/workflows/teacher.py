"""Where a teacher comes from: a run folder, or one of timm's published models; and what is said and stored of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitreous.config.distill import DistillConfig
from vitreous.config.input import InputSpec, Interpolation
from vitreous.config.train import TrainConfig
from vitreous.errors import RunError, UsageError, WeightsError
from vitreous.models.cost import count_macs
from vitreous.models.load import load_model
from vitreous.models.published import fetch_published, published_classes
from vitreous.runs.folder import RUN_JSON, RunFolder, read_facts
from vitreous.training.distillation import Teacher
from vitreous.workflows.reporter import Reporter

TIMM = "timm:"


@dataclass(frozen=True)
class TeacherModel:
    """A teacher ready to be asked, and what `run.json` says of it."""

    teach: Teacher
    facts: dict[str, Any]
    """{"source", "kind", "architecture", "version", "accuracy", "licence", "macs"}; version and accuracy of runs alone."""


def check_teacher(config: TrainConfig) -> None:
    """Say what cannot work before any image is read. Raises UsageError, RunError and WeightsError."""
    named = config.distill.teacher
    if named is None:
        _check_unused(config.distill)
        return
    if named.startswith(TIMM):
        published_classes(named.removeprefix(TIMM))
        return
    _check_run(named)


def _check_unused(distill: DistillConfig) -> None:
    """Settings of learning from a teacher do nothing without one; all at once are the stored form of a run without."""
    given = [name for name in ("kind", "weight", "temperature") if getattr(distill, name) is not None]
    if 0 < len(given) < 3:
        raise UsageError(
            f"--distill.{given[0]} was given without a teacher.",
            "Name one with --distill.teacher RUN, or leave it out.",
        )


def _check_run(named: str) -> None:
    path = Path(named)
    if not path.exists():
        raise RunError(
            f"There is no teacher {named!r}.",
            "Name a run folder or timm:NAME with --distill.teacher. A run that is continued needs the very teacher it began with.",
        )
    if not (path / RUN_JSON).is_file():
        what = "a file" if path.is_file() else "a folder"
        raise UsageError(
            f"The teacher {named!r} is {what} that does not say which model, classes and input its weights belong to.",
            "Name a run folder as the teacher, or fine-tune a run from the weights first: "
            f"vitreous train DATA --model NAME --init {named}",
        )


def find_teacher(
    config: TrainConfig, spec: InputSpec, device: str, student_macs: int, reporter: Reporter, stored: Path | None
) -> TeacherModel | None:
    """The teacher a configuration names, for a student with this input; None where it names none.

    stored: the `run.json` of a run that is continued. Raises UsageError for other classes or bands, RunError where a
    continued run's teacher has changed, WeightsError for published weights that cannot be had.
    """
    named = config.distill.teacher
    if named is None:
        return None
    if config.method == "probe":
        raise UsageError(
            f"--method probe fits a classifier to the labels at once, so it cannot learn from the teacher {named!r}.",
            "Add --method full, lora or head, or leave out --distill.teacher.",
        )
    found = _published(named, config, spec, reporter) if named.startswith(TIMM) else _of_run(named, spec)
    network, theirs, order, facts = found
    _check_same(facts, stored)
    facts["kind"] = config.distill.kind
    facts["macs"] = count_macs(network, theirs.shape)
    teach = Teacher(network, theirs, spec, order, device)
    _try(teach, spec, named, device)
    _introduce(facts, config, theirs, spec, student_macs, reporter)
    return TeacherModel(teach, facts)


_Found = tuple[nn.Module, InputSpec, tuple[int, ...], dict[str, Any]]


def _of_run(named: str, spec: InputSpec) -> _Found:
    _check_run(named)
    run = RunFolder.open(named)
    missing, unknown = sorted(set(spec.classes) - set(run.classes)), sorted(set(run.classes) - set(spec.classes))
    if missing or unknown:
        lacks = f" lacks {_listed(missing)}" if missing else ""
        more = f" knows {_listed(unknown)}, which the data lack" if unknown else ""
        raise UsageError(
            f"The teacher {named!r} was trained for other classes than the {len(spec.classes)} of these data: it{lacks}"
            f"{' and' if lacks and more else ''}{more}.",
            "Choose a teacher trained on the same classes (names must be equal).",
        )
    order = tuple(run.classes.index(name) for name in spec.classes)
    headline, weights = run.facts.get("headline", {}), run.facts.get("weights", {})
    facts = {
        "source": named,
        "architecture": run.architecture["name"],
        "version": run.version,
        "accuracy": headline.get("accuracy"),
        "licence": weights.get("licence") or "as the run's owner says",
    }
    return load_model(run), run.spec, order, facts


def _published(named: str, config: TrainConfig, spec: InputSpec, reporter: Reporter) -> _Found:
    name = named.removeprefix(TIMM)
    classes = published_classes(name)
    if classes != len(spec.classes):
        raise UsageError(
            f"The teacher {named!r} was trained for {classes:,} classes, and these data have {len(spec.classes)}.",
            f"Fine-tune it first and use that run: vitreous train DATA --init {named}, then --distill.teacher runs/NAME.",
        )
    found = fetch_published(name, offline=config.offline, say=reporter.say)
    theirs = InputSpec(
        height=found.size[0],
        width=found.size[1],
        channels=found.channels,
        resize=spec.resize,
        interpolation=_interpolation(found.interpolation),
        mean=found.mean,
        std=found.std,
        classes=spec.classes,
        exposure=spec.exposure,
    )
    reporter.warn(
        f"The classes of {named} have no names here: its output number 1 is taken for {spec.classes[0]!r}, and so on in order."
    )
    facts = {
        "source": found.source,
        "architecture": name.partition(".")[0],
        "version": None,
        "accuracy": None,
        "licence": found.licence,
    }
    return found.module, theirs, tuple(range(classes)), facts


def _interpolation(name: str) -> Interpolation:
    known: dict[str, Interpolation] = {"nearest": "nearest", "bilinear": "bilinear", "lanczos": "lanczos"}
    return known.get(name, "bicubic")


def _check_same(facts: dict[str, Any], stored: Path | None) -> None:
    """Raise RunError where a run is continued with another teacher than it began with."""
    before = read_facts(stored).get("teacher") if stored is not None else None
    if before is not None and before.get("version") != facts["version"]:
        raise RunError(
            f"The teacher {facts['source']!r} has other weights than when this run began, so it cannot be continued.",
            "Restore that teacher, or start a new run without --resume.",
        )


def _try(teach: Teacher, spec: InputSpec, named: str, device: str) -> None:
    """Ask it once, so that a teacher that does not answer is said before training."""
    try:
        answer = teach(torch.zeros(1, *spec.shape, device=device))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise WeightsError(
            f"The teacher {named!r} cannot take these images: {error}.", "Choose another one."
        ) from error
    _check_answer(answer, len(spec.classes), named)


def _check_answer(answer: Tensor, classes: int, named: str) -> None:
    if answer.shape != (1, classes):
        raise WeightsError(
            f"The teacher {named!r} answers {tuple(answer.shape)} for one image of {classes} classes.",
            "Choose another one.",
        )


def _introduce(
    facts: dict[str, Any],
    config: TrainConfig,
    theirs: InputSpec,
    ours: InputSpec,
    student_macs: int,
    reporter: Reporter,
) -> None:
    """What is learned from whom, and what asking costs."""
    accuracy = facts["accuracy"]
    known = f", {100 * accuracy['value']:.1f} % right on its test part" if accuracy else ""
    # A training step is about three forward passes of the student, and one of the teacher comes on top.
    more = facts["macs"] / (3 * max(1, student_macs))
    reporter.say(
        f"teacher {facts['source']} ({facts['architecture']}{known}; licence: {facts['licence']}): {config.distill.kind}, "
        f"{facts['macs'] / 1e6:,.1f} M multiply-accumulates an image, about {more:.0%} on top of the student's step"
    )
    if theirs.resize != ours.resize:
        reporter.warn(
            f"The teacher was trained on images brought to size by {theirs.resize}, the student's are by {ours.resize}: it sees "
            "images of another shape than it knows."
        )
    augment = config.augment
    if config.distill.kind == "patient" and (augment.mix_probability or 0) < 0.5:
        reporter.say(
            "a patient teacher needs varied images: --augment.mixup 1 --augment.mix-probability 1 is its recipe"
        )


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
