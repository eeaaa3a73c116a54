"""How many steps a run takes: from epochs, or from what fits into a time budget.

A budget covers the whole command: reading, training, validations, and all that follows the last step. It is planned twice.
Before the first step a few steps are timed on a copy, which gives a first guess and with it the length of the warm-up.
After the warm-up the pace of training, one validation, one saved state, and the scoring and reading of a few images are
known as they are on this machine now, and the number of steps is settled, a few more than fit. Training then ends at its
deadline, where the learning rate is next to nothing. Both numbers are stored, so that the same seed gives the same weights:
the warm-up is the same whatever follows it. A machine that becomes slower later ends training earlier, and the run says so.
"""

from __future__ import annotations

import copy
import itertools
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from vitreous.config.train import TrainConfig, parse_duration
from vitreous.data.augmentation.size import SizePlan
from vitreous.engines.select import engine_for
from vitreous.errors import UsageError
from vitreous.recipes.auto import ema_decay
from vitreous.training.budget import seconds_per_step
from vitreous.training.checkpoint import TrainState, save_checkpoint
from vitreous.training.probe.fit import STRENGTHS
from vitreous.training.team import is_sharded
from vitreous.workflows.reporter import Reporter, Silent
from vitreous.workflows.score import outputs_and_looks
from vitreous.workflows.setup import FEATURES_FROM, Setup, validation_interval

PAGES = 3.0
"""Seconds for what comes after the last step and does not grow with the images: plots, report, model card, heat maps,
checksums. Measured with one thread (benchmarks/RESULTS.md); more on a machine that is busy with other work."""
PRETRAINED = 2.0
"""The same after pretraining, which has no test part and no heat maps."""
AN_IMAGE = 2e-4
"""Seconds that metrics, intervals and tables take for each image of the validation and test parts."""
SURPLUS = 1.06
"""Steps are planned for this many times the time that there is: no machine keeps its pace exactly, and a deadline that comes
before the last steps of a cosine costs nothing, while steps that end before the deadline leave time unused. Schedules that
still learn much at their end are planned without."""
CAUTION = 1.05
"""What follows training is set aside this many times as long as it was measured to take."""
SAMPLE = 64
"""Images that are read and scored to know what an image costs."""
LEAST_TRIED = 5
"""Steps that measuring one takes at least."""
FOR_EVER = 10**9
"""Steps; a warm-up of that length keeps the smallest images throughout."""
FIRST_GUESS = 0.05
"""Share of the budget by which the first guess stays below it."""


@dataclass(frozen=True)
class Budget:
    """A promise of time."""

    text: str
    """As the caller gave it, such as "5m"."""
    ends: float
    """`time.monotonic()` at which the command must be over."""
    reserve: float
    """Seconds set aside for what comes after the last step."""

    @property
    def deadline(self) -> float:
        """`time.monotonic()` at which the last step must be done."""
        return self.ends - self.reserve


@dataclass(frozen=True)
class Pace:
    """What things take here and now, in seconds."""

    step: float
    """One optimiser step on images of full size."""
    validation: float
    """One validation, and saving the state after it."""
    after: float
    """Everything after the last step, its validation included."""
    sizes: tuple[float, ...] | None = None
    """One optimiser step on images of each size, smallest first, where training begins with smaller ones."""


def plan_steps(setup: Setup, reporter: Reporter, began: float) -> tuple[TrainConfig, Budget | None]:
    """The configuration with its number of steps, warm-up and averaging decay, and the budget where there is one.

    began: `time.monotonic()` at the start of the command; a time budget counts from there.
    Raises UsageError when the budget is over before training could begin.
    """
    config, budget = setup.config, None
    if config.method == "probe":  # no steps: what it takes is a forward pass of each image, whatever the budget
        optim = replace(config.optim, ema_decay=0.0, warmup_steps=0)
        if config.time is not None:
            _warn_of_probe(setup, config.time, reporter, began)
        return replace(config, epochs=None, time=None, steps=len(STRENGTHS), optim=optim), None
    steps = config.steps
    if steps is None and config.time is not None:
        steps, budget = _first_guess(setup, began)
        steps = setup.team.least(steps)
        epochs = steps / setup.steps_per_epoch
        reporter.say(
            f"about {steps:,} steps ({epochs:.1f} epochs) fit into {config.time}; measured again after the warm-up"
        )
    elif steps is None:
        assert config.epochs is not None
        steps = max(1, round(config.epochs * setup.steps_per_epoch))
    optim = config.optim
    assert optim.warmup is not None
    decay = optim.ema_decay if optim.ema_decay is not None else ema_decay(steps)
    warmup = optim.warmup_steps if optim.warmup_steps is not None else round(optim.warmup * steps)
    optim = replace(optim, ema_decay=decay, warmup_steps=warmup)
    return replace(config, epochs=None, time=None, steps=steps, optim=optim), budget


