"""Learning from a trained model instead of, or beside, the labels.

soft     the teacher's probabilities, softened by a temperature (Hinton et al. 2015, arXiv:1503.02531, section 2)
hard     the teacher's choice as a second label (Touvron et al. 2021, arXiv:2012.12877, section 4)
patient  the teacher's probabilities alone, on the very image the student sees, however it was cropped and mixed
         (Beyer et al. 2022, "Knowledge distillation: A good teacher is patient and consistent", arXiv:2106.05237)

In all three the teacher sees the student's own augmented and mixed images, so nothing of it can be computed beforehand.

Shapes: b images, c channels, (h, w) the student's pixels, k classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitreous.config.input import InputSpec
from vitreous.config.train import DistillConfig
from vitreous.errors import UsageError
from vitreous.training.losses import Loss, cross_entropy
from vitreous.training.objective import Objective

Teaching = Callable[[Tensor], Tensor]
"""The student's images (b, c, h, w) -> the teacher's logits (b, k), classes in the student's order."""

LUMA = (0.299, 0.587, 0.114)
"""Share of red, green and blue in grey, as Pillow converts (ITU-R 601-2)."""


def distil(config: DistillConfig, teach: Teaching, loss: Loss, *, apart: bool) -> Objective:
    """The objective of a student.

    config: complete; `weight` is the teacher's share of the loss, `temperature` acts on soft and patient.
    loss: of the logits against the labels. apart: whether the student has a head of its own for the teacher's answer
    (`models.layers.pool.PairedHead`). Then labels train the head that reads [CLS] and the teacher the one that reads the
    distillation token; both train the blocks, and at inference the mean of the two answers. A patient student has no
    labels, so the teacher trains both heads there. Without a second head, one head learns both.
    """
    assert config.weight is not None and config.temperature is not None and config.kind is not None
    kind, weight, temperature = config.kind, config.weight, config.temperature

    def objective(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
        with torch.no_grad():
            wisdom = teach(images)
        label, taught = model(images, apart=True) if apart else (logits := model(images), logits)
        count = targets.sum(dim=1)  # what each image counts
        if kind == "patient":
            from_teacher = divergence(taught, wisdom, temperature, count)
            return (from_teacher + divergence(label, wisdom, temperature, count)) / 2 if apart else from_teacher
        if kind == "hard":
            choice = F.one_hot(wisdom.argmax(dim=1), wisdom.shape[1]).float()
            from_teacher = cross_entropy(taught, choice * count[:, None])
        else:
            from_teacher = divergence(taught, wisdom, temperature, count)
        return (1 - weight) * loss(label, targets) + weight * from_teacher

    return objective


def divergence(student: Tensor, teacher: Tensor, temperature: float, count: Tensor) -> Tensor:
    """T^2 times KL(teacher || student) of distributions at temperature T, averaged over the images, in fp32.

    The square keeps the gradient's size whatever the temperature (arXiv:1503.02531, section 2.1).
    student, teacher: logits (b, k). count: what each image counts (b,).
    """
    ours = (student.float() / temperature).log_softmax(dim=1)
    theirs = (teacher.float() / temperature).log_softmax(dim=1)
    each = (theirs.exp() * (theirs - ours)).sum(dim=1)
    return temperature**2 * (each * count).mean()


class Teacher:
    """A trained classifier that answers for a student's images, whatever input either was made for.

    In evaluation mode and without gradients; under whatever autocast and matrix-product settings the student trains in.
    """

    def __init__(
        self, network: nn.Module, theirs: InputSpec, ours: InputSpec, order: tuple[int, ...], device: str
    ) -> None:
        """theirs, ours: input of the teacher and of the student. order: for each class of the student the teacher's output.

        Raises UsageError where images of the one cannot be made from images of the other.
        """
        self.network = network.to(device).eval().requires_grad_(False)
        self.convert = converter(ours, theirs, device)
        self._order = None if order == tuple(range(len(order))) else torch.tensor(order, device=device)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """The student's images, normalised as it takes them (b, c, h, w) -> logits (b, k) in fp32."""
        logits = self.network(self.convert(images)).float()
        return logits if self._order is None else logits[:, self._order]


def converter(ours: InputSpec, theirs: InputSpec, device: str) -> Callable[[Tensor], Tensor]:
    """From images prepared for one model to images as another takes them: levels, channels, then size.

    Raises UsageError where the bands differ other than by grey and colour, where only one of the two states a range of
    stored values, and where the exposures differ.
    """
    if bool(ours.value_range) != bool(theirs.value_range):
        with_range, without = ("student", "teacher") if ours.value_range else ("teacher", "student")
        raise UsageError(
            f"The {with_range}'s input has a range of stored values (decode), the {without}'s has none, so their images differ.",
            "Choose a teacher trained on the same kind of files.",
        )
    if ours.exposure != theirs.exposure:
        raise UsageError(
            f"The teacher sees images with exposure {theirs.exposure}, the student with {ours.exposure}, which cannot be undone.",
            f"Give the student --exposure {theirs.exposure}, or choose another teacher.",
        )
    kind = _channels(ours.channels, theirs.channels)
    # Stored values of the student's 0 and 1, and of the teacher's, where files state no range of their own.
    low, high = _limits(ours)
    bottom, top = _limits(theirs)
    scale, offset = torch.tensor(ours.std), torch.tensor(ours.mean)
    mean, deviation = torch.tensor(theirs.mean), torch.tensor(theirs.std)
    planes = {"scale": scale, "offset": offset, "low": low, "span": high - low, "bottom": bottom, "reach": top - bottom}
    planes = {
        name: value.float().view(-1, 1, 1).to(device)
        for name, value in (planes | {"mean": mean, "std": deviation}).items()
    }
    luma = torch.tensor(LUMA).view(1, 3, 1, 1).to(device)
    size = (theirs.height, theirs.width)
    same_levels = kind == "same" and (ours.mean, ours.std, ours.value_range) == (
        theirs.mean,
        theirs.std,
        theirs.value_range,
    )

    def convert(images: Tensor) -> Tensor:
        if not same_levels:
            images = images * planes["scale"] + planes["offset"]  # in [0, 1]
            if kind == "grey to colour":
                images = images.expand(-1, 3, -1, -1)
            elif kind == "colour to grey":
                images = (images * luma).sum(dim=1, keepdim=True)
            if ours.value_range != theirs.value_range:
                images = (images * planes["span"] + planes["low"] - planes["bottom"]) / planes["reach"]
                images = images.clamp(0, 1)
            images = (images - planes["mean"]) / planes["std"]
        if tuple(images.shape[2:]) != size:
            images = resized(images, size, theirs.interpolation)
        return images

    return convert


def resized(images: Tensor, size: tuple[int, int], interpolation: str) -> Tensor:
    """images (b, c, h, w) at another size, averaging over the source area when shrinking, as `inputs` does."""
    if interpolation == "nearest":
        return F.interpolate(images, size, mode="nearest-exact")
    if interpolation == "box":
        return F.interpolate(images, size, mode="area")
    mode = "bilinear" if interpolation == "bilinear" else "bicubic"  # Lanczos has no counterpart; bicubic is next to it
    return F.interpolate(images.float(), size, mode=mode, antialias=True, align_corners=False)


def _channels(ours: int, theirs: int) -> Literal["same", "grey to colour", "colour to grey"]:
    if ours == theirs:
        return "same"
    if (ours, theirs) == (1, 3):
        return "grey to colour"
    if (ours, theirs) == (3, 1):
        return "colour to grey"
    raise UsageError(
        f"The teacher takes images of {theirs} bands, the student of {ours}.",
        "Choose a teacher trained on images of the same bands, or the same --decode.bands.",
    )


def _limits(spec: InputSpec) -> tuple[Tensor, Tensor]:
    pairs = spec.value_range or ((0.0, 1.0),) * spec.channels
    low, high = torch.tensor(pairs, dtype=torch.float64).unbind(dim=1)
    return low, high
