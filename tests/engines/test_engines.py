from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from vitreous.engines import ENGINES, load_engine, select
from vitreous.engines.cpu import SWITCH, cpu_path
from vitreous.engines.onnxruntime import OnnxRuntimeEngine, available_cores
from vitreous.errors import MissingExtraError, RunError, UsageError
from vitreous.models.load import load_model
from vitreous.runs import RunFolder
from vitreous.runs.folder import MODEL


def batch(count: int) -> np.ndarray:
    return np.random.default_rng(count).normal(size=(count, 3, 16, 16)).astype(np.float32)


@pytest.fixture(autouse=True)
def usual_precision() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_eager_and_onnxruntime_agree(exported_run: RunFolder, count: int) -> None:
    images = batch(count)
    eager, other = (load_engine(exported_run, name).predict(images) for name in ("eager", "onnxruntime"))
    assert eager.logits.shape == (count, 3)
    assert eager.features.shape == (count, 128)
    assert eager.logits.std() > 0.05
    for ours, theirs in ((eager.logits, other.logits), (eager.features, other.features)):
        assert ours.dtype == theirs.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", [*ENGINES])
def test_every_engine_gives_the_models_own_numbers(exported_run: RunFolder, name: str) -> None:
    images = batch(3)
    with torch.no_grad():
        expected = load_model(exported_run)(torch.from_numpy(images)).numpy()
    found = load_engine(exported_run, name, threads=1).predict(images).logits
    np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max() if "bf16" in name else 2e-5)


def test_eager_is_the_model_as_a_script_would_run_it_to_the_bit(exported_run: RunFolder) -> None:
    images = batch(3)
    with torch.inference_mode():
        expected = load_model(exported_run)(torch.from_numpy(images)).numpy()
    np.testing.assert_array_equal(load_engine(exported_run, "eager").predict(images).logits, expected)


@pytest.mark.parametrize("name", [*ENGINES])
def test_engines_take_arrays_however_they_lie_in_memory(exported_run: RunFolder, name: str) -> None:
    engine, images = load_engine(exported_run, name), batch(4)
    strided = np.ascontiguousarray(images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert not strided.flags.c_contiguous
    np.testing.assert_array_equal(engine.predict(strided).logits, engine.predict(images).logits)


@pytest.mark.parametrize("name", [*ENGINES])
def test_an_image_is_answered_the_same_alone_and_among_others(exported_run: RunFolder, name: str) -> None:
    engine, images = load_engine(exported_run, name), batch(5)
    together = engine.predict(images).logits
    alone = np.concatenate([engine.predict(images[index : index + 1]).logits for index in range(5)])
    np.testing.assert_allclose(alone, together, atol=0.05 * np.abs(together).max() if "bf16" in name else 2e-5)


def test_auto_takes_the_export_where_there_is_one(exported_run: RunFolder, plain_run: RunFolder) -> None:
    assert load_engine(exported_run).name == "onnxruntime"
    assert load_engine(plain_run).name != "onnxruntime"


def test_auto_without_an_export_is_packed_where_the_processor_calls_for_it(
    plain_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SWITCH, raising=False)
    assert load_engine(plain_run).name == ("packed" if cpu_path().fast else "eager")
    monkeypatch.setenv(SWITCH, "plain")
    assert load_engine(plain_run).name == "eager"


def test_an_unknown_engine_is_answered_with_the_nearest(plain_run: RunFolder) -> None:
    with pytest.raises(UsageError, match="Unknown engine 'onnxruntme'") as caught:
        load_engine(plain_run, "onnxruntme")
    assert "'onnxruntime'" in caught.value.hint


def test_a_run_without_an_export_says_how_to_make_one(plain_run: RunFolder) -> None:
    with pytest.raises(RunError, match="has no ONNX export") as caught:
        load_engine(plain_run, "onnxruntime")
    assert "--format onnx" in caught.value.hint


def test_without_torch_eager_names_its_extra_and_auto_the_export(
    plain_run: RunFolder, exported_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(select, "_has_torch", lambda: False)
    for name, words in (("eager", "eager engine"), ("packed", "packed engine"), ("packed-bf16", "packed engine")):
        with pytest.raises(MissingExtraError, match=f"{words} needs the package 'torch'"):
            load_engine(plain_run, name)
    with pytest.raises(RunError, match="has no ONNX export"):
        load_engine(plain_run)
    assert load_engine(exported_run).name == "onnxruntime"


def test_a_damaged_export_is_a_run_error(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(RunError, match=r"'model\.onnx' cannot be loaded") as caught:
        OnnxRuntimeEngine(tmp_path / "model.onnx")
    assert "vitreous export" in caught.value.hint


def test_weights_that_do_not_fit_the_architecture_are_a_run_error(exported_run: RunFolder) -> None:
    facts = exported_run.facts
    arguments = {**facts["architecture"]["arguments"], "depth": 3}
    run = RunFolder(exported_run.path, {**facts, "architecture": {**facts["architecture"], "arguments": arguments}})
    with pytest.raises(RunError, match=r"weights of the run .* cannot be loaded"):
        load_model(run)


def test_damaged_weights_are_a_run_error(exported_run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / MODEL).write_bytes(b"\x08\0\0\0\0\0\0\0")
    with pytest.raises(RunError, match="cannot be loaded"):
        load_model(RunFolder(tmp_path, exported_run.facts))


@pytest.mark.parametrize("name", [*ENGINES])
def test_predicting_leaves_the_precision_as_it_was(exported_run: RunFolder, name: str) -> None:
    torch.set_float32_matmul_precision("highest")
    load_engine(exported_run, name).predict(batch(1))
    assert torch.get_float32_matmul_precision() == "highest"


def test_there_is_at_least_one_core() -> None:
    assert available_cores() >= 1


# What may not be loaded

LIGHT = """
import logging, os, sys
environment, handlers = dict(os.environ), list(logging.getLogger().handlers)
import vitreous
import vitreous.config, vitreous.engines, vitreous.inputs, vitreous.runs, vitreous.runs.create, vitreous.runs.atomic
import vitreous.config.train, vitreous.config.convert, vitreous.recipes
assert dict(os.environ) == environment and logging.getLogger().handlers == handlers
from vitreous.cli import main
assert main(["--help"]) == 0
def loaded(*names):
    return sorted(name for name in sys.modules if name.split(".")[0] in names)
print("HELP", loaded("torch", "timm", "torchvision", "tyro", "fastapi", "sklearn", "scipy", "matplotlib", "pandas"))
import vitreous.serving
print("SERVE", loaded("torch", "timm", "torchvision", "tyro", "sklearn", "scipy", "matplotlib"))
"""


def test_importing_helping_and_serving_load_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LIGHT], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "HELP []" in done.stdout
    assert "SERVE []" in done.stdout
    assert re.search(r"^\s+train\b", done.stdout, re.MULTILINE)


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # importing it now fails
import numpy as np
from vitreous.engines import load_engine
from vitreous.runs import RunFolder
outputs = load_engine(RunFolder.open(sys.argv[1]), "onnxruntime").predict(np.zeros((2, 3, 16, 16), np.float32))
print(outputs.logits.shape, outputs.features.shape)
"""


def test_an_exported_model_runs_where_torch_cannot_be_imported(exported_run: RunFolder) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_TORCH, str(exported_run.path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(2, 3) (2, 128)"