def plan_again(
    setup: Setup,
    state: TrainState,
    budget: Budget,
    reporter: Reporter,
    *,
    rows: list[dict[str, Any]],
    evaluate: Callable[[nn.Module], dict[str, float]],
    checkpoints: Path,
) -> tuple[TrainConfig, Budget]:
    """The number of steps that fit at the pace of the warm-up, and the budget with what was learned of the end of the run.

    rows: of the history so far. Validates once and saves the state, to know what that takes; neither changes the run.
    """
    pace = measure(setup, state, rows, evaluate, checkpoints, limit=_limit(parse_duration(budget.text)))
    budget = replace(budget, reserve=reserve(pace.after, budget.ends - time.monotonic()))
    left = _with_surplus(budget.deadline - time.monotonic(), setup.config)
    steps = setup.team.least(most_steps(left, state.step, pace, setup.steps_per_epoch, setup.sizes))
    epochs = steps / setup.steps_per_epoch
    reporter.say(
        f"{steps:,} steps ({epochs:.1f} epochs) of {1000 * pace.step:.0f} ms fit into {budget.text}, with "
        f"{validations(state.step, steps, setup.steps_per_epoch)} validations of {pace.validation:.2g} s and "
        f"{budget.reserve:.0f} s for scoring and the report"
    )
    if epochs < 1:
        reporter.warn(f"The budget lets training see only {epochs:.0%} of the images once; more time would help.")
    return replace(setup.config, steps=steps), budget


def _with_surplus(seconds: float, config: TrainConfig) -> float:
    """What steps are planned for where there are so many seconds."""
    return seconds * (SURPLUS if config.optim.schedule == "cosine" else 1.0)


def most_steps(seconds: float, done: int, pace: Pace, steps_per_epoch: float, sizes: SizePlan | None = None) -> int:
    """The most steps in all, after `done` of them, whose training and validations take no more than `seconds`.

    At least one more than `done`. sizes: where steps on small images take less than `pace.step`.
    """
    if sizes is not None and pace.sizes is not None:
        sizes = replace(sizes, costs=tuple(seconds / pace.step for seconds in pace.sizes))

    def cost(steps: int) -> float:
        units = sizes.total_cost(done, steps) if sizes is not None else steps - done
        # The last validation is part of what comes after.
        return units * pace.step + (validations(done, steps, steps_per_epoch) - 1) * pace.validation

    low, high = done + 1, done + 2
    while cost(high) <= seconds:
        low, high = high, done + 2 * (high - done)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(middle) <= seconds else (low, middle)
    return low


