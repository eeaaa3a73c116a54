"""The module of a finished run, with its weights."""

from __future__ import annotations

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from vitreous.errors import RunError
from vitreous.models.build import Architecture, build
from vitreous.runs.folder import MODEL, RunFolder


def load_model(run: RunFolder) -> nn.Module:
    """Build the run's architecture and load its weights, in evaluation mode on the CPU.

    Raises RunError when the weights cannot be read or do not fit the architecture.
    """
    model = build(Architecture(**run.architecture))
    try:
        model.load_state_dict(load_file(run.path / MODEL))
    except (SafetensorError, RuntimeError, OSError) as error:
        raise RunError(f"The weights of the run {run.name!r} cannot be loaded: {error}") from error
    return model.eval()
