from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest

from vitreous.config.convert import from_dict, read_settings, to_dict
from vitreous.config.input import InputSpec
from vitreous.config.train import AugmentConfig, NetConfig, OptimConfig, TrainConfig
from vitreous.errors import UsageError

FULL = TrainConfig(
    model="vit_tiny",
    init="timm:vit_tiny_patch16_224",
    preset="medical",
    image_size=64,
    time="10m",
    batch_size=48,
    group="patient",
    val=Path("data/val"),
    ignore_classes=("unknown", "blurred"),
    balance="weights",
    precision="bf16",
    seed=3,
    out=Path("runs/x"),
    strict=True,
    optim=OptimConfig(lr=1e-3, warmup=0.0, accumulation=2),
    net=NetConfig(pooling="mean", stem="conv", mlp_ratio=2.0, checkpointing=True),
    augment=AugmentConfig(horizontal_flip=False, rand_augment_ops=0, mixup=0.8),
)
SPEC = InputSpec(
    height=64, width=96, channels=1, resize="pad", bit_depth=16, mean=(0.1,), std=(0.2,), classes=("a", "héron")
)


@pytest.mark.parametrize("settings", [TrainConfig(), FULL, SPEC, InputSpec(height=1, width=2)])
def test_settings_survive_a_round_trip_through_json(settings: Any) -> None:
    stored = json.loads(json.dumps(to_dict(settings), allow_nan=False))
    assert from_dict(type(settings), stored) == settings


def test_every_field_of_every_stage_is_stored() -> None:
    stored = to_dict(TrainConfig())
    assert stored.keys() == {field.name for field in fields(TrainConfig)}
    for stage, kind in (("optim", OptimConfig), ("net", NetConfig), ("augment", AugmentConfig)):
        assert stored[stage].keys() == {field.name for field in fields(kind)}


def test_absent_keys_take_their_defaults() -> None:
    assert from_dict(TrainConfig, {"optim": {"lr": 1e-3}}) == TrainConfig(optim=OptimConfig(lr=1e-3))


@pytest.mark.parametrize(
    ("values", "named", "offered"),
    [
        ({"epoch": 3}, "'epoch'", "'epochs'"),
        ({"decode": {"zzzzzzz": 0.9}}, "'decode.zzzzzzz'", "Known: "),
        ({"optim": {"warm_up": 0.1}}, "'optim.warm_up'", "'optim.warmup'"),
        ({"augment": {"mix_up": 0.1}}, "'augment.mix_up'", "'augment.mixup'"),
        ({"lr": 1e-3}, "'lr'", ""),
    ],
)
def test_an_unknown_key_is_refused_with_its_path_and_the_nearest(
    values: dict[str, Any], named: str, offered: str
) -> None:
    with pytest.raises(UsageError) as caught:
        from_dict(TrainConfig, values)
    assert f"Unknown setting {named}" in caught.value.message
    assert offered in caught.value.hint


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"epochs": True}, "'epochs' must be a whole number or null, got True"),
        ({"epochs": "20"}, "'epochs' must be a whole number or null, got '20'"),
        ({"epochs": 2.5}, "'epochs' must be a whole number or null, got 2.5"),
        ({"seed": None}, "'seed' must be a whole number, got None"),
        ({"strict": 1}, "'strict' must be true or false, got 1"),
        ({"strict": "yes"}, "'strict' must be true or false, got 'yes'"),
        ({"max_bad": True}, "'max_bad' must be a number, got True"),
        ({"max_bad": "0.1"}, "'max_bad' must be a number, got '0.1'"),
        ({"model": 5}, "'model' must be a text, got 5"),
        ({"out": 5}, "'out' must be a path or null, got 5"),
        ({"ignore_classes": "cat"}, "'ignore_classes' must be a list, got 'cat'"),
        ({"ignore_classes": [1]}, "'ignore_classes' must be a text, got 1"),
        ({"optim": 3}, "'optim' must be an object, got 3"),
        ({"optim": {"lr": "fast"}}, "'optim.lr' must be a number or null, got 'fast'"),
        ({"net": {"depth": False}}, "'net.depth' must be a whole number or null, got False"),
        ({"batch_size": 2.0}, "'batch_size' must be 'auto' or a whole number, got 2.0"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_in_words(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        from_dict(TrainConfig, values)
    assert sentence in caught.value.message


@pytest.mark.parametrize(
    ("values", "nearest"),
    [
        ({"preset": "medcal"}, "'medical'"),
        ({"balance": "logit_adjust"}, "'logit-adjust'"),
        ({"precision": "fp61"}, "'fp16'"),
        ({"net": {"pooling": "means"}}, "'mean'"),
        ({"batch_size": "automatic"}, "'auto'"),
    ],
)
def test_a_word_that_is_not_among_the_choices_is_answered_with_the_nearest(
    values: dict[str, Any], nearest: str
) -> None:
    with pytest.raises(UsageError, match="Unknown value") as caught:
        from_dict(TrainConfig, values)
    assert nearest in caught.value.hint


@pytest.mark.parametrize("channels", [True, 1.0, 2, "3", None])
def test_a_number_among_choices_must_be_that_very_number(channels: object) -> None:
    with pytest.raises(UsageError, match="channels"):
        from_dict(InputSpec, {"height": 8, "width": 8, "channels": channels, "mean": [0.5], "std": [0.5]})


def test_whole_numbers_are_numbers() -> None:
    loaded = from_dict(TrainConfig, {"optim": {"weight_decay": 0}})
    assert loaded.optim.weight_decay == 0.0
    assert isinstance(loaded.optim.weight_decay, float)


def test_rules_that_join_fields_hold_for_loaded_settings_too() -> None:
    with pytest.raises(UsageError, match="--epochs 3 and --time 5m"):
        from_dict(TrainConfig, {"epochs": 3, "time": "5m"})
    with pytest.raises(UsageError, match="mean and std need one value for each of 3 channels"):
        from_dict(InputSpec, {"height": 8, "width": 8, "mean": [0.5], "std": [0.5]})
    with pytest.raises(UsageError, match="InputSpec"):
        from_dict(InputSpec, {"height": 8})


def test_settings_cannot_be_edited() -> None:
    with pytest.raises(FrozenInstanceError):
        FULL.seed = 4  # type: ignore[misc]


def test_settings_are_read_from_json_and_toml(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"epochs": 3, "optim": {"lr": 0.001}}')
    (tmp_path / "a.toml").write_text("epochs = 3\n[optim]\nlr = 0.001\n")
    expected = TrainConfig(epochs=3, optim=OptimConfig(lr=1e-3))
    for name in ("a.json", "a.toml"):
        assert from_dict(TrainConfig, read_settings(tmp_path / name)) == expected


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.json", b"{", "is not valid"),
        ("a.json", b"[1]", "must hold one object, found a list"),
        ("a.toml", b"epochs = ", "is not valid"),
        ("a.json", b"\xff\xfe\x00", "is not valid"),
    ],
)
def test_a_settings_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=sentence) as caught:
        read_settings(tmp_path / name)
    assert name in caught.value.message


def test_an_absent_settings_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        read_settings(tmp_path / "nothing.json")
