"""`vitreous train`: from a path to a finished run folder."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from vitreous.config.train import TrainConfig, parse_duration
from vitreous.data import Split
from vitreous.data.audit.fixes import read_fixes
from vitreous.data.sources.locate import in_words, short_name
from vitreous.engines.cpu import cpu_path, medium_is_exact
from vitreous.engines.onnxruntime import available_cores
from vitreous.errors import StoppedError, UsageError, unknown_name
from vitreous.models.build import check_known
from vitreous.models.cost import count_macs, count_parameters
from vitreous.runs.atomic import remove_leftovers, storage_error, write_json
from vitreous.runs.create import Claim, claim
from vitreous.runs.folder import (
    CHECKPOINTS,
    CONFIG,
    HISTORY,
    RUN_JSON,
    SPLITS,
    RunFolder,
    read_facts,
    resume_command,
)
from vitreous.training.checkpoint import TrainState, restore_newest
from vitreous.training.loop import fit
from vitreous.training.nonfinite import skipped_note
from vitreous.training.precision import choose_precision
from vitreous.training.signals import Interrupted, StopFlag, stop_on_signal
from vitreous.training.team import ALONE, Team
from vitreous.workflows.continued import check_same_split, cut_history, open_folder, stored_config, stored_form
from vitreous.workflows.devices import dealt_out, is_to_be_sharded, put_together, say_team, shared_threads, take_seat
from vitreous.workflows.environment import default_device, require
from vitreous.workflows.finish import finish
from vitreous.workflows.initial import check_model, settled_net
from vitreous.workflows.memory import fit_into_memory
from vitreous.workflows.plan import Budget, plan_again, plan_steps
from vitreous.workflows.prepare import Material, gather, storage_spec
from vitreous.workflows.pretrain import check_pretraining, finish_pretraining, reconstruction_validator, say_of_stem
from vitreous.workflows.previous import earlier_split
from vitreous.workflows.probe import begin, check_probe, fit_run
from vitreous.workflows.reporter import Reporter, Silent
from vitreous.workflows.score import validator
from vitreous.workflows.seat import remember
from vitreous.workflows.settle import settle
from vitreous.workflows.setup import Setup
from vitreous.workflows.teacher import check_teacher, find_teacher
from vitreous.workflows.track import check_trackers, tracking


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
    if config.repeats:
        raise UsageError(
            "Several seeds or folds are several runs, and one was asked for.",
            "Leave out --seeds and name one fold (--k-fold 1/5); `vitreous train` takes both.",
        )
    check_trackers(config.track)
    check_known(config.model)
    check_model(config)
    check_pretraining(config)
    asked = config
    team, own_seat, settled, began = take_seat(asked, began)
    config = settled
    if not team.is_main:
        reporter = Silent()
    default_name = "dataset" if named is None else short_name(named)
    place = team.from_main(lambda: claim(settled.out, default_name, resume=settled.resume, overwrite=settled.overwrite))
    if place.note:
        reporter.say(place.note)
    if place.state == "finished":
        return RunFolder.open(place.path, pretrained=True)
    try:
        with (
            place.held() if team.is_main else contextlib.nullcontext("") as note,
            stop_on_signal(at_once=True) as stop,
        ):
            if note:
                reporter.warn(note)
            if team.is_main:
                remove_leftovers(place.path)
            if place.state == "continue":
                if team.from_main(lambda: read_facts(place.path / RUN_JSON).get("status")) == "complete":
                    # The process that held it until now has finished it.
                    return RunFolder.open(place.path, pretrained=True)
                # Before the threads are set: their number is stored too.
                config = dealt_out(stored_config(place.path, config), team)
                reporter.say("The settings stored with the run are used; flags given now are not.")
            threads = shared_threads(config.threads, team)
            if team.size > 1:
                config = replace(config, threads=threads)
                say_team(team, threads, reporter)
            with _threads(threads):

                def opened() -> None:
                    if own_seat is not None and team.is_main:
                        remember(own_seat, asked, place.path)

                return _train(data, config, place, reporter, began, stop, team, opened)
    except StoppedError as error:
        raise StoppedError(error.message, f"Continue with: {resume_command(named, place.path)}") from error
    except Interrupted as error:
        place.release()
        raise _interrupted(error, named, place.path) from error
    except BaseException:
        place.release()  # an empty folder for a run that never began is no use to anyone
        raise


def _interrupted(error: Interrupted, data: str | None, path: Path) -> StoppedError:
    """A signal before the first step, when there is nothing to lose, or after the last, when all is saved."""
    if not (path / RUN_JSON).is_file():
        return StoppedError(f"Stopped by {error.signal_name} before the first step.", "Run the same command again.")
    return StoppedError(
        f"Stopped by {error.signal_name}; what was saved until then is kept.",
        f"Continue with: {resume_command(data, path)}",
    )


def _train(
    data: object,
    config: TrainConfig,
    place: Claim,
    reporter: Reporter,
    began: float,
    stop: StopFlag,
    team: Team,
    opened: Callable[[], None],
) -> RunFolder:
    """opened: called once the run folder says that there is a run to continue."""
    name = in_words(data)
    check_teacher(config)
    if place.state == "continue":
        previous, origin = Split.read_csv(place.path / SPLITS), ""
        # The fold is in the stored split, and what was found with the budget of then must be found again.
        sought, seconds = replace(config, k_fold=None), read_facts(place.path / RUN_JSON)["data"].get("budget")
    else:
        previous, origin = earlier_split(data, config, place.path)
        sought, seconds = config, parse_duration(config.time) if config.time else None
    with team.main_first():
        material = gather(data, sought, reporter, previous, origin, seconds)
    material = replace(material, processes=team.local_size, budget=seconds)
    if place.state == "continue":
        check_same_split(place.path, material)
    begun = place.path / RUN_JSON if place.state == "continue" else None
    with team.main_first():
        setup = _set_up(config, material, reporter, begun, team)
        if setup.config.method == "probe" and place.state == "new":
            check_probe(config)
        setup = begin(setup, reporter)
    sharded = is_to_be_sharded(setup, reporter)
    setup = fit_into_memory(setup, config, reporter, sharded=sharded)
    config, budget = plan_steps(setup, reporter, began)  # all processes measure, and agree on the least
    setup = replace(setup, config=config)
    fixes = None if config.fixes is None else read_fixes(config.fixes)  # before what --overwrite replaces goes

    state = (replace(setup, device="cpu") if sharded else setup).state()
    if place.state == "continue":
        for note in restore_newest(state, place.path / CHECKPOINTS):
            reporter.say(note)
    if team.is_main:
        if place.state == "new":
            place.clear()
            open_folder(place.path, name, setup, fixes)
        else:
            cut_history(place.path / HISTORY, state.step)
        opened()
    if config.method == "probe":
        if team.is_main:  # one system of equations, which one process solves
            with tracking(setup.config, place.path, 0, reporter.warn) as track:
                fit_run(state, setup, place.path, reporter, track)
    else:
        setup = _fit(state, setup, place.path, reporter, budget, stop, sharded)
    complete = finish_pretraining if config.pretrains else finish
    return team.from_main(lambda: complete(place.path, state, setup, name, reporter, began))


def _set_up(
    config: TrainConfig, material: Material, reporter: Reporter, begun: Path | None = None, team: Team = ALONE
) -> Setup:
    """begun: the `run.json` of a run that is continued."""
    settled = settle(config, material, reporter, begun)
    resolved, spec, start = settled.resolved, settled.spec, settled.start
    good = config.decide.good
    if good is not None and good not in spec.classes:
        raise unknown_name("class", good, spec.classes)
    facts = (
        replace(settled.facts, classes=()) if config.pretrains else settled.facts
    )  # the recipe has read off their names

    crop_area = resolved.config.augment.crop_area
    assert crop_area is not None
    threads = config.threads or available_cores()
    store = material.store("train", storage_spec(spec, crop_area), threads, reporter)
    if not settled.standard:
        mean, std = store.mean_std()
        spec = replace(spec, mean=mean, std=std)
        store = store.with_spec(replace(store.spec, mean=mean, std=std))
    device = default_device() if team.size == 1 else team.device
    macs, parameters = count_macs(start.model, spec.shape), count_parameters(start.model)
    precision = choose_precision(resolved.config.precision, device, macs)
    reporter.say(
        f"{start.architecture.name}: {parameters / 1e6:.2f} M parameters, {macs / 1e6:,.1f} M multiply-accumulates an image; "
        f"{precision} on {device}, {threads} threads"
    )
    if device == "cpu":
        reporter.say(_cpu_products(precision))
    if config.pretrains:
        say_of_stem(start.model, reporter)
    teacher = find_teacher(resolved.config, spec, device, macs, reporter, begun)
    return Setup(
        # The number of threads decides the order of sums, so it is stored: the same settings give the same weights.
        config=replace(
            resolved.config,
            precision=precision,
            threads=threads,
            net=settled_net(start.architecture, resolved.config.net),
        ),
        material=material,
        facts=facts,
        start=start,
        spec=spec,
        train=store,
        val=material.store("val", spec, threads, reporter),
        device=device,
        macs=macs,
        parameters=parameters,
        teacher=teacher,
        team=team,
    )


def _cpu_products(precision: str) -> str:
    """How matrix products are computed in training on this CPU, and how to have it otherwise."""
    if precision != "fp32":
        return "products in bf16 through oneDNN, sums and weights in fp32 (--precision fp32 for all)"
    if cpu_path().fast and medium_is_exact():
        return "products in fp32 through oneDNN, as exact as torch's default and faster on some processors (VITREOUS_CPU=plain for the default)"
    return f"products by torch's default: {cpu_path().reason}"


def _fit(
    state: TrainState,
    setup: Setup,
    path: Path,
    reporter: Reporter,
    budget: Budget | None,
    stop: StopFlag,
    sharded: bool,
) -> Setup:
    """Train to the end. Under a budget, the steps after the warm-up are planned at the pace of the warm-up."""
    history, team = path / HISTORY, setup.team
    objective, put_back = put_together(state, setup, sharded)
    assert setup.config.precision != "auto"
    evaluate = (
        reconstruction_validator(setup)
        if setup.config.pretrains
        else validator(setup.val, setup.labels(setup.val), setup.config.precision, setup.device, team)
    )
    rows: list[dict[str, Any]] = []
    with (
        reporter.task("training", "steps") as progress,
        stop.noticed(),
        tracking(
            setup.config if team.is_main else replace(setup.config, track=()), path, state.step, reporter.warn
        ) as track,
    ):

        def record(row: dict[str, Any]) -> None:
            rows.append(row)
            if not team.is_main:
                return
            track(row)
            try:
                with history.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
            except OSError as error:
                raise storage_error(history, error) from error
            shown = (
                "loss",
                "val_loss" if setup.config.pretrains else "val_accuracy",
                "images_per_s",
                "memory_bytes",
                "gpu_utilisation",
            )
            progress.update(row["step"], setup.config.steps or 1, **{name: row[name] for name in shown if name in row})

        def train_until(step: int | None) -> None:
            if budget is not None:
                state.allowed = state.seconds + max(0.0, budget.deadline - time.monotonic())
            # A continued run has what was left to it. One process looks at its clock, since those of machines differ.
            left = state.allowed - state.seconds if state.allowed is not None and team.is_main else math.inf
            deadline = time.monotonic() + left
            settings, batches = setup.settings(deadline), setup.batches()

            def images_of(batch: int) -> list[str]:
                return [setup.material.split.paths[setup.train.indices[row]] for row in batches.rows(batch)]

            fit(
                state,
                batches,
                settings,
                objective=objective,
                evaluate=evaluate,
                record=record,
                stop=stop,
                checkpoints=path / CHECKPOINTS,
                until=step,
                warn=reporter.warn,
                name_images=images_of,
            )

        warmup = setup.config.optim.warmup_steps or 0
        if budget is not None and 0 < warmup < (setup.config.steps or 0):
            train_until(warmup)
            config, budget = plan_again(
                setup, state, budget, reporter, rows=rows, evaluate=evaluate, checkpoints=path / CHECKPOINTS
            )
            setup = replace(setup, config=team.from_main(lambda: config))
            if team.is_main:
                write_json(path / CONFIG, stored_form(setup.config))
        train_until(None)
    if state.ended:
        setup = replace(setup, config=replace(setup.config, stop_after=state.step))
        if team.is_main:
            write_json(path / CONFIG, stored_form(setup.config))
    put_back()
    if note := skipped_note(state):
        state.notes.append(note)
    for note in state.notes:
        reporter.warn(note)
    return setup


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
