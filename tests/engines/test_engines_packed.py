"""The packed engine is tried on the model before it is used, and says what it is."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vitreous.engines import engine_for, load_engine
from vitreous.engines.cpu import SWITCH, cpu_has_fast_bf16, cpu_path
from vitreous.engines.eager import EagerEngine
from vitreous.engines.packed import PackedEngine, distance, packed_or_eager
from vitreous.engines.protocol import Outputs
from vitreous.models.packed import pack
from vitreous.runs import RunFolder

SHAPE = (3, 4, 4)
needs_packing = pytest.mark.skipif(not cpu_path().fast, reason=f"nothing is packed here: {cpu_path().reason}")


class Toy(nn.Module):
    """Means of colours, and twice that plus an `error` as logits; it remembers the sizes of its batches."""

    def __init__(self, error: float = 0.0) -> None:
        super().__init__()
        self.error = error
        self.sizes: list[int] = []

    def forward_features(self, images: Tensor) -> Tensor:
        self.sizes.append(len(images))
        return images

    def pool(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3))

    def head(self, features: Tensor) -> Tensor:
        return 2 * features + self.error


class Packs:
    """A `pack` that gives what it is told for each type, and keeps count."""

    def __init__(self, **results: nn.Module | Exception) -> None:
        self.results = results
        self.asked: list[str] = []

    def __call__(self, model: nn.Module, dtype: torch.dtype) -> nn.Module:
        name = str(dtype).removeprefix("torch.")
        self.asked.append(name)
        found = self.results[name]
        if isinstance(found, Exception):
            raise found
        return found


def test_a_packed_model_that_agrees_is_used(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "vitreous.engines"):
        engine = packed_or_eager(Toy(), Packs(float32=Toy(1e-7)), SHAPE)
    assert isinstance(engine, PackedEngine)
    assert engine.name == "packed"
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "packed in fp32" in caplog.text
    assert cpu_path().reason in caplog.text


@pytest.mark.parametrize(
    "bad", [Toy(1e-3), Toy(float("nan")), RuntimeError("gone"), AttributeError("moved"), NotImplementedError()]
)
def test_one_that_disagrees_or_fails_is_replaced_by_eager_and_the_log_says_so(
    bad: nn.Module | Exception, caplog: pytest.LogCaptureFixture
) -> None:
    engine = packed_or_eager(Toy(), Packs(float32=bad), SHAPE)
    assert isinstance(engine, EagerEngine)
    assert engine.name == "eager"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "packed in fp32" in caplog.text


def test_bf16_may_differ_by_what_bf16_differs(caplog: pytest.LogCaptureFixture) -> None:
    engine = packed_or_eager(Toy(), Packs(bfloat16=Toy(1e-2)), SHAPE, "bf16")
    assert engine.name == "packed-bf16"
    assert caplog.records == []


def test_bf16_that_differs_by_more_is_replaced_by_fp32(caplog: pytest.LogCaptureFixture) -> None:
    packs = Packs(bfloat16=Toy(1.0), float32=Toy())
    engine = packed_or_eager(Toy(), packs, SHAPE, "bf16")
    assert engine.name == "packed"
    assert packs.asked == ["bfloat16", "float32"]
    assert "packed in bf16" in caplog.text


def test_fp32_is_never_silently_bf16() -> None:
    packs = Packs(float32=Toy(1.0), bfloat16=Toy())
    assert packed_or_eager(Toy(), packs, SHAPE).name == "eager"
    assert packs.asked == ["float32"]


def test_large_batches_are_worked_on_in_the_models_groups() -> None:
    model: Any = Toy()
    images = np.random.default_rng(0).standard_normal((7, *SHAPE), np.float32)
    whole = PackedEngine(model).predict(images)
    model.images_at_once = 3
    parts = PackedEngine(model).predict(images)
    assert model.sizes == [7, 3, 3, 1]
    np.testing.assert_array_equal(parts.logits, whole.logits)
    np.testing.assert_array_equal(parts.features, whole.features)


def test_no_images_give_no_answers() -> None:
    outputs = PackedEngine(Toy()).predict(np.zeros((0, *SHAPE), np.float32))
    assert outputs.logits.shape == outputs.features.shape == (0, 3)


def test_distance_is_a_share_of_the_largest_number_and_sees_what_is_not_one() -> None:
    def outputs(logit: float, feature: float) -> Outputs:
        return Outputs(np.array([[logit, 4.0]]), np.array([[feature, 0.0]]))

    assert distance(outputs(1.0, 2.0), outputs(1.0, 2.0)) == 0
    assert distance(outputs(1.5, 2.0), outputs(1.0, 2.0)) == pytest.approx(0.125)
    assert distance(outputs(1.0, 2.5), outputs(1.0, 2.0)) == pytest.approx(0.25)
    assert np.isnan(distance(outputs(np.nan, 2.0), outputs(1.0, 2.0)))
    nothing = Outputs(np.zeros((1, 2)), np.zeros((1, 2)))
    assert distance(nothing, nothing) == 0
    assert distance(outputs(1.0, 2.0), nothing) > 1


@needs_packing
@pytest.mark.parametrize("name", ["packed", "packed-bf16"])
def test_a_run_is_packed_by_name(plain_run: RunFolder, name: str, caplog: pytest.LogCaptureFixture) -> None:
    if name == "packed-bf16" and not cpu_has_fast_bf16():
        pytest.skip("this processor has no bf16")
    engine = load_engine(plain_run, name)
    assert isinstance(engine, PackedEngine)
    assert engine.name == name
    assert caplog.records == []


def test_a_model_at_hand_gets_the_fast_engine_unless_that_is_turned_off(
    plain_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vitreous.models.load import load_model

    monkeypatch.delenv(SWITCH, raising=False)
    model, shape = load_model(plain_run), plain_run.spec.shape
    images = np.random.default_rng(0).standard_normal((2, *shape), np.float32)
    fast = engine_for(model, shape)
    assert fast.name == ("packed" if cpu_path().fast else "eager")
    monkeypatch.setenv(SWITCH, "plain")
    plain = engine_for(model, shape)
    assert plain.name == "eager"
    assert distance(fast.predict(images), plain.predict(images)) <= 1e-5


@needs_packing
def test_a_model_is_packed_with_its_own_numbers_or_not_at_all(plain_run: RunFolder) -> None:
    """The whole way, with a `pack` that forgets a bias."""
    from vitreous.models.load import load_model

    def forgetful(model: nn.Module, dtype: torch.dtype) -> nn.Module:
        copy: Any = pack(model, dtype)
        copy.head.bias = None
        return copy

    model: Any = load_model(plain_run)
    assert packed_or_eager(model, pack, plain_run.spec.shape).name == "packed"
    assert packed_or_eager(model, forgetful, plain_run.spec.shape).name == "eager"
