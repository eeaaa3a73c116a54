"""Comparing models: one split, one budget, paired by image."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vitreous.config.convert import from_dict
from vitreous.config.train import TrainConfig
from vitreous.errors import DataError, StoppedError, UsageError
from vitreous.runs import RunFolder
from vitreous.runs.atomic import sha256_file
from vitreous.workflows.compare import compare

MODELS = ("vit_micro", "resnet_micro")


def config_of(tiny: dict[str, Any], **changes: Any) -> TrainConfig:
    return from_dict(TrainConfig, {**tiny, "epochs": 2, **changes})


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, colors: Path, tiny: dict[str, Any]) -> Path:
    """The folder of a finished comparison. Read only."""
    out = tmp_path_factory.mktemp("compare") / "both"
    return compare(colors, MODELS, config_of(tiny, out=out)).folder


def test_all_models_see_one_split_and_one_seed(compared: Path) -> None:
    runs = [RunFolder.open(compared / name) for name in MODELS]
    assert [run.architecture["name"] for run in runs] == list(MODELS)
    assert len({run.facts["split_sha256"] for run in runs}) == 1
    assert {run.facts["test_scored"] for run in runs} == {1}
    assert {run.facts["weights"]["init"] for run in runs} == {"scratch"}


def test_the_comparison_holds_cost_intervals_and_the_paired_test(compared: Path) -> None:
    found = json.loads((compared / "comparison.json").read_text(encoding="utf-8"))
    assert [entry["name"] for entry in found["models"]] == list(MODELS)
    for entry, name in zip(found["models"], MODELS, strict=True):
        stored = json.loads((compared / name / "metrics.json").read_text(encoding="utf-8"))["test"]["accuracy"]
        assert entry["accuracy"] == stored
        assert entry["parameters"] > 0 and entry["macs"] > 0
        assert entry["train_seconds"] > 0 and entry["latency_ms"] > 0
    (pair,) = found["pairs"]
    assert pair.keys() >= {"a", "b", "difference", "mcnemar_p", "holm_p", "verdict"}
    assert (pair["a"], pair["b"]) == MODELS
    difference = found["models"][0]["accuracy"]["value"] - found["models"][1]["accuracy"]["value"]
    assert pair["difference"]["value"] == pytest.approx(difference)
    assert pair["difference"]["low"] <= difference <= pair["difference"]["high"]


def test_too_few_and_unknown_models_are_refused_before_any_work(
    call: Callable[..., Any], colors: Path, tmp_path: Path
) -> None:
    for models, said in (
        ("vit_micro,vit_micro", "at least two different models"),
        ("vit_micro,resnt18", "Unknown model 'resnt18'. Did you mean 'resnet18'"),
    ):
        done = call("compare", colors, "--models", models, "--out", tmp_path / "none")
        assert done.returncode == 2
        assert said in done.stderr
    assert not list(tmp_path.iterdir())


def test_bad_data_leaves_no_folder_behind(tiny: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        compare(tmp_path / "empty", MODELS, config_of(tiny, out=tmp_path / "deep" / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_a_stopped_comparison_resumes_where_it_was(
    compared: Path, colors: Path, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vitreous.workflows.compare import train as real

    def stopped_at_the_second(data: Any, config: TrainConfig, reporter: Any) -> RunFolder:
        if config.model == MODELS[1]:
            raise StoppedError("Stopped by SIGTERM.")
        return real(data, config, reporter)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("vitreous.workflows.compare.train", stopped_at_the_second)
        with pytest.raises(StoppedError) as caught:
            compare(colors, MODELS, config_of(tiny, out=out))
    assert caught.value.hint == (
        f"Continue with: vitreous compare {colors} --models {','.join(MODELS)} --out {out} --resume"
    )
    finished = (out / MODELS[0] / "run.json").stat().st_mtime_ns
    found = compare(colors, MODELS, config_of(tiny, out=out, resume=True))
    assert found.folder == out
    assert (out / MODELS[0] / "run.json").stat().st_mtime_ns == finished
    for name in MODELS:
        weights = [sha256_file(folder / name / "model.safetensors") for folder in (out, compared)]
        assert weights[0] == weights[1]


def test_overwrite_replaces_the_runs_of_a_comparison_and_nothing_else(
    compared: Path, colors: Path, tiny: dict[str, Any], tmp_path: Path
) -> None:
    out = Path(shutil.copytree(compared, tmp_path / "out"))
    (out / "notes.txt").write_text("mine")
    before = [sha256_file(out / name / "model.safetensors") for name in MODELS]
    found = compare(colors, MODELS, config_of(tiny, out=out, overwrite=True, seed=1))
    assert found.folder == out
    assert all(sha256_file(out / name / "model.safetensors") != old for name, old in zip(MODELS, before, strict=True))
    assert (out / "notes.txt").read_text() == "mine"
    shutil.rmtree(out / MODELS[0])
    (out / MODELS[0]).mkdir()
    (out / MODELS[0] / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match="leaves it alone"):
        compare(colors, MODELS, config_of(tiny, out=out, overwrite=True))
    assert (out / MODELS[0] / "thesis.tex").is_file()


def test_the_command_prints_table_verdict_and_one_json_object(
    call: Callable[..., Any], compared: Path, colors: Path
) -> None:
    text = call("compare", colors, "--models", ",".join(MODELS), "--out", compared, "--resume")
    assert text.returncode == 0, text.stderr
    assert "vit_micro against resnet_micro: " in text.stdout and f"runs in {compared}" in text.stdout
    done = call("compare", colors, "--models", ",".join(MODELS), "--out", compared, "--resume", "--json")
    assert json.loads(done.stdout).keys() >= {"models", "pairs"}
