"""A run folder around a tiny untrained model, written as `train` would."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vitreous.config.input import InputSpec
from vitreous.models import Architecture, build
from vitreous.runs.atomic import sha256_file
from vitreous.runs.folder import RunFolder

VIT = Architecture(
    "vit_test",
    "vit",
    {"image_size": [16, 16], "patch_size": [4, 4], "num_classes": 3, "embed_dim": 24, "depth": 1, "num_heads": 3},
)
SPEC = InputSpec(height=16, width=16, classes=("cat", "dog", "héron"))


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., RunFolder]:
    def make(architecture: Architecture = VIT, spec: InputSpec = SPEC, name: str = "run", seed: int = 0) -> RunFolder:
        torch.set_num_threads(1)
        torch.manual_seed(seed)
        model = build(architecture)
        with torch.no_grad():  # a fresh head is zero, and then any export agrees
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        folder = tmp_path / name
        folder.mkdir()
        weights = folder / "model.safetensors"
        save_file(model.state_dict(), weights)
        facts = {
            "schema_version": 1,
            "status": "complete",
            "architecture": architecture.to_dict(),
            "input": spec.to_dict(),
            "calibration": {"temperature": 1.25},
            "abstention": {"threshold": 0.0},
            "files": {"model.safetensors": sha256_file(weights)},
        }
        (folder / "run.json").write_text(json.dumps(facts))
        return RunFolder.open(folder)

    return make
