from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from vitreous.config.input import InputSpec
from vitreous.config.train import DistillConfig
from vitreous.errors import UsageError
from vitreous.inputs import normalise, prepare, to_pixels
from vitreous.models import VisionTransformer
from vitreous.training.distillation import Teacher, converter, distil, divergence
from vitreous.training.losses import cross_entropy

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(6, 4, generator=GENERATOR)
WISDOM = 2 * torch.randn(6, 4, generator=GENERATOR)
TARGETS = F.one_hot(torch.tensor([0, 1, 2, 3, 0, 1]), 4).float()


class Fixed(nn.Module):
    """Answers the same logits whatever it sees; of a distilled model, two sets of them."""

    def __init__(self) -> None:
        super().__init__()
        self.label, self.teacher = nn.Parameter(LOGITS.clone()), nn.Parameter(LOGITS.flip(0).clone())

    def forward(self, images: Tensor, apart: bool = False) -> Any:
        return (self.label, self.teacher) if apart else self.label


def loss_of(kind: Any, weight: float = 0.3, temperature: float = 2.0, apart: bool = False) -> tuple[Tensor, Fixed]:
    config = DistillConfig(teacher="runs/big", kind=kind, weight=weight, temperature=temperature)
    model = Fixed()
    loss = distil(config, lambda images: WISDOM, cross_entropy, apart=apart)(model, torch.zeros(6, 1, 2, 2), TARGETS)
    loss.backward()
    return loss.detach(), model


def test_the_divergence_is_that_of_torch_times_the_square_of_the_temperature() -> None:
    for temperature in (1.0, 4.0):
        wanted = F.kl_div(
            F.log_softmax(LOGITS / temperature, dim=1), F.softmax(WISDOM / temperature, dim=1), reduction="batchmean"
        )
        found = divergence(LOGITS, WISDOM, temperature, torch.ones(6))
        assert torch.isclose(found, temperature**2 * wanted, rtol=1e-5)
    assert float(divergence(WISDOM, WISDOM + 3.0, 2.0, torch.ones(6))) == pytest.approx(0.0, abs=1e-6)


def test_images_without_weight_teach_nothing() -> None:
    count = torch.tensor([3.0, 0, 0, 0, 0, 0])
    assert torch.isclose(
        divergence(LOGITS, WISDOM, 1.0, count), divergence(LOGITS[:1], WISDOM[:1], 1.0, torch.ones(1)) / 2
    )


def test_soft_distillation_weighs_labels_and_teacher() -> None:
    kl, ce = divergence(LOGITS, WISDOM, 2.0, torch.ones(6)), cross_entropy(LOGITS, TARGETS)
    assert torch.isclose(loss_of("soft")[0], 0.7 * ce + 0.3 * kl)


def test_hard_distillation_learns_the_teachers_choice() -> None:
    wanted = 0.7 * cross_entropy(LOGITS, TARGETS) + 0.3 * F.cross_entropy(LOGITS, WISDOM.argmax(dim=1))
    assert torch.isclose(loss_of("hard")[0], wanted)


def test_a_patient_student_sees_no_label() -> None:
    found, _ = loss_of("patient", weight=1.0)
    assert torch.isclose(found, divergence(LOGITS, WISDOM, 2.0, torch.ones(6)))


@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_each_head_of_a_distilled_model_learns_from_its_own_teacher(kind: Any) -> None:
    _, taught = loss_of(kind, weight=1.0, apart=True)
    assert taught.label.grad is None or not taught.label.grad.any()
    assert taught.teacher.grad is not None and taught.teacher.grad.any()
    _, labelled = loss_of(kind, weight=0.0, apart=True)
    assert labelled.label.grad is not None and labelled.label.grad.any()
    assert labelled.teacher.grad is None or not labelled.teacher.grad.any()


def test_a_patient_teacher_trains_both_heads() -> None:
    _, model = loss_of("patient", weight=1.0, apart=True)
    assert model.label.grad is not None and model.label.grad.any()
    assert model.teacher.grad is not None and model.teacher.grad.any()


def test_a_distilled_vision_transformer_answers_for_both_tokens_and_their_mean() -> None:
    torch.manual_seed(0)
    model = VisionTransformer(
        image_size=8, patch_size=4, num_classes=3, embed_dim=16, depth=1, num_heads=2, distillation_token=True
    ).eval()
    for parameter in model.head.parameters():
        nn.init.normal_(parameter)
    images = torch.randn(2, 3, 8, 8)
    label, teacher = model(images, apart=True)
    assert not torch.allclose(label, teacher)
    assert torch.allclose((label + teacher) / 2, model(images))


SPEC = InputSpec(height=32, width=32, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25), classes=("a", "b", "c"))


