"""A run folder around a small model with random weights, and its ONNX export made once."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from vitreous.config.input import InputSpec
from vitreous.export.onnx import export_onnx
from vitreous.models import architecture, build
from vitreous.runs import RunFolder
from vitreous.runs.atomic import sha256_file

torch.set_num_threads(1)
SPEC = InputSpec(height=16, width=16, classes=("cat", "dog", "fox"))


@pytest.fixture(scope="session")
def exported_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Read only."""
    torch.manual_seed(0)
    found = architecture("vit_micro", num_classes=3, image_size=16, depth=2)
    model = build(found).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("run")
    save_file(dict(model.state_dict()), folder / "model.safetensors")
    export_onnx(model, SPEC, folder / "model.onnx", {})
    facts = {
        "schema_version": 1,
        "status": "complete",
        "architecture": found.to_dict(),
        "input": SPEC.to_dict(),
        "exports": {"onnx": {"file": "model.onnx"}},
        "files": {name: sha256_file(folder / name) for name in ("model.safetensors", "model.onnx")},
    }
    (folder / "run.json").write_text(json.dumps(facts))
    return RunFolder.open(folder)


@pytest.fixture(scope="session")
def plain_run(exported_run: RunFolder) -> RunFolder:
    """The same run as if it had never been exported."""
    return RunFolder(exported_run.path, {**exported_run.facts, "exports": {}})
