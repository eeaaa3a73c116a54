"""What learns: the whole model, small matrices beside it, or the head alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitreous.config.lora import LoraConfig
from vitreous.config.train import Method
from vitreous.errors import UsageError
from vitreous.models.head import head_of
from vitreous.models.lora import LoraLinear, add_lora
from vitreous.models.vit import VisionTransformer
from vitreous.training.objective import Objective


@dataclass(frozen=True)
class Learning:
    """How much of a model learns."""

    learning: int
    """Parameters that do."""
    parameters: int
    """All there are, adapters included."""
    adapters: int
    """Layers with an adapter."""

    def __str__(self) -> str:
        share = self.learning / self.parameters
        # AdamW keeps a gradient and two averages, all in fp32, for each number that learns.
        spared = 12 * (self.parameters - self.learning)
        beside = f" (with adapters on {self.adapters} layers)" if self.adapters else ""
        return (
            f"{self.learning:,} of {self.parameters:,} parameters learn, {share:.2%}{beside}; "
            f"gradients and optimiser state take {12 * self.learning / 1e6:,.1f} MB, {spared / 1e6:,.1f} MB less than for all"
        )


def settle_learning(model: nn.Module, method: Method, lora: LoraConfig, seed: int) -> Learning:
    """Freeze, in place, what `method` leaves as it is, and add the adapters of `lora`.

    seed: of the adapters' random matrices. Raises UsageError for adapters on a convolutional model.
    """
    adapters = 0
    if method in ("head", "probe", "lora"):
        model.requires_grad_(False)
        head_of(model).requires_grad_(True)
    if method == "lora":
        if not isinstance(model, VisionTransformer):
            raise UsageError(
                "--method lora adapts the linear layers of a Vision Transformer, and this model is convolutional.",
                "Use --method head or --method full, or a --model whose name begins with vit_.",
            )
        assert lora.rank is not None and lora.alpha is not None
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            adapters = add_lora(model, lora.rank, lora.alpha, lora.dropout or 0.0)
        for module in model.modules():
            if isinstance(module, LoraLinear):
                module.down.requires_grad_(True)
                module.up.requires_grad_(True)
    counts = [(each.numel(), each.requires_grad) for each in model.parameters()]
    return Learning(sum(size for size, learns in counts if learns), sum(size for size, _ in counts), adapters)


def head_only(objective: Objective) -> Objective:
    """The objective with the body in evaluation mode, which the loop would put into training: no stochastic depth, running
    statistics as they were, dropout before the head alone. Frozen weights keep no activations for a backward pass.
    """

    def frozen(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
        # The outermost module stays in training: it drops what the head reads, and lets a ViT take images of other sizes.
        body = getattr(model, "body", model)
        for name, part in body.named_children():
            part.train(name == "head_dropout")
        head_of(model).train()
        return objective(model, images, targets)

    return frozen
