"""Losses, parameter groups, schedule, averaging, precision, signals: each against numbers known on paper."""

from __future__ import annotations

import math
import os
import signal
import threading
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vitreous.config.train import LossConfig, OptimConfig
from vitreous.models import VisionTransformer, architecture, build
from vitreous.training import precision as precision_module
from vitreous.training.ema import Ema
from vitreous.training.groups import parameter_groups
from vitreous.training.losses import cross_entropy, make_loss
from vitreous.training.optim import make_optimizer
from vitreous.training.precision import autocast, choose_precision, gradient_scaler
from vitreous.training.schedule import learning_rate
from vitreous.training.signals import STOPPING, Interrupted, StopFlag, stop_on_signal

OPTIM = OptimConfig(
    lr=1.0,
    weight_decay=0.1,
    beta1=0.9,
    beta2=0.98,
    warmup=0.2,
    final_lr=0.1,
    clip_norm=1.0,
    accumulation=1,
    ema_decay=0.9,
    label_smoothing=0.1,
)


# Parameter groups


@pytest.mark.parametrize("stem", ["linear", "conv"])
def test_norms_biases_tokens_and_positions_are_not_decayed(stem: Any) -> None:
    model = VisionTransformer(
        image_size=16, patch_size=4, embed_dim=24, depth=2, num_heads=2, num_registers=2, num_classes=3, stem=stem
    )
    decayed, undecayed = parameter_groups(model, 0.1)
    assert (decayed["weight_decay"], undecayed["weight_decay"]) == (0.1, 0.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    in_decayed = {names[id(parameter)] for parameter in decayed["params"]}  # type: ignore[attr-defined]
    in_undecayed = {names[id(parameter)] for parameter in undecayed["params"]}  # type: ignore[attr-defined]
    for name, module in model.named_modules():
        if isinstance(module, nn.LayerNorm | nn.GroupNorm):
            assert {f"{name}.weight", f"{name}.bias"} <= in_undecayed
    assert {name for name in names.values() if name.endswith("bias")} <= in_undecayed
    assert {"class_token", "registers", "position_embedding"} <= in_undecayed
    assert {"head.weight", "patch_embedding.projection.weight", "blocks.1.mlp.contract.weight"} <= in_decayed
    assert all(model.get_parameter(name).ndim >= 2 for name in in_decayed)


@pytest.mark.parametrize("name", ["vit_compact", "resnet_micro", "convnext_tiny"])
def test_every_trainable_parameter_is_in_exactly_one_group(name: str) -> None:
    with torch.device("meta"):
        model = build(architecture(name, num_classes=3, image_size=32))
    frozen = next(model.parameters()).requires_grad_(False)
    grouped = [id(parameter) for group in parameter_groups(model, 0.1) for parameter in group["params"]]  # type: ignore[attr-defined]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(parameter) for parameter in model.parameters()} - {id(frozen)}


def test_decay_shrinks_matrices_and_leaves_the_rest() -> None:
    torch.manual_seed(0)
    model = VisionTransformer(image_size=8, patch_size=4, embed_dim=8, depth=1, num_heads=2, num_classes=3)
    optimizer = make_optimizer(model, OPTIM)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for group in optimizer.param_groups:
        group["lr"] = 0.5
    optimizer.step()
    torch.testing.assert_close(
        model.blocks[0].mlp.expand.weight,  # type: ignore[union-attr]
        before["blocks.0.mlp.expand.weight"] * (1 - 0.5 * 0.1),
    )
    assert model.position_embedding is not None
    assert torch.equal(model.position_embedding, before["position_embedding"])
    assert torch.equal(model.norm.weight, before["norm.weight"])


def test_adamw_is_torchs_with_the_settings_given() -> None:
    optimizer = make_optimizer(nn.Linear(2, 2), OPTIM)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert {group["betas"] for group in optimizer.param_groups} == {(0.9, 0.98)}
    assert {group["lr"] for group in optimizer.param_groups} == {1.0}


# Schedule


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 0.5),  # round(0.2 * 11) = 2 steps of warm-up: half, then all of the peak
        (1, 1.0),
        (2, 1.0),  # cos(0)
        (4, 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 4))),
        (6, 0.55),  # half-way between the peak and its tenth
        (10, 0.1),  # the last step
    ],
)
def test_the_learning_rate_at_points_known_on_paper(step: int, rate: float) -> None:
    assert learning_rate(step, 11, OPTIM) == pytest.approx(rate, rel=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 0.99])
