from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vitreous.config.decode import DecodeConfig
from vitreous.config.facts import DataFacts
from vitreous.config.input import InputSpec
from vitreous.config.serve import ServeConfig
from vitreous.config.train import NetConfig, OptimConfig, TrainConfig, parse_duration
from vitreous.errors import (
    GateError,
    ImageTooLargeError,
    MissingExtraError,
    StoppedError,
    UsageError,
    VitreousError,
    nearest,
    unknown_name,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90.0),
        ("10m", 600.0),
        ("10min", 600.0),
        ("1.5h", 5400.0),
        ("2d", 172_800.0),
        ("45", 45.0),
        (" 3 m ", 180.0),
        ("0.5s", 0.5),
    ],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "10x", "-5m", "0", "0s", "1e3", "2h30m", "10 m m", "inf", "nan", "m"])
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError, match="is not a duration") as caught:
        parse_duration(text)
    assert "10m" in caught.value.hint


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"epochs": 3, "time": "10m"}, ("--epochs 3", "--time 10m")),
        ({"time": "soon"}, ("--time 'soon'",)),
        ({"epochs": 0}, ("--epochs",)),
        ({"steps": 0}, ("--steps",)),
        ({"image_size": 0}, ("--image-size",)),
        ({"threads": -1}, ("--threads",)),
        ({"batch_size": 0}, ("--batch-size",)),
        ({"val_fraction": 0.0}, ("--val-fraction",)),
        ({"val_fraction": 0.6}, ("--val-fraction",)),
        ({"test_fraction": math.nan}, ("--test-fraction",)),
        ({"max_bad": 1.5}, ("--max-bad",)),
        ({"seed": -1}, ("--seed",)),
        ({"resume": True, "overwrite": True, "out": Path("x")}, ("--resume", "--overwrite")),
        ({"resume": True}, ("--resume", "--out")),
    ],
)
def test_what_cannot_be_is_refused_by_its_flag(settings: dict[str, Any], names: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as caught:
        TrainConfig(**settings)
    assert all(name in str(caught.value) for name in names)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", 0.0),
        ("lr", -1.0),
        ("lr", math.nan),
        ("lr", math.inf),
        ("weight_decay", -0.1),
        ("beta1", 1.0),
        ("beta2", -0.1),
        ("warmup", 1.0),
        ("final_lr", 1.1),
        ("clip_norm", -1.0),
        ("accumulation", 0),
        ("ema_decay", 1.0),
        ("label_smoothing", 1.0),
    ],
)
def test_optimiser_numbers_outside_their_interval_are_refused(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=rf"--optim\.{name.replace('_', '-')} must lie in [\[(].*, got"):
        OptimConfig(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("patch_size", 0),
        ("embed_dim", 0),
        ("depth", 0),
        ("num_heads", -3),
        ("mlp_ratio", 0.0),
        ("num_registers", -1),
        ("drop_path", 1.0),
        ("dropout", 1.0),
    ],
)
def test_network_numbers_outside_their_interval_are_refused(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=rf"--net\.{name.replace('_', '-')} must lie in"):
        NetConfig(**{name: value})  # type: ignore[arg-type]


def test_the_ends_of_the_intervals_belong_to_them() -> None:
    OptimConfig(weight_decay=0.0, beta1=0.0, warmup=0.0, final_lr=0.0, clip_norm=0.0, accumulation=1, ema_decay=0.0)
    OptimConfig(final_lr=1.0)
    NetConfig(patch_size=1, depth=1, num_registers=0, drop_path=0.0, dropout=0.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"height": 0},
        {"width": -1},
        {"channels": 1},
        {"mean": (0.5,)},
        {"std": (0.5, 0.5, 0.0)},
        {"crop_fraction": 0.0},
        {"crop_fraction": 1.1},
        {"crop_fraction": math.nan},
    ],
)
def test_an_input_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        InputSpec(**{"height": 8, "width": 8, **wrong})


def test_the_digest_of_an_input_changes_with_every_field() -> None:
    spec = InputSpec(height=8, width=8)
    assert spec.digest() == InputSpec(height=8, width=8).digest()
    changes: list[dict[str, Any]] = [
        {"height": 9},
        {"width": 9},
        {"channels": 1, "mean": (0.5,), "std": (0.5,)},
        {"resize": "pad"},
        {"crop_fraction": 0.9},
        {"interpolation": "bicubic"},
        {"bit_depth": 16},
        {"background": 0.0},
        {"mean": (0.5, 0.5, 0.4)},
        {"std": (0.5, 0.5, 0.4)},
        {"classes": ("a",)},
        {"decode": DecodeConfig(frame="last")},
        {"value_range": ((0.0, 2.0),) * 3},
        {"exposure": "even"},
    ]
    assert len({spec.digest(), *(replace(spec, **change).digest() for change in changes)}) == len(changes) + 1
    assert len(changes) == len(spec.to_dict())


def test_an_open_address_needs_a_token() -> None:
    with pytest.raises(UsageError, match=r"0\.0\.0\.0 is reachable from other machines") as caught:
        ServeConfig(host="0.0.0.0")
    assert "--token-file" in caught.value.hint
    ServeConfig(host="0.0.0.0", token_file=Path("token"))


def test_data_facts_derive_their_statistics() -> None:
    facts = DataFacts(
        classes=("a", "b"),
        train_counts=(30, 10),
        num_val=4,
        num_test=5,
        sizes=((20, 10), (40, 30), (50, 90)),
        grey_share=0.0,
        deep_share=0.0,
        brightness=0.5,
        device="cpu",
        cores=2,
        budget=None,
    )
    assert (facts.num_train, facts.num_classes, facts.short_side, facts.imbalance) == (40, 2, 30, 3.0)
    assert facts.aspect == pytest.approx(4 / 3)


# Errors


def test_every_error_carries_its_exit_code_and_name() -> None:
    assert [error.exit_code for error in (VitreousError, UsageError, GateError, StoppedError)] == [1, 2, 3, 75]
    assert (ImageTooLargeError.exit_code, ImageTooLargeError.status) == (2, 413)
    codes: dict[str, list[str]] = {}

    def walk(kind: type[VitreousError]) -> None:
        codes.setdefault(kind.code, []).append(kind.__name__)
        # Other rooms may add errors of their own, such as the server's; the tree of this module is what is meant.
        for child in (found for found in kind.__subclasses__() if found.__module__ == kind.__module__):
            walk(child)

    walk(VitreousError)
    assert all(len(kinds) == 1 for kinds in codes.values()), codes


def test_an_error_reads_as_one_paragraph() -> None:
    assert str(UsageError("No.", "Do this.")) == "No. Do this."
    assert str(UsageError("No.")) == "No."
    missing = MissingExtraError("Training", "train", "torch")
    assert "pip install 'vitreous[train]'" in missing.hint


def test_the_nearest_names_come_first_and_hopeless_ones_get_the_list() -> None:
    assert nearest("medcal", ["natural", "medical", "satellite"]) == ["medical"]
    assert nearest("tiny", ["vit_tiny_patch16", "resnet18"]) == ["vit_tiny_patch16"]
    assert nearest("", ["a"]) == []
    assert unknown_name("colour", "zzz", ["red", "blue"]).hint == "Known: red, blue."
    assert unknown_name("colour", "zzz", [f"name {n}" for n in range(30)]).hint == "There are 30 known names."