def validations(done: int, steps: int, steps_per_epoch: float) -> int:
    """How many validations come after step `done` of a run of `steps`, the last one at its end."""
    each = validation_interval(steps, steps_per_epoch)
    return max(1, steps // each - done // each + (steps % each != 0))


def measure(
    setup: Setup,
    state: TrainState,
    rows: list[dict[str, Any]],
    evaluate: Callable[[nn.Module], dict[str, float]],
    checkpoints: Path,
    *,
    limit: float,
) -> Pace:
    """Time a validation, a saved state, and the reading and scoring of a few images; take the pace of steps from the rows.

    limit: seconds for timing steps on images of every size, where the rows are of the smallest.
    """
    step = step_seconds(rows, setup.batch_size * setup.batches_per_step)
    if step is None:
        step = state.seconds / max(1, state.step)
    sizes = None
    if setup.sizes is not None:
        sizes = _seconds_of_sizes(setup, state, limit, step)
        # The warm-up saw the smallest images: what its steps took beyond those tried here, others will take too.
        sizes = tuple(seconds * step / sizes[0] for seconds in sizes)
        step = sizes[-1]
    begin = time.monotonic()
    evaluate(state.ema.model)
    save_checkpoint(state, checkpoints, setup.team)
    validation = time.monotonic() - begin
    state.model.train()
    return Pace(step, validation, validation + CAUTION * _seconds_after(setup, state.ema.model, validation), sizes)


def _seconds_of_sizes(setup: Setup, state: TrainState, limit: float, smallest: float) -> tuple[float, ...]:
    """Seconds of a step on images of each size of `setup.sizes`, all measured in about `limit` seconds.

    smallest: of a step on the smallest images, as training has taken it. Where steps are slow the full size alone is tried, and
    the sizes between lie on a line through both over the pixels.
    """
    assert setup.sizes is not None
    *smaller, full = setup.sizes.sizes

    def tried(trial: Setup, limit: float) -> float:
        return seconds_per_step(state, trial.batches(), trial.settings(), setup.objective, limit=limit)

    if LEAST_TRIED * smallest * (len(smaller) + 1) > limit:
        whole = tried(_trial(setup), limit)
        least, *_ = pixels = setup.sizes.pixels
        return tuple(smallest + (whole - smallest) * (each - least) / (1 - least) for each in pixels)
    each = limit / (len(smaller) + 1)
    return *(tried(_trial(setup, share=size[0] / full[0]), each) for size in smaller), tried(_trial(setup), each)


def _trial(setup: Setup, share: float = 1.0) -> Setup:
    """Of a single step, with images whose height is this share of the full one throughout."""
    config = setup.config
    optim = replace(config.optim, ema_decay=0.9, warmup_steps=0 if share == 1 else FOR_EVER)
    augment = replace(config.augment, start_size=share)
    return replace(setup, config=replace(config, time=None, steps=1, optim=optim, augment=augment))


def _limit(seconds: float) -> float:
    """Seconds that timing steps may take out of a budget."""
    return min(3.0, 0.02 * seconds)


def step_seconds(rows: list[dict[str, Any]], images: int) -> float | None:
    """Mean seconds of a step in the rows of the history but the first, in which caches fill; None without others.

    images: in one step. Rows tell their pace without the validation and saving between them.
    """
    steps = [row["step"] - before["step"] for before, row in itertools.pairwise(rows)]
    spent = [count * images / row["images_per_s"] for count, row in zip(steps, rows[1:], strict=True)]
    return sum(spent) / sum(steps) if steps else None


def _seconds_after(setup: Setup, model: nn.Module, validation: float) -> float:
    """What scoring validation, test and typical training images takes, reading the latter two, and all else at the end.

    validation: seconds of one, from which the scoring of a model follows that lies in slices on several devices.
    """
    if setup.config.pretrains:
        return PRETRAINED
    trained, tested = min(len(setup.train), FEATURES_FROM), setup.facts.num_test
    reading, scoring = _image_seconds(setup, model, validation)
    scored = len(setup.val) + tested
    return scoring * (scored + trained) + reading * (tested + trained) + PAGES + AN_IMAGE * scored


def _warn_of_probe(setup: Setup, text: str, reporter: Reporter, began: float) -> None:
    """Say when a budget cannot hold even one pass over the images, which nothing cuts short."""
    reading, scoring = _image_seconds(setup, setup.start.model, 0.0)
    images = len(setup.train) + len(setup.val) + setup.facts.num_test
    needed = time.monotonic() - began + (scoring + reading) * images + PAGES + AN_IMAGE * images
    if needed > parse_duration(text):
        reporter.warn(
            f"A probe sees each image once, which takes about {needed:.0f} s in all here: more than --time {text} allows. It is not "
            "cut short."
        )


def _image_seconds(setup: Setup, model: nn.Module, validation: float) -> tuple[float, float]:
    """Seconds of reading and of scoring an image. validation: see `_seconds_after`."""
    threads = setup.config.threads or setup.facts.cores
    begin = time.monotonic()
    store = setup.material.store("val", setup.spec, threads, Silent(), most=SAMPLE)
    reading = (time.monotonic() - begin) / len(store)
    if is_sharded(model):
        scoring = setup.team.size * validation / len(setup.val)
    else:
        engine = engine_for(copy.deepcopy(model).eval(), setup.spec.shape, setup.device)
        outputs_and_looks(engine, store)  # the first call prepares the engine
        begin = time.monotonic()
        outputs_and_looks(engine, store)
        scoring = (time.monotonic() - begin) / len(store)
    return reading, scoring


def reserve(after: float, left: float) -> float:
    """Seconds to set aside for what comes after the last step.

    after: what it takes by itself. left: seconds of the budget. What is for pages takes longer on a machine that other
    programs use too; that much more is set aside, but no more than leaves half of the time for training.
    """
    busy = after + PAGES * (_busyness() - 1)
    return max(after, min(busy, left / 2))


def _busyness() -> float:
    """How many times as long things take because other programs want the processor too, from 1 to 6."""
    if not hasattr(os, "getloadavg"):
        return 1.0
    # The load is that of the whole machine, of which this process may have been given a part.
    return min(6.0, max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)))


def _first_guess(setup: Setup, began: float) -> tuple[int, Budget]:
    config = setup.config
    assert config.time is not None
    seconds = parse_duration(config.time)
    trial = _trial(setup)
    state = trial.state()
    step = seconds_per_step(state, trial.batches(), trial.settings(), setup.objective, limit=_limit(seconds))
    # A forward pass in fp32 costs about as much as a third to a half of a training step.
    validation = 0.5 * step / (setup.batch_size * setup.batches_per_step) * len(setup.val)
    after = validation + CAUTION * _seconds_after(setup, state.model, validation)
    left = began + seconds - time.monotonic()
    if left - after < step:
        raise UsageError(
            f"--time {config.time} is over before training could begin: reading and checking the data took "
            f"{seconds - left:.0f} s, and {after:.0f} s are needed after training.",
            f"Give at least --time {math.ceil(seconds - left + after + 20 * step + 10)}s.",
        )
    budget = Budget(config.time, began + seconds, reserve(after, left))
    room = max(step, budget.deadline - time.monotonic() - FIRST_GUESS * seconds)
    return most_steps(room, 0, Pace(step, validation, after), setup.steps_per_epoch, setup.sizes), budget