def test_the_learning_rate_is_positive_and_never_above_its_peak(steps: int, warmup: float) -> None:
    config = OptimConfig(lr=2.0, warmup=warmup, final_lr=0.01)
    rates = [learning_rate(step, steps, config) for step in range(steps)]
    assert all(0 < rate <= 2.0 for rate in rates)
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


# Averaging


def test_the_average_follows_its_formula() -> None:
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
    ema = Ema(model, decay=0.25)
    expected = 1.0
    for step, value in enumerate((2.0, -1.0, 4.0), start=1):
        with torch.no_grad():
            model.weight.fill_(value)
        ema.update(model, step)
        decay = min(0.25, (1 + step) / (10 + step))  # 2/11, 0.25, 0.25
        expected = decay * expected + (1 - decay) * value
        assert float(ema.model.get_parameter("weight").detach()) == pytest.approx(expected, rel=1e-6)


def test_without_averaging_the_average_is_the_model() -> None:
    torch.manual_seed(0)
    model = nn.Linear(5, 5)
    ema = Ema(model, decay=0.0)
    for step in range(1, 4):
        with torch.no_grad():
            model.weight.normal_()
        ema.update(model, step)
        assert torch.equal(ema.model.get_parameter("weight"), model.weight)


def test_running_statistics_are_copied_and_the_average_is_not_trained() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    ema = Ema(model, decay=0.99)
    model(torch.randn(4, 1, 3, 3))
    ema.update(model, 1)
    for mine, theirs in zip(ema.model.buffers(), model.buffers(), strict=True):
        assert torch.equal(mine, theirs)
    assert not ema.model.training
    assert not any(parameter.requires_grad for parameter in ema.model.parameters())


# Losses


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_torchs(smoothing: float) -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(16, 5), torch.randint(5, (16,))
    targets = F.one_hot(labels, 5).float() * (1 - smoothing) + smoothing / 5
    expected = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    torch.testing.assert_close(cross_entropy(logits, targets), expected)
    torch.testing.assert_close(
        make_loss(LossConfig(name="cross-entropy"), "none", torch.tensor([1, 9, 1, 1, 1]))(logits, targets), expected
    )


def test_cross_entropy_of_half_precision_logits_is_computed_in_fp32() -> None:
    loss = cross_entropy(torch.randn(4, 3, dtype=torch.bfloat16), torch.eye(3)[[0, 1, 2, 0]])
    assert loss.dtype == torch.float32


def test_adjusted_logits_on_a_toy() -> None:
    # Three images of class 0 to one of class 1: an undecided model pays log 4 for the rare class, log 4/3 for the other.
    loss = make_loss(LossConfig(name="cross-entropy"), "logit-adjust", torch.tensor([3, 1]))
    undecided = torch.zeros(1, 2)
    assert float(loss(undecided, torch.tensor([[0.0, 1.0]]))) == pytest.approx(math.log(4))
    assert float(loss(undecided, torch.tensor([[1.0, 0.0]]))) == pytest.approx(math.log(4 / 3))
    # The optimum is no longer the prior but balance: at equal logits the gradient over the data vanishes.
    logits = torch.zeros(4, 2, requires_grad=True)
    loss(logits, torch.eye(2)[[0, 0, 0, 1]]).backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad.sum(0), torch.zeros(2))


def test_class_weights_on_a_toy() -> None:
    # Weights 4 / (2 * 3) and 4 / (2 * 1): their mean over the four images is 1.
    counts, labels = torch.tensor([3, 1]), torch.tensor([0, 0, 0, 1])
    logits = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.5, 0.5], [0.0, 1.0]])
    expected = F.cross_entropy(logits, labels, weight=torch.tensor([2 / 3, 2.0]), reduction="sum") / 4
    torch.testing.assert_close(
        make_loss(LossConfig(name="cross-entropy"), "weights", counts)(logits, torch.eye(2)[labels]), expected
    )
    undecided = make_loss(LossConfig(name="cross-entropy"), "weights", counts)(torch.zeros(4, 2), torch.eye(2)[labels])
    assert float(undecided) == pytest.approx(math.log(2))


