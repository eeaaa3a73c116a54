"""How much memory training will take, and into how many pieces a batch has to be cut so that it fits.

For each parameter there are its weight, its average, and (where it is trained) a gradient and what the optimiser keeps; for
each image what `models.cost` says of activations, in closed form or counted on tensors without data.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from vitreous.config.optim import OptimizerName
from vitreous.config.train import Precision
from vitreous.engines.cpu import fast_matmul, medium_is_exact
from vitreous.models.cost.activations import count
from vitreous.models.cost.memory import outside_closed_form, runs_fused, vit_memory
from vitreous.models.cost.numbers import ViTNumbers
from vitreous.models.vit import VisionTransformer
from vitreous.training.memory import is_out_of_memory
from vitreous.training.objective import Objective
from vitreous.training.precision import autocast

MARGIN = 0.8
"""Share of the free memory that training may plan to take: libraries take workspaces, and allocators leave gaps."""
SENSIBLE = 8
"""Images at once below which recomputing activations costs less time than smaller pieces."""
COPIES: dict[OptimizerName, int] = {"adamw": 2, "lamb": 2, "muon": 2, "schedule-free": 3}
"""Tensors as large as a weight that an optimiser keeps for it, at most."""
_COUNTED = (2, 4)
"""Batches that are counted; what grows with the batch is the difference."""


@dataclass(frozen=True)
class Forecast:
    """Bytes that training takes on its device."""

    fixed: int
    """Whatever the batch: weights, average, gradients, optimiser; and the casts of the weights."""
    per_image: int
    """More for each image that is in the model at once."""
    per_image_recomputed: int | None
    """The same with activations recomputed in the backward pass; None for a model that cannot do so."""

    def bytes(self, images: int, *, recomputed: bool = False) -> int:
        """For so many images at once."""
        each = self.per_image_recomputed if recomputed and self.per_image_recomputed is not None else self.per_image
        return self.fixed + images * each

    def most_images(self, free: int, *, recomputed: bool = False) -> int:
        """The most images at once that leave the margin; may be 0 or less."""
        each = self.bytes(1, recomputed=recomputed) - self.fixed
        return int((MARGIN * free - self.fixed) // max(1, each))


@dataclass(frozen=True)
class Plan:
    """How a batch goes through the model."""

    micro_batch: int
    """Images at once; the whole batch where it fits."""
    recomputed: bool
    bytes: int
    """What that takes."""


def forecast(
    model: nn.Module, shape: tuple[int, int, int], precision: Precision, device: str, optimizer: OptimizerName = "adamw"
) -> Forecast:
    """The memory of training `model` on images (channels, height, width), from sizes alone.

    For a Vision Transformer of a usual kind in closed form, in which bf16 and fp16 count like fp32: an upper bound.
    """
    parameters = [(each.numel() * each.element_size(), each.requires_grad) for each in model.parameters()]
    buffers = 2 * sum(each.numel() * each.element_size() for each in model.buffers())
    each_trained = 2 + 1 + COPIES[optimizer]
    fixed = buffers + sum(size * (each_trained if trained else 2) for size, trained in parameters)
    if precision != "fp32":
        fixed += sum(size // 2 for size, _ in parameters)  # the casts of the weights, kept for the backward pass
    vit = ViTNumbers.of(model) if isinstance(model, VisionTransformer) else None
    if vit is not None and not outside_closed_form(vit):
        with fast_matmul(device == "cpu"):
            fused = runs_fused(vit, device)
        few, more = (vit_memory(vit, batch, device=device, fused_in_training=fused) for batch in _COUNTED)
    else:
        medium_is_exact()  # asked here: where passes are counted there are no numbers to compare
        setting = partial(_as_in_training, precision, device)
        few, more = (count(model, shape, batch, device, setting) for batch in _COUNTED)
    pixels = 4 * shape[0] * shape[1] * shape[2]
    each = _growth(few.training, more.training) + pixels
    recomputed = None
    if few.training_checkpointed is not None and more.training_checkpointed is not None:
        recomputed = _growth(few.training_checkpointed, more.training_checkpointed) + pixels
    return Forecast(fixed, each, recomputed)


def plan(predicted: Forecast, batch: int, free: int, *, recompute: bool | None) -> Plan:
    """The largest piece of a batch that fits into `free` bytes with a margin, and whether activations are recomputed.

    recompute: settled by hand; chosen when None, where not even `SENSIBLE` images fit otherwise. A piece is at least one
    image, whether it fits or not.
    """
    chosen = bool(recompute)
    if recompute is None and predicted.per_image_recomputed is not None:
        chosen = predicted.most_images(free) < min(SENSIBLE, batch)
    fitting = predicted.most_images(free, recomputed=chosen)
    pieces = -(-batch // max(1, min(batch, fitting)))
    micro = -(-batch // pieces)
    return Plan(micro, chosen, predicted.bytes(micro, recomputed=chosen))


def largest_piece(planned: int, batch: int, fits: Callable[[int], bool]) -> int:
    """The most images at once, of the even pieces that a batch may be cut into, for which `fits` says yes.

    planned: where to look first; a forecast is an upper bound of memory, so that more may fit, and a GPU that others use
    leaves less. 1 where nothing fits: training will then say so. Asks about twice the logarithm of the number of pieces.
    """

    def size(pieces: int) -> int:
        return -(-batch // pieces)

    pieces, too_few = -(-batch // planned), 0
    while not fits(size(pieces)):
        if size(pieces) == 1:
            return 1
        too_few, pieces = pieces, min(batch, 2 * pieces)
    while pieces - too_few > 1:
        middle = (pieces + too_few) // 2
        pieces, too_few = (middle, too_few) if fits(size(middle)) else (pieces, middle)
    return size(pieces)


def taken_by_pass(
    model: nn.Module, images: Tensor, targets: Tensor, objective: Objective, precision: Precision
) -> int | None:
    """Bytes that a forward and backward pass of these images takes on their GPU beyond weights; 0 on a CPU, which does not
    tell; None where memory runs out. `model` is left as it is."""
    trial, device = copy.deepcopy(model).train(), images.device.type
    before = 0
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    try:
        with autocast(precision, device), torch.random.fork_rng():
            objective(trial, images, targets).backward()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return None
    finally:
        trial.zero_grad(set_to_none=True)
        if device == "cuda":
            torch.cuda.empty_cache()
    return torch.cuda.max_memory_allocated() - before if device == "cuda" else 0


def _growth(few: int, more: int) -> int:
    return max(1, (more - few) // (_COUNTED[1] - _COUNTED[0]))


@contextlib.contextmanager
def _as_in_training(precision: Precision, device: str) -> Iterator[None]:
    with fast_matmul(device == "cpu"), autocast(precision, device):
        yield
