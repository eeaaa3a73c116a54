"""`vitreous train`: from a path to a finished run folder."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from vitreous.config.convert import from_dict, read_settings, to_dict
from vitreous.config.train import TrainConfig
from vitreous.data import Split
from vitreous.data.audit.fixes import Fix, read_fixes, write_fixes
from vitreous.data.sources.locate import in_words, short_name
from vitreous.engines.cpu import cpu_path, medium_is_exact
from vitreous.engines.onnxruntime import available_cores
from vitreous.errors import DataError, RunError, StoppedError
from vitreous.models.build import check_known
from vitreous.models.cost import count_macs, count_parameters
from vitreous.models.fetch import published
from vitreous.recipes import resolve
from vitreous.runs.atomic import write_json, write_text
from vitreous.runs.create import Claim, claim
from vitreous.runs.folder import (
    BAD_FILES,
    CHECKPOINTS,
    CONFIG,
    FIXES,
    HISTORY,
    RUN_JSON,
    SCHEMA_VERSION,
    SPLITS,
    RunFolder,
    resume_command,
)
from vitreous.training.checkpoint import TrainState, restore_newest
from vitreous.training.loop import fit
from vitreous.training.precision import choose_precision
from vitreous.training.signals import stop_on_signal
from vitreous.workflows.environment import default_device, require, versions
from vitreous.workflows.finish import finish
from vitreous.workflows.initial import check_model, prepare_model, settle_init, settle_size
from vitreous.workflows.prepare import Material, facts_of, first_spec, fit_value_range, gather, storage_spec
from vitreous.workflows.previous import earlier_split
from vitreous.workflows.reporter import Reporter, Silent
from vitreous.workflows.score import validator
from vitreous.workflows.setup import Budget, Setup, plan_again, plan_steps


def train(
    data: object,
    config: TrainConfig | None = None,
    reporter: Reporter | None = None,
    *,
    began: float | None = None,
) -> RunFolder:
    """Train, calibrate and test a classifier; returns its finished run folder.

    data: whatever `vitreous.data.load_source` takes. began: `time.monotonic()` from which a time budget counts, for
    callers whose start took time itself; the call when None. Raises the errors of `vitreous.errors`: StoppedError when a
    signal ended it, with the state saved.
    """
    began = time.monotonic() if began is None else began
    require("Training", "train")
    config, reporter = config or TrainConfig(), reporter or Silent()
    named = str(data) if isinstance(data, str | Path) else None
    check_known(config.model)
    check_model(config)
    place = claim(
        config.out, "dataset" if named is None else short_name(named), resume=config.resume, overwrite=config.overwrite
    )
    if place.note:
        reporter.say(place.note)
    if place.state == "finished":
        return RunFolder.open(place.path)
    if place.state == "continue":
        config = _stored_config(place.path, config)  # before the threads are set: their number is stored too
        reporter.say("The settings stored with the run are used; flags given now are not.")
    with _threads(config.threads or available_cores()):
        try:
            return _train(data, config, place, reporter, began)
        except StoppedError as error:
            raise StoppedError(error.message, f"Continue with: {resume_command(named, place.path)}") from error
        except BaseException:
            place.release()  # an empty folder for a run that never began is no use to anyone
            raise


def _train(data: object, config: TrainConfig, place: Claim, reporter: Reporter, began: float) -> RunFolder:
    name = in_words(data)
    if place.state == "continue":
        previous, origin = Split.read_csv(place.path / SPLITS), ""
    else:
        previous, origin = earlier_split(data, config, place.path)
    material = gather(data, config, reporter, previous, origin)
    if place.state == "continue":
        _check_same_split(place.path, material)
    setup = _set_up(config, material, reporter)
    config, budget = plan_steps(setup, reporter, began)
    setup = replace(setup, config=config)
    fixes = None if config.fixes is None else read_fixes(config.fixes)  # before what --overwrite replaces goes

    state = setup.state()
    if place.state == "new":
        place.clear()
        _open_folder(place.path, name, setup, fixes)
    else:
        for note in restore_newest(state, place.path / CHECKPOINTS):
            reporter.say(note)
        _cut_history(place.path / HISTORY, state.step)
    setup = _fit(state, setup, place.path, reporter, budget)
    return finish(place.path, state, setup, name, reporter, began)


def _set_up(config: TrainConfig, material: Material, reporter: Reporter) -> Setup:
    facts = facts_of(material, config)
    config = settle_size(settle_init(config, facts, reporter))
    resolved = resolve(config, facts)
    for reason in resolved.reasons:
        reporter.say(reason)
    init = resolved.config.init
    pretrained = published(init.removeprefix("timm:")) if init.startswith("timm:") else None
    value_range = fit_value_range(material, config, reporter)
    spec = first_spec(resolved, facts, pretrained and (pretrained.mean, pretrained.std), value_range)
    if spec.channels not in (1, 3):
        pretrained = None  # its mean and deviation are those of red, green and blue
    start = prepare_model(resolved.config, spec, reporter)

    crop_area = resolved.config.augment.crop_area
    assert crop_area is not None
    threads = config.threads or available_cores()
    store = material.store("train", storage_spec(spec, crop_area), threads, reporter)
    if pretrained is None:
        mean, std = store.mean_std()
        spec = replace(spec, mean=mean, std=std)
        store = store.with_spec(replace(store.spec, mean=mean, std=std))
    device = default_device()
    macs, parameters = count_macs(start.model, spec.shape), count_parameters(start.model)
    precision = choose_precision(resolved.config.precision, device, macs)
    reporter.say(
        f"{start.architecture.name}: {parameters / 1e6:.2f} M parameters, {macs / 1e6:,.1f} M multiply-accumulates an image; "
        f"{precision} on {device}, {threads} threads"
    )
    if device == "cpu":
        reporter.say(_cpu_products(precision))
    return Setup(
        # The number of threads decides the order of sums, so it is stored: the same settings give the same weights.
        config=replace(resolved.config, precision=precision, threads=threads),
        material=material,
        facts=facts,
        start=start,
        spec=spec,
        train=store,
        val=material.store("val", spec, threads, reporter),
        device=device,
        macs=macs,
        parameters=parameters,
    )


def _cpu_products(precision: str) -> str:
    """How matrix products are computed in training on this CPU, and how to have it otherwise."""
    if precision != "fp32":
        return "products in bf16 through oneDNN, sums and weights in fp32 (--precision fp32 for all)"
    if cpu_path().fast and medium_is_exact():
        return "products in fp32 through oneDNN, as exact as torch's default and faster on some processors (VITREOUS_CPU=plain for the default)"
    return f"products by torch's default: {cpu_path().reason}"


def _fit(state: TrainState, setup: Setup, path: Path, reporter: Reporter, budget: Budget | None) -> Setup:
    """Train to the end. Under a budget, the steps after the warm-up are planned at the pace of the warm-up."""
    history, objective = path / HISTORY, setup.objective
    assert setup.config.precision != "auto"
    evaluate = validator(setup.val, setup.labels(setup.val), setup.config.precision, setup.device)
    with reporter.task("training", "steps") as progress, stop_on_signal() as stop:

        def record(row: dict[str, Any]) -> None:
            with history.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            shown = ("loss", "val_accuracy", "images_per_s")
            progress.update(row["step"], setup.config.steps or 1, **{name: row[name] for name in shown if name in row})

        def train_until(step: int | None) -> None:
            settings = setup.settings(budget.deadline if budget else math.inf)
            fit(
                state,
                setup.batches(),
                settings,
                objective=objective,
                evaluate=evaluate,
                record=record,
                stop=stop,
                checkpoints=path / CHECKPOINTS,
                until=step,
            )

        warmup = setup.config.optim.warmup_steps or 0
        if budget is not None and 0 < warmup < (setup.config.steps or 0):
            train_until(warmup)
            setup = replace(setup, config=plan_again(setup, state, budget, reporter))
            write_json(path / CONFIG, _stored_form(setup.config))
        train_until(None)
    for note in state.notes:
        reporter.warn(note)
    return setup


def _stored_form(config: TrainConfig) -> dict[str, Any]:
    """What `config.json` holds: the settings without what concerned this one call."""
    return to_dict(replace(config, resume=False, overwrite=False))


def _open_folder(path: Path, data: str, setup: Setup, fixes: Sequence[Fix] | None) -> None:
    """Write what a continued run will need, `run.json` last: from now on the folder says that it is unfinished."""
    (path / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
    write_json(path / CONFIG, _stored_form(setup.config))
    setup.material.split.write_csv(path / SPLITS)
    setup.material.scan.write_bad_files(path / BAD_FILES)
    if fixes is not None:
        write_fixes(path / FIXES, fixes)
    write_text(path / HISTORY, "")
    write_json(
        path / RUN_JSON,
        {
            "schema_version": SCHEMA_VERSION,
            "status": "training",
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "data": {"source": data},
            "split_sha256": setup.material.split.digest(),
            "versions": versions(),
        },
    )


def _stored_config(path: Path, given: TrainConfig) -> TrainConfig:
    stored = from_dict(TrainConfig, read_settings(path / CONFIG))
    if (path / FIXES).is_file():
        stored = replace(stored, fixes=path / FIXES)
    return replace(stored, time=None, epochs=None, out=path, resume=True, threads=given.threads or stored.threads)


def _check_same_split(path: Path, material: Material) -> None:
    stored = Split.read_csv(path / SPLITS)
    if stored.digest() != material.split.digest():
        raise DataError(
            f"The images or their labels changed since {str(path)!r} was started, so it cannot be continued.",
            "Restore the data, or start anew without --resume.",
        )


def _cut_history(file: Path, step: int) -> None:
    """Drop rows written after the state that training continues from."""
    rows = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    kept = []
    for row in rows:
        try:
            if json.loads(row)["step"] <= step:
                kept.append(row)
        except (ValueError, KeyError) as error:
            if row is not rows[-1]:  # the last line may be half written
                raise RunError(f"{str(file)!r} is damaged.", "Restore it from a copy.") from error
    write_text(file, "".join(row + "\n" for row in kept))


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
