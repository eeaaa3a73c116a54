"""Activation memory as it is: every piece of memory followed from the operation that makes it to its last reference.

What counts: all that a pass through the model allocates beyond parameters, buffers, the gradients of parameters, and the
images and labels that go in. Gradients of activations count, and so do the logits and the loss. What a kernel takes and
gives back within one operation does not: it is not PyTorch's to see, and small beside the rest (on a GPU, where the
allocator is asked, it does count).

`measure` follows a real pass. `count` follows the same pass on tensors that have a size, a layout and a device but no data,
so it is the same number in a second, for models of any size.
"""

from __future__ import annotations

import contextlib
import copy
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vitreous.models.cnn import ConvNet
from vitreous.models.layers.fused_cpu import plain_block
from vitreous.models.vit import VisionTransformer

Setting = Callable[[], AbstractContextManager[object]]
"""Makes what is entered around some passes."""


@dataclass(frozen=True)
class ActivationMemory:
    """Bytes of activations, for one batch."""

    inference: int
    """The most at any moment of a forward pass without gradients."""
    training: int
    """The most at any moment of a forward and backward pass with the cross-entropy loss."""
    training_checkpointed: int | None
    """The same with each block recomputed in the backward pass; None for a model that cannot do so."""
    saved: int
    """Held between forward and backward: what autograd keeps."""
    saved_checkpointed: int | None
    """The same with each block recomputed."""


