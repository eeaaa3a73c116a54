"""Every kind of model, as ONNX, says what it says in PyTorch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest

from vitreous.config.convert import from_dict
from vitreous.config.input import InputSpec
from vitreous.engines import load_engine
from vitreous.export import export_run
from vitreous.export.parity import synthetic_images
from vitreous.models import Architecture
from vitreous.runs import RunFolder

MakeRun = Callable[..., RunFolder]
GREY = {"channels": 1, "mean": (0.4,), "std": (0.3,)}


def vit(**arguments: Any) -> Architecture:
    tiny = {"image_size": [16, 16], "patch_size": [4, 4], "num_classes": 3, "embed_dim": 24, "depth": 2, "num_heads": 3}
    return Architecture("vit_test", "vit", tiny | arguments)


MODELS: dict[str, tuple[Architecture, dict[str, Any]]] = {
    "class_token_and_registers": (vit(num_registers=2), {}),
    "conv_stem_and_mean": (vit(stem="conv", pooling="mean", class_token=False), {}),
    "distillation_token": (vit(distillation_token=True, mlp="swiglu", layer_scale=0.5), {}),
    "axial_rope_and_register_grid": (
        vit(rope="axial", positions="none", num_registers=4, rope_register_theta=9.0, norm="rms", qk_norm=True),
        {},
    ),
    "mixed_rope_interleaved": (vit(rope="mixed", rope_layout="interleaved", rope_coordinates="index"), {}),
    "attention_pooling": (vit(pooling="attention", class_token=False, activation="gelu_tanh"), {}),
    "sequence_pooling_shifted_patches": (vit(pooling="sequence", class_token=False, stem="shifted"), {}),
    "parallel_block_cls_and_mean": (vit(block="parallel", pooling="cls_mean", qkv_bias="qv"), {}),
    "branched_block_sincos": (vit(block="branched", positions="sincos"), {}),
    "differential": (vit(differential=True, output_norm="pooled", sub_norm=("mlp", "attention")), {}),
    "grey_not_square": (vit(image_size=[8, 24], in_chans=1), {"height": 8, "width": 24, **GREY}),
    "cnn": (Architecture("resnet_micro", "timm", {"name": "resnet_micro", "num_classes": 3, "small_stem": True}), {}),
    "cnn_resnet10t": (
        Architecture("resnet10t", "timm", {"name": "resnet10t", "num_classes": 3}),
        {"height": 64, "width": 64},
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_export_agrees_with_eager_at_batch_1_3_and_8_and_prints_nothing(
    make_run: MakeRun, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    architecture, changes = MODELS[name]
    spec = InputSpec(**{"height": 16, "width": 16, "classes": ("a", "b", "c"), **changes})
    run = make_run(architecture, spec)
    result = export_run(run, "onnx")
    assert capfd.readouterr() == ("", "")
    assert result.parity.passed and result.parity.batches == (1, 3, 8)
    # And once more from the outside: on other images, at a batch size the proof did not try, in run order.
    eager, exported = load_engine(run, "eager"), load_engine(result.run, "onnxruntime", threads=1)
    for size in (1, 5):
        images = synthetic_images(spec, size, seed=9)
        expected, found = eager.predict(images), exported.predict(images)
        largest = max(1.0, float(np.abs(expected.features).max()))
        assert np.abs(expected.logits - found.logits).max() < 1e-4 * max(1.0, float(np.abs(expected.logits).max()))
        assert np.abs(expected.features - found.features).max() < 1e-4 * largest
        assert found.logits.std() > 0


def test_the_file_says_alone_what_it_needs(make_run: MakeRun) -> None:
    run = make_run()
    file = export_run(run, "onnx").files[0]
    assert sorted(entry.name for entry in file.parent.iterdir()) == ["model.onnx", "parity.json"]
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    assert from_dict(InputSpec, json.loads(metadata["vitreous.input"])) == run.spec
    assert json.loads(metadata["vitreous.classes"]) == ["cat", "dog", "héron"]
    assert metadata["vitreous.version"] == run.version
    assert float(metadata["vitreous.temperature"]) == 1.25
    assert [entry.name for entry in session.get_inputs()] == ["images"]
    assert session.get_inputs()[0].shape[1:] == [3, 16, 16] and isinstance(session.get_inputs()[0].shape[0], str)
    assert [entry.name for entry in session.get_outputs()] == ["logits", "features"]


def test_importing_the_room_imports_no_torch() -> None:
    code = "import sys, vitreous.export\nassert 'torch' not in sys.modules and 'onnx' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