@pytest.mark.parametrize("balance", ["none", "weights", "logit-adjust"])
def test_equal_classes_make_all_losses_equal_in_their_gradient(balance: Any) -> None:
    torch.manual_seed(0)
    logits = torch.randn(6, 3, requires_grad=True)
    targets = torch.softmax(torch.randn(6, 3), 1)
    (expected,) = torch.autograd.grad(cross_entropy(logits, targets), logits)
    (found,) = torch.autograd.grad(
        make_loss(LossConfig(name="cross-entropy"), balance, torch.tensor([7, 7, 7]))(logits, targets), logits
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("balance", ["weights", "logit-adjust"])
def test_a_class_without_images_breaks_no_loss(balance: Any) -> None:
    loss = make_loss(LossConfig(name="cross-entropy"), balance, torch.tensor([5, 0]))(torch.zeros(2, 2), torch.eye(2))
    assert math.isfinite(float(loss))


# Precision


def test_precision_follows_the_hardware_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_precision("bf16", "cpu", 1) == "bf16"
    for fast, macs, expected in ((True, 10**9, "bf16"), (True, 10**6, "fp32"), (False, 10**9, "fp32")):
        monkeypatch.setattr(precision_module, "cpu_has_fast_bf16", lambda fast=fast: fast)
        assert choose_precision("auto", "cpu", macs) == expected
    for supported, expected in ((True, "bf16"), (False, "fp16")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda supported=supported: supported)
        assert choose_precision("auto", "cuda", 10**9) == expected
    assert choose_precision("auto", "mps", 10**9) == "fp32"


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_precision_is_that_of_the_matrix_products(precision: Any, dtype: torch.dtype) -> None:
    layer = nn.Linear(4, 4)
    with autocast(precision, "cpu"):
        assert layer(torch.zeros(1, 4)).dtype == dtype
    assert layer.weight.dtype == torch.float32


def test_only_fp16_scales_its_loss() -> None:
    assert [gradient_scaler(kind, "cpu").is_enabled() for kind in ("fp32", "bf16", "fp16")] == [False, False, True]


def test_the_loss_in_bf16_is_close_to_that_in_fp32() -> None:
    torch.manual_seed(0)
    model = VisionTransformer(image_size=16, patch_size=4, embed_dim=48, depth=3, num_heads=3, num_classes=5)
    nn.init.normal_(model.head.weight, std=0.1)
    images, targets = torch.randn(64, 3, 16, 16), torch.eye(5)[torch.arange(64) % 5]
    losses = []
    for kind in ("fp32", "bf16"):
        with torch.no_grad(), autocast(kind, "cpu"):
            logits = model(images)
        losses.append(float(cross_entropy(logits, targets)))
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], abs=2e-3)


# Signals


@pytest.mark.parametrize("number", STOPPING)
def test_the_first_signal_sets_the_flag_and_restores_the_handlers(number: signal.Signals) -> None:
    before = {each: signal.getsignal(each) for each in STOPPING}
    with stop_on_signal() as stop:
        assert not stop
        assert all(signal.getsignal(each) is not before[each] for each in before)
        os.kill(os.getpid(), number)
        assert stop
        assert stop.signal_name == number.name
        # From here on a second signal does what it did before: it leaves.
        assert {each: signal.getsignal(each) for each in before} == before
    assert {each: signal.getsignal(each) for each in before} == before


def test_a_second_signal_leaves_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), stop_on_signal() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_where_nothing_has_to_be_finished_the_first_signal_leaves_at_once() -> None:
    before = {each: signal.getsignal(each) for each in STOPPING}
    with pytest.raises(Interrupted, match="SIGTERM"), stop_on_signal(at_once=True):
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("not reached")
    assert {each: signal.getsignal(each) for each in before} == before


def test_inside_a_block_that_notices_signals_they_wait_for_its_end_and_are_not_forgotten() -> None:
    reached = []
    with pytest.raises(Interrupted, match="SIGINT"), stop_on_signal(at_once=True) as stop:
        with stop.noticed():
            signal.raise_signal(signal.SIGINT)
            reached.append(stop.signal_name)
        raise AssertionError("not reached")
    assert reached == ["SIGINT"]
    with stop_on_signal(at_once=True) as stop, stop.noticed():
        pass  # no signal, no interruption


def test_the_handlers_are_restored_after_an_error() -> None:
    before = {each: signal.getsignal(each) for each in STOPPING}
    with pytest.raises(RuntimeError), stop_on_signal():
        raise RuntimeError
    assert {each: signal.getsignal(each) for each in before} == before


def test_off_the_main_thread_the_flag_is_simply_never_set() -> None:
    flags: list[StopFlag] = []

    def work() -> None:
        with stop_on_signal() as stop:
            flags.append(stop)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [bool(flag) for flag in flags] == [False]