class _Diary(TorchDispatchMode):
    """Writes down when each storage begins and when its last reference goes."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        """known: tensors whose memory is not to be written down."""
        super().__init__()
        self.entries: list[tuple[int, int]] = []
        """(number of the storage, bytes that begin, or with a minus end)."""
        self._alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self._numbers = {id(tensor.untyped_storage()): -1 for tensor in known}
        # A storage is known by the identity of its Python object, which torch keeps for as long as the storage lives.
        self._known = [tensor.untyped_storage() for tensor in known]

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._see(leaf.untyped_storage())
        return result

    def number(self, tensor: Tensor) -> int:
        """The number of the storage below a tensor that is alive."""
        return self._numbers.get(id(tensor.untyped_storage()), -1)

    def live(self, without: Iterable[int] = ()) -> int:
        """Bytes alive now."""
        left_out = set(without)
        return sum(size for number, size in self.entries if number not in left_out)

    def peak(self, without: Iterable[int] = ()) -> int:
        """The most bytes that were alive at once."""
        left_out, now, most = set(without), 0, 0
        for number, size in self.entries:
            if number not in left_out:
                now += size
                most = max(most, now)
        return most

    def _see(self, storage: torch.UntypedStorage) -> None:
        key = id(storage)
        if key in self._numbers:
            return
        number, size = len(self.entries), storage.nbytes()
        self._numbers[key] = number
        self._alive[key] = weakref.ref(storage, partial(self._end, key, number, size))
        self.entries.append((number, size))

    def _end(self, key: int, number: int, size: int, _: object) -> None:
        self.entries.append((number, -size))
        del self._numbers[key], self._alive[key]


def measure(model: nn.Module, images: Tensor, training: Setting = contextlib.nullcontext) -> ActivationMemory:
    """The activation memory of real passes over images (b, c, h, w) on the model's device.

    Blocks compute as they are written: the hand-written ones of training on a CPU keep other tensors.

    training: entered for the training passes, where those compute in another way than inference. On CUDA the allocator is asked, whose blocks are multiples of 512 bytes, and a parameter's gradient counts for the
    moment before it is added to the one that is there. The model is left as it was: mode, gradients and buffers.
    """
    devices = [images.device] if images.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), _left_as_it_was(model), plain_block():
        if images.device.type == "cuda":
            return _both_ways(model, images, _ask_allocator, _train_and_ask, training)
        return _both_ways(model, images, _follow, _train_and_follow, training)


def count(
    model: nn.Module,
    shape: tuple[int, int, int],
    batch: int,
    device: str = "cpu",
    training: Setting = contextlib.nullcontext,
) -> ActivationMemory:
    """The same from sizes alone, for images (channels, height, width) and a model as it would be on a device of this machine.

    The model may itself be on any device, the one without data (`meta`) included; it is not touched.
    """
    with FakeTensorMode():
        # Copied with its tensors replaced by empty ones, so that no weights are doubled.
        twins: dict[int, Any] = {
            id(parameter): nn.Parameter(_empty(parameter, device), requires_grad=parameter.requires_grad)
            for parameter in model.parameters()
        }
        twins |= {id(buffer): _empty(buffer, device) for buffer in model.buffers()}
        twin = copy.deepcopy(model, twins)
        dtype = next(model.parameters()).dtype
        images = torch.empty(batch, *shape, device=device, dtype=dtype)
        return _both_ways(twin, images, _follow, _train_and_follow, training)


def _empty(tensor: Tensor, device: str) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=device)


def _both_ways(
    model: nn.Module,
    images: Tensor,
    infer: Callable[[nn.Module, Tensor], int],
    train: Callable[[nn.Module, Tensor], tuple[int, int]],
    setting: Setting,
) -> ActivationMemory:
    with torch.no_grad():
        inference = infer(model.eval(), images)
    model.train()
    with setting():
        saved, training = train(model, images)
        with checkpointing(model) as possible:
            recomputed = train(model, images) if possible else (None, None)
    return ActivationMemory(inference, training, recomputed[1], saved, recomputed[0])


def _follow(model: nn.Module, images: Tensor) -> int:
    with _Diary([*model.parameters(), *model.buffers(), images]) as diary:
        model(images)
    return diary.peak()


def _train_and_follow(model: nn.Module, images: Tensor) -> tuple[int, int]:
    """Bytes held after the forward pass, and the most at any moment until the end of the backward pass."""
    labels = _labels(images)
    model.zero_grad(set_to_none=True)
    with _Diary([*model.parameters(), *model.buffers(), images, labels]) as diary:
        loss = F.cross_entropy(model(images), labels)
        saved = diary.live()
        loss.backward()
        del loss
    gradients = {diary.number(parameter.grad) for parameter in model.parameters() if parameter.grad is not None}
    peak = diary.peak(without=gradients)
    model.zero_grad(set_to_none=True)
    return saved, peak


def _ask_allocator(model: nn.Module, images: Tensor) -> int:
    model(images)  # libraries take their workspaces with the first call, and keep them
    torch.cuda.synchronize(images.device)
    torch.cuda.reset_peak_memory_stats(images.device)
    before = torch.cuda.memory_allocated(images.device)
    model(images)
    torch.cuda.synchronize(images.device)
    return torch.cuda.max_memory_allocated(images.device) - before


def _train_and_ask(model: nn.Module, images: Tensor) -> tuple[int, int]:
    labels = _labels(images)
    F.cross_entropy(model(images), labels).backward()  # workspaces, and gradients for the next to be added to
    torch.cuda.synchronize(images.device)
    torch.cuda.reset_peak_memory_stats(images.device)
    before = torch.cuda.memory_allocated(images.device)
    loss = F.cross_entropy(model(images), labels)
    saved = torch.cuda.memory_allocated(images.device) - before
    loss.backward()
    torch.cuda.synchronize(images.device)
    return saved, torch.cuda.max_memory_allocated(images.device) - before


def _labels(images: Tensor) -> Tensor:
    return torch.zeros(len(images), dtype=torch.long, device=images.device)


@contextlib.contextmanager
def _left_as_it_was(model: nn.Module) -> Iterator[None]:
    training = {module: module.training for module in model.modules()}
    gradients = {parameter: parameter.grad for parameter in model.parameters()}
    # Batch normalisation moves its averages with every training pass.
    buffers = {buffer: buffer.clone() for buffer in model.buffers()}
    for parameter in gradients:
        parameter.grad = None
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode
        for parameter, gradient in gradients.items():
            parameter.grad = gradient
        with torch.no_grad():
            for buffer, value in buffers.items():
                buffer.copy_(value)


def set_checkpointing(model: nn.Module, on: bool) -> bool:
    """Let the model recompute its blocks in the backward pass from now on, or stop it; False where it cannot."""
    if isinstance(model, VisionTransformer):
        model.checkpointing = on
        return True
    if isinstance(model, ConvNet) and hasattr(model.body, "set_grad_checkpointing"):
        try:
            model.body.set_grad_checkpointing(on)
        except (AssertionError, NotImplementedError, RuntimeError):  # how timm says that a family has none
            return False
        return True
    return False


@contextlib.contextmanager
def checkpointing(model: nn.Module) -> Iterator[bool]:
    """Inside the block the model recomputes its blocks in the backward pass; yields whether it can."""
    before = isinstance(model, VisionTransformer) and model.checkpointing
    able = set_checkpointing(model, True)
    try:
        yield able
    finally:
        if able:
            set_checkpointing(model, before)
