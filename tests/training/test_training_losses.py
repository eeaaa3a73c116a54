from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitreous.config.input import InputSpec
from vitreous.config.loss import LossConfig
from vitreous.config.train import Balance
from vitreous.data import PixelStore
from vitreous.data.sources.digits import read_digits
from vitreous.errors import UsageError
from vitreous.evaluation.calibration import fit_temperature
from vitreous.evaluation.metrics import nll
from vitreous.runs.decision import probabilities
from vitreous.training.losses import asymmetric, bce, cross_entropy, focal, make_loss

FULL = LossConfig(name="cross-entropy", focal_gamma=1.5, gamma_positive=1.0, gamma_negative=4.0, margin=0.05)
NAMES = ("cross-entropy", "bce", "focal", "asymmetric")
BALANCES: tuple[Balance, ...] = ("none", "weights", "sampler", "logit-adjust")
COUNTS = torch.tensor([5, 3, 2])
SPEC = InputSpec(height=8, width=8, channels=1, mean=(0.3,), std=(0.4,), classes=tuple("0123456789"))


def loss_named(name: Any, balance: Balance = "none", **options: Any) -> Any:
    return make_loss(replace(FULL, name=name), balance, COUNTS, **options)


def draw(images: int = 16, classes: int = 3) -> tuple[Tensor, Tensor]:
    """Logits and distributions."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(images, classes, generator=generator)
    return logits, torch.randn(images, classes, generator=generator).softmax(1)


# Against references


def test_bce_is_torchs_summed_over_the_classes() -> None:
    logits, targets = draw()
    expected = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(1).mean()
    torch.testing.assert_close(bce(logits, targets), expected)


def test_focal_of_two_classes_is_torchvisions_of_their_difference() -> None:
    from torchvision.ops import sigmoid_focal_loss

    logits, targets = draw(classes=2)
    difference = logits[:, 1] - logits[:, 0]
    for gamma in (0.5, 1.0, 2.0):
        expected = sigmoid_focal_loss(
            difference, (targets[:, 1] > 0.5).float(), alpha=-1, gamma=gamma, reduction="mean"
        )
        hard = F.one_hot((targets[:, 1] > 0.5).long(), 2).float()
        torch.testing.assert_close(focal(logits, hard, gamma=gamma), expected)


def test_focal_without_focus_is_cross_entropy() -> None:
    logits, targets = draw()
    torch.testing.assert_close(focal(logits, targets, gamma=0.0), cross_entropy(logits, targets))


@pytest.mark.parametrize("margin", [0.0, 0.05])
@pytest.mark.parametrize(("positive", "negative"), [(0.0, 4.0), (1.0, 4.0), (0.0, 0.0), (0.5, 1.5)])
def test_asymmetric_is_timms(positive: float, negative: float, margin: float) -> None:
    from timm.loss import AsymmetricLossMultiLabel

    logits, _ = draw()
    labels = (torch.rand(16, 3, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    expected = AsymmetricLossMultiLabel(gamma_neg=negative, gamma_pos=positive, clip=margin)(logits, labels)
    found = asymmetric(logits, labels, 1 - labels, gamma_positive=positive, gamma_negative=negative, margin=margin)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_asymmetric_without_asymmetry_is_bce() -> None:
    logits, targets = draw()
    found = asymmetric(logits, targets, gamma_positive=0.0, gamma_negative=0.0, margin=0.0)
    torch.testing.assert_close(found, bce(logits, targets))


# Targets


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("balance", BALANCES)
def test_an_image_of_weight_two_counts_as_two_and_a_mixture_costs_the_mixture(name: str, balance: Balance) -> None:
    loss = loss_named(name, balance)
    logits = draw()[0][:2]
    one, two = torch.eye(3)[[0, 1]], torch.eye(3)[[2, 0]]
    each = [loss(logits[[0]], one[[0]]), loss(logits[[1]], one[[1]])]
    weighted = loss(logits, one * torch.tensor([[2.0], [0.5]]))
    torch.testing.assert_close(weighted, (2 * each[0] + 0.5 * each[1]) / 2)
    mixed = loss(logits, 0.3 * 2.0 * one + 0.7 * 0.5 * two)
    torch.testing.assert_close(mixed, 0.3 * 2.0 * loss(logits, one) + 0.7 * 0.5 * loss(logits, two))
    assert float(loss(logits, torch.zeros(2, 3))) == 0


@pytest.mark.parametrize("name", ["bce", "asymmetric"])
@pytest.mark.parametrize("balance", BALANCES)
def test_an_image_may_have_several_labels_or_none(name: str, balance: Balance) -> None:
    loss = loss_named(name, balance, several_labels=True, num_images=20)
    labels = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    logits = torch.zeros(2, 3, requires_grad=True)
    (slope,) = torch.autograd.grad(loss(logits, labels), logits)
    assert bool(((slope < 0) == (labels > 0)).all())
    right = torch.where(labels > 0, 20.0, -20.0)
    assert float(loss(right, labels)) < 1e-3
    if (name, balance) == ("bce", "none"):
        expected = F.binary_cross_entropy_with_logits(logits, labels, reduction="sum") / 2
        torch.testing.assert_close(loss(logits, labels), expected)
    if (name, balance) == ("bce", "weights"):
        weights = 10 / (3 * COUNTS.float())
        expected = F.binary_cross_entropy_with_logits(logits, labels, reduction="sum", pos_weight=weights) / 2
        torch.testing.assert_close(loss(logits, labels), expected)


@pytest.mark.parametrize("name", ["cross-entropy", "focal"])
def test_several_labels_under_a_softmax_are_refused_with_a_way_out(name: str) -> None:
    with pytest.raises(UsageError, match=name) as caught:
        loss_named(name, several_labels=True)
    assert "--loss.name bce" in caught.value.hint


# Unequal classes


@pytest.mark.parametrize("name", NAMES)
def test_class_weights_weigh_the_whole_image(name: str) -> None:
    logits, _ = draw()
    labels = torch.arange(16) % 3
    weights = (10 / (3 * COUNTS.float()))[labels]
    expected = loss_named(name)(logits, F.one_hot(labels, 3) * weights[:, None])
    torch.testing.assert_close(loss_named(name, "weights")(logits, F.one_hot(labels, 3).float()), expected)


@pytest.mark.parametrize("name", NAMES)
def test_showing_rare_classes_more_often_leaves_the_loss_as_it_is(name: str) -> None:
    logits, targets = draw()
    assert torch.equal(loss_named(name, "sampler")(logits, targets), loss_named(name)(logits, targets))


@pytest.mark.parametrize("name", ["cross-entropy", "bce"])
def test_with_adjusted_logits_equal_logits_are_the_optimum_of_a_model_that_sees_nothing(name: str) -> None:
    # Five, three and two images; without looking, the best that adjusted logits can say is that all classes are alike.
    logits = torch.zeros(10, 3, requires_grad=True)
    targets = torch.eye(3).repeat_interleave(COUNTS, dim=0)
    (slope,) = torch.autograd.grad(loss_named(name, "logit-adjust")(logits, targets), logits)
    torch.testing.assert_close(slope.sum(0), torch.zeros(3))


# Numbers


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("balance", BALANCES)
def test_extreme_and_half_precision_logits_give_finite_losses_and_slopes(name: str, balance: Balance) -> None:
    for config in (FULL, replace(FULL, focal_gamma=0.5, gamma_positive=0.5, gamma_negative=0.5, margin=0.0)):
        loss = make_loss(replace(config, name=name), balance, torch.tensor([5, 0, 2]))  # type: ignore[arg-type]
        logits = torch.tensor([[200.0, -200.0, 0.0], [-200.0, 200.0, 200.0]], dtype=torch.bfloat16, requires_grad=True)
        value = loss(logits, torch.tensor([[1.0, 0.0, 0.0], [0.9, 0.1, 0.0]]))
        (slope,) = torch.autograd.grad(value, logits)
        assert value.dtype == torch.float32 and math.isfinite(float(value.detach()))
        assert bool(slope.isfinite().all())


@pytest.mark.parametrize("name", NAMES)
def test_a_softmax_of_the_logits_says_probabilities_that_hold_whatever_loss_they_were_trained_with(name: str) -> None:
    """Calibration and prediction take a softmax of the logits, also where training took a sigmoid of each."""
    source = read_digits().select(range(1200))
    images = torch.from_numpy(PixelStore(source, range(1200), SPEC, threads=1, max_bytes=10**8).get(np.arange(1200)))
    images, labels = images.flatten(1).float() / 255, np.array([int(sample.label) for sample in source.samples])
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    loss = make_loss(replace(FULL, name=name), "none", torch.full((10,), 40))  # type: ignore[arg-type]
    targets = torch.eye(10)[torch.from_numpy(labels[:400])] * 0.9 + 0.01
    for _ in range(150):
        optimizer.zero_grad()
        loss(model(images[:400]), targets).backward()
        optimizer.step()
    with torch.no_grad():
        logits = model(images[400:]).numpy()
    val, test, wanted = logits[:400], logits[400:], labels[800:]
    temperature = fit_temperature(val, labels[400:800]).value
    before, after = probabilities(test), probabilities(test, temperature)
    assert (after.argmax(1) == wanted).mean() > 0.85
    assert nll(after, wanted) <= nll(before, wanted) + 0.005
    assert nll(after, wanted) < 0.5
    assert abs(after.max(1).mean() - (after.argmax(1) == wanted).mean()) < 0.05