def photograph() -> Image.Image:
    """A smooth picture, so that two ways of resizing agree."""
    y, x = np.mgrid[0:64, 0:64] / 64
    planes = [np.sin(3 * x + 2 * y), np.cos(4 * y - x), np.sin(5 * x * y + 1)]
    return Image.fromarray(np.stack([(plane * 0.4 + 0.5) * 255 for plane in planes], axis=2).astype(np.uint8))


def seen_by(spec: InputSpec) -> Tensor:
    return torch.from_numpy(prepare(photograph(), spec))[None]


THEIRS = {
    "another mean and deviation": replace(SPEC, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7)),
    "smaller": replace(SPEC, height=16, width=16),
    "larger": replace(SPEC, height=48, width=48, interpolation="bicubic"),
    "16 bits": replace(SPEC, bit_depth=16),
    "grey": replace(SPEC, channels=1, mean=(0.45,), std=(0.3,)),
    "all at once": replace(
        SPEC, height=24, width=24, channels=1, mean=(0.45,), std=(0.3,), bit_depth=16, interpolation="lanczos"
    ),
}


@pytest.mark.parametrize("theirs", THEIRS.values(), ids=THEIRS)
def test_a_teacher_sees_what_its_own_run_would_see(theirs: InputSpec) -> None:
    found, wanted = converter(SPEC, theirs, "cpu")(seen_by(SPEC)), seen_by(theirs)
    assert found.shape == wanted.shape
    tolerance = 1.5 / 255 / min(theirs.std)  # of a grey level and a half, from rounding to whole ones twice
    inside = (slice(None), slice(None), slice(2, -2), slice(2, -2))
    assert (found - wanted)[inside].abs().max() < tolerance * (1 if theirs.height == 32 else 3)


def test_a_teacher_of_the_same_input_sees_the_very_same_numbers() -> None:
    images = seen_by(SPEC)
    assert converter(SPEC, replace(SPEC, classes=("x",)), "cpu")(images) is images


def test_a_colour_teacher_sees_a_grey_students_images_as_grey() -> None:
    ours = replace(SPEC, channels=1, mean=(0.3,), std=(0.4,))
    pixels = to_pixels(photograph().convert("L"), ours)
    wanted = normalise(np.repeat(pixels, 3, axis=2), SPEC)
    found = converter(ours, SPEC, "cpu")(torch.from_numpy(normalise(pixels, ours))[None])
    assert np.allclose(found[0].numpy(), wanted, atol=1e-5)


def test_a_range_of_stored_values_is_carried_over() -> None:
    ours = replace(SPEC, channels=1, mean=(0.0,), std=(1.0,), value_range=((0.0, 100.0),))
    theirs = replace(ours, mean=(0.5,), std=(0.5,), value_range=((-100.0, 300.0),))
    found = converter(ours, theirs, "cpu")(torch.full((1, 1, 32, 32), 0.5))  # the stored value 50
    assert torch.allclose(found, torch.full((1, 1, 32, 32), (150 / 400 - 0.5) / 0.5))
    with pytest.raises(UsageError, match="range of stored values"):
        converter(ours, replace(theirs, value_range=()), "cpu")


def test_bands_that_cannot_be_made_from_each_other_are_refused() -> None:
    with pytest.raises(UsageError, match="takes images of 5 bands"):
        converter(SPEC, replace(SPEC, channels=5, mean=(0.5,) * 5, std=(0.5,) * 5), "cpu")


def test_a_teachers_classes_are_put_into_the_students_order() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3)).train()
    teacher, images = Teacher(network, SPEC, SPEC, (2, 0, 1), "cpu"), seen_by(SPEC)
    answer = teacher(images)
    assert torch.equal(answer, network(images)[:, [2, 0, 1]])
    assert not answer.requires_grad and not network.training


def test_a_student_comes_to_agree_with_its_teacher(problem: Any) -> None:
    """Teacher and student are two networks; the student learns from its answers alone and the divergence falls."""
    torch.manual_seed(5)
    last = nn.Linear(64, 10)
    nn.init.normal_(last.weight, std=0.5)
    teacher = nn.Sequential(nn.Flatten(), last)
    state = problem.state()
    state.model.eval()  # nothing is dropped, so that the loss is the divergence itself
    config = DistillConfig(teacher="it", kind="patient", weight=1.0, temperature=1.0)
    objective = distil(config, teacher, cross_entropy, apart=False)
    losses = []
    for _, images, targets in problem.batches(80).prefetch(0, 80):
        loss = objective(state.model, images, targets)
        loss.backward()
        state.optimizer.step()
        state.optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    assert all(parameter.grad is None for parameter in teacher.parameters())
