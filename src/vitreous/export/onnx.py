"""A module as one ONNX file: input `images`, outputs `logits` and `features`, any batch size."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from vitreous.config.input import InputSpec

LARGEST_SINGLE_FILE = 1_900_000_000
"""Bytes of weights that fit beside the graph: a protocol buffer may hold at most 2 GiB."""


class _WithFeatures(nn.Module):
    """A classifier that returns what its head reads as well as what it says."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images (b, c, h, w) -> logits (b, k), features (b, d)."""
        features = self.model.pool(self.model.forward_features(images))  # type: ignore[operator]
        return self.model.head(features), features  # type: ignore[operator]


def export_onnx(model: nn.Module, spec: InputSpec, path: Path, metadata: Mapping[str, str]) -> None:
    """Write `model` (put into evaluation mode) with `metadata` among its properties.

    Weights lie inside the file below 2 GB, and beside it in `<name>.data` above.
    """
    device = next(model.parameters()).device
    # Traced with two images: a batch of one would be built into the graph as a constant (pytorch#148886).
    images = torch.zeros(2, *spec.shape, device=device)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            _WithFeatures(model).eval(),
            (images,),
            dynamo=True,
            input_names=["images"],
            output_names=["logits", "features"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            verbose=False,
        )
    assert program is not None  # only the older exporter returns None
    program.model.metadata_props.update(metadata)
    size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    with _quiet():
        program.save(str(path), external_data=size > LARGEST_SINGLE_FILE)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of its own parts' future and reports progress; none of it is for the user."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
