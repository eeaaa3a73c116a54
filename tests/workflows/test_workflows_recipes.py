"""Every recipe builds and takes its first steps on real images, and leaves settings that say what was done."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

import vitreous
from vitreous.config.train import METHOD_OF, OptimConfig, RecipeName, TrainConfig
from vitreous.errors import UsageError
from vitreous.workflows.classifier import _laid_over

SMALL = {"depth": 1, "embed_dim": 48, "num_heads": 2}


@pytest.mark.parametrize("recipe", get_args(RecipeName))
def test_every_recipe_takes_its_first_steps(
    recipe: RecipeName, call: Callable[..., Any], colors: Path, trained: Path, tmp_path: Path
) -> None:
    starts = ["--init", "scratch", "--model", "vit_micro"]
    if recipe in ("fine-tune", "probe", "lora", "head"):
        starts = ["--init", str(trained)]
    shape = [word for name, value in SMALL.items() for word in (f"--net.{name.replace('_', '-')}", str(value))]
    flags = ["--image-size", "16", "--threads", "1", "--offline", *starts]
    flags += [] if recipe == "probe" else ["--steps", "2"]
    done = call(
        "train", colors, "--recipe", recipe, "--out", tmp_path / "run", *flags, *(shape if "--model" in starts else [])
    )
    assert done.returncode == 0, done.stderr
    stored = json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))
    assert (stored["recipe"], stored["method"]) == (recipe, METHOD_OF[recipe])
    assert f"recipe {recipe} (method {METHOD_OF[recipe]})" in done.stderr
    # A linear head, branches without a factor, and no teacher are what an absent value says here.
    absent = {name for name, value in stored["net"].items() if value is None}
    assert absent <= {"layer_scale", "head_hidden"}
    decided = ("optim", "augment", "loss", "lora", "pretrain")
    assert [f"{part}.{name}" for part in decided for name, value in stored[part].items() if value is None] == []
    for name in ("model", "image_size", "batch_size", "steps", "precision", "threads", "devices"):
        assert stored[name] not in (None, "auto")


def test_a_configuration_in_python_is_laid_under_what_is_given_beside_it(
    trained: Path, colors: Path, tmp_path: Path
) -> None:
    settings = json.loads((trained / "config.json").read_text(encoding="utf-8"))
    run = vitreous.train(colors, config=trained / "config.json", steps=1, out=tmp_path / "one", optim={"lr": 0.01})
    stored = json.loads((run.path / "config.json").read_text(encoding="utf-8"))
    assert (stored["steps"], stored["optim"]["lr"], stored["net"]) == (1, 0.01, settings["net"])
    assert stored["optim"]["ema_decay"] == settings["optim"]["ema_decay"] or stored["optim"]["warmup_steps"] == 0


def test_what_is_given_beside_a_configuration_wins_and_opens_what_followed_from_it() -> None:
    config = TrainConfig(steps=9, batch_size=8, optim=OptimConfig(lr=0.1, warmup_steps=1), val_fraction=0.3)
    found = _laid_over(config, {"batch_size": 4, "optim": {"clip_norm": 0.5}, "out": Path("x")})
    assert (found.steps, found.batch_size, found.val_fraction, found.out) == (9, 4, 0.3, Path("x"))
    assert (found.optim.lr, found.optim.clip_norm, found.optim.warmup_steps) == (None, 0.5, 1)
    with pytest.raises(UsageError, match=r"optim\.lrr"):
        _laid_over(config, {"optim": {"lrr": 1.0}})
