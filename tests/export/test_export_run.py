"""An export is written whole and proven, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from vitreous.config.input import InputSpec
from vitreous.engines import Outputs, load_engine
from vitreous.errors import GateError, MissingExtraError, UsageError
from vitreous.export import EXPORTERS, export_run, onnx
from vitreous.export import export as module
from vitreous.runs import RunFolder
from vitreous.runs.atomic import sha256_file

MakeRun = Callable[..., RunFolder]


def content(folder: Path) -> dict[str, str]:
    """Every file below a folder with its sha256, and every folder."""
    entries = sorted(folder.rglob("*"))
    return {str(entry.relative_to(folder)): sha256_file(entry) if entry.is_file() else "" for entry in entries}


class Corrupt:
    """The exported engine with one logit wrong."""

    name = "onnxruntime"

    def __init__(self, path: Path) -> None:
        self.inner = _engine(path)

    def predict(self, batch: np.ndarray) -> Outputs:
        found = self.inner.predict(batch)
        logits = found.logits.copy()
        logits[-1, 0] += 0.01
        return Outputs(logits, found.features)


_engine = module.OnnxRuntimeEngine
_written: dict[str, bytes] = {}


@pytest.fixture(autouse=True)
def export_each_model_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exporter takes seconds and has tests of its own; here equal weights get the file it wrote the first time."""
    real = onnx.export_onnx

    def export(model: nn.Module, spec: InputSpec, path: Path, metadata: Mapping[str, str]) -> None:
        key = json.dumps(dict(metadata))
        if key not in _written:
            real(model, spec, path, metadata)
            _written[key] = path.read_bytes()
        path.write_bytes(_written[key])

    monkeypatch.setattr(onnx, "export_onnx", export)


def test_the_run_vouches_for_its_export_and_auto_uses_it(make_run: MakeRun) -> None:
    run = make_run()
    result = export_run(run, "onnx")
    folder = run.path / "exports" / "onnx"
    assert result.files == (folder / "model.onnx", folder / "parity.json") and not result.reused
    opened = RunFolder.open(run.path)
    assert opened.facts == result.run.facts
    assert opened.export_file("onnx") == folder / "model.onnx"
    assert opened.facts["files"]["exports/onnx/model.onnx"] == sha256_file(folder / "model.onnx")
    assert opened.facts["exports"]["onnx"]["parity"] == result.parity.to_dict()
    assert load_engine(opened).name == "onnxruntime"
    proof = json.loads((folder / "parity.json").read_text())
    assert proof["sha256"] == sha256_file(folder / "model.onnx") and proof["parity"]["passed"]
    assert sorted(path.name for path in folder.parent.iterdir()) == ["onnx"]


def test_a_second_export_of_the_same_weights_is_the_first(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run()
    first = export_run(run, "onnx")
    before = content(run.path)
    monkeypatch.setattr(module, "prove", lambda *args, **kwargs: pytest.fail("exported again"))
    second = export_run(run, "onnx")
    assert second.reused and second.files == first.files and second.parity == first.parity
    assert content(run.path) == before


def test_an_export_in_the_way_is_not_overwritten_unasked(make_run: MakeRun, tmp_path: Path) -> None:
    out = tmp_path / "shipped"
    export_run(make_run(), "onnx", out=out)
    other = make_run(name="other", seed=1)
    before = content(out)
    with pytest.raises(UsageError, match=r"another model's.*--overwrite"):
        export_run(other, "onnx", out=out)
    assert content(out) == before
    export_run(other, "onnx", out=out, overwrite=True)
    assert json.loads((out / "parity.json").read_text())["version"] == other.version


def test_a_damaged_export_is_said_and_can_be_written_again(make_run: MakeRun) -> None:
    run = export_run(make_run(), "onnx").run
    file = run.path / "exports" / "onnx" / "model.onnx"
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(UsageError, match=r"not as its proof.*--overwrite"):
        export_run(run, "onnx")
    assert not export_run(run, "onnx", overwrite=True).reused
    RunFolder.open(run.path)


def test_with_out_the_run_stays_as_it_is(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    before = content(run.path)
    result = export_run(run, "onnx", out=tmp_path / "some" / "where")
    assert result.files[0] == tmp_path / "some" / "where" / "model.onnx" and result.files[0].is_file()
    assert content(run.path) == before
    assert export_run(run, "onnx", out=tmp_path / "some" / "where").reused


@pytest.mark.parametrize("elsewhere", [False, True])
def test_an_export_that_disagrees_is_refused_with_nothing_left_behind(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: bool
) -> None:
    run = make_run()
    before = content(tmp_path)
    monkeypatch.setattr(module, "OnnxRuntimeEngine", Corrupt)
    with pytest.raises(GateError, match="disagrees") as caught:
        export_run(run, "onnx", out=tmp_path / "some" / "where" if elsewhere else None)
    assert caught.value.exit_code == 3
    assert content(tmp_path) == before


def test_a_refused_export_leaves_the_earlier_one_in_use(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = export_run(make_run(), "onnx").run
    before = content(run.path)
    monkeypatch.setattr(module, "OnnxRuntimeEngine", Corrupt)
    with pytest.raises(GateError):
        export_run(run, "onnx", overwrite=True)
    assert content(run.path) == before


def test_a_crash_while_replacing_leaves_a_run_that_opens(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = export_run(make_run(), "onnx").run
    model = run.path / "exports" / "onnx" / "model.onnx"

    def crash(workspace: Path, folder: Path) -> Any:
        model.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_move", crash)
    with pytest.raises(KeyboardInterrupt):
        export_run(run, "onnx", overwrite=True)
    monkeypatch.undo()
    opened = RunFolder.open(run.path)
    assert opened.export_file("onnx") is None
    export_run(opened, "onnx", overwrite=True)
    assert RunFolder.open(run.path).export_file("onnx") == model


def test_an_unknown_format_names_the_nearest(make_run: MakeRun) -> None:
    run = make_run()
    with pytest.raises(UsageError, match=r"'onxn'.*'onnx'"):
        export_run(run, "onxn")
    assert "onnx" in EXPORTERS


@pytest.mark.parametrize(("package", "extra"), [("onnx", "export"), ("onnxscript", "export"), ("torch", "train")])
def test_a_missing_package_is_named_before_any_work(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, package: str, extra: str
) -> None:
    run = make_run()
    import importlib.util

    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *rest: None if name == package else find_spec(name, *rest)
    )
    before = content(run.path)
    with pytest.raises(MissingExtraError, match=rf"{package}.*vitreous\[{extra}\]"):
        export_run(run, "onnx")
    assert content(run.path) == before
