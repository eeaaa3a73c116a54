"""Comparing models: one split, one budget, paired by image."""

from __future__ import annotations

import html
import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vitreous.config.convert import from_dict
from vitreous.config.study import StudyConfig
from vitreous.config.train import TrainConfig
from vitreous.errors import DataError, StoppedError, UsageError
from vitreous.runs import RunFolder
from vitreous.runs.atomic import sha256_file
from vitreous.runs.lock import RunLock
from vitreous.workflows.study.compare import compare

MODELS = ("vit_micro", "resnet_micro")
QUICK = StudyConfig(engines=("eager",), batches=(1,), seconds=0.02, curve=False)
QUICK_FLAGS = ("--engines", "eager", "--batch", "1", "--seconds", "0.02", "--no-curve")


def config_of(tiny: dict[str, Any], **changes: Any) -> TrainConfig:
    return from_dict(TrainConfig, {**tiny, "epochs": 2, **changes})


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, colors: Path, tiny: dict[str, Any]) -> Path:
    """The folder of a finished comparison. Read only."""
    out = tmp_path_factory.mktemp("compare") / "both"
    return compare(colors, MODELS, config_of(tiny, out=out), study=QUICK).folder


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
    from vitreous.workflows.study.compare import train as real

    def stopped_at_the_second(data: Any, config: TrainConfig, reporter: Any) -> RunFolder:
        if config.model == MODELS[1]:
            raise StoppedError("Stopped by SIGTERM.")
        return real(data, config, reporter)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("vitreous.workflows.study.compare.train", stopped_at_the_second)
        with pytest.raises(StoppedError) as caught:
            compare(colors, MODELS, config_of(tiny, out=out))
    assert caught.value.hint == (
        f"Continue with: vitreous compare {colors} --models {','.join(MODELS)} --out {out} --resume"
    )
    finished = (out / MODELS[0] / "run.json").stat().st_mtime_ns
    found = compare(colors, MODELS, config_of(tiny, out=out, resume=True), study=QUICK)
    assert found.folder == out
    assert (out / MODELS[0] / "run.json").stat().st_mtime_ns == finished
    for name in MODELS:
        weights = [sha256_file(folder / name / "model.safetensors") for folder in (out, compared)]
        assert weights[0] == weights[1]


@pytest.mark.parametrize(("where", "said"), [("look_ahead", "before the first training"), ("_concluded", "are kept")])
def test_a_signal_between_trainings_is_told_with_what_to_type(
    colors: Path, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, said: str
) -> None:
    def interrupted(*arguments: Any) -> None:
        signal.raise_signal(signal.SIGTERM)

    before, out = signal.getsignal(signal.SIGTERM), tmp_path / "out"
    monkeypatch.setattr(f"vitreous.workflows.study.compare.{where}", interrupted)
    with pytest.raises(StoppedError) as caught:
        compare(colors, MODELS, config_of(tiny, out=out), study=QUICK)
    assert caught.value.exit_code == 75
    assert said in caught.value.message
    assert signal.getsignal(signal.SIGTERM) is before
    if where == "look_ahead":
        assert caught.value.hint == "Run the same command again." and not out.exists()
    else:
        assert caught.value.hint.endswith(f"--out {out} --resume")


def test_overwrite_replaces_the_runs_of_a_comparison_and_nothing_else(
    compared: Path, colors: Path, tiny: dict[str, Any], tmp_path: Path
) -> None:
    out = Path(shutil.copytree(compared, tmp_path / "out"))
    (out / "notes.txt").write_text("mine")
    before = [sha256_file(out / name / "model.safetensors") for name in MODELS]
    found = compare(colors, MODELS, config_of(tiny, out=out, overwrite=True, seed=1), study=QUICK)
    assert found.folder == out
    assert all(sha256_file(out / name / "model.safetensors") != old for name, old in zip(MODELS, before, strict=True))
    assert (out / "notes.txt").read_text() == "mine"
    shutil.rmtree(out / MODELS[0])
    (out / MODELS[0]).mkdir()
    (out / MODELS[0] / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match="leaves it alone"):
        compare(colors, MODELS, config_of(tiny, out=out, overwrite=True))
    assert (out / MODELS[0] / "thesis.tex").is_file()


def test_the_command_prints_the_answer_and_one_json_object(
    call: Callable[..., Any], compared: Path, colors: Path
) -> None:
    given = (
        "compare",
        colors,
        "--models",
        ",".join(MODELS),
        "--out",
        compared,
        "--resume",
        "--seeds",
        "1",
        *QUICK_FLAGS,
    )
    text = call(*given)
    assert text.returncode == 0, text.stderr
    assert "vit_micro against resnet_micro: " in text.stdout and f"runs    {compared}" in text.stdout
    assert "The same for all: 2 epochs for each training" in text.stdout
    found = json.loads(call(*given, "--price-per-hour", "0.5", "--json").stdout)
    assert found.keys() >= {"models", "pairs", "verdict", "budget", "margin"}
    for entry in found["models"]:
        best = max(row["images_per_s"] for row in entry["latency"])
        assert entry["cost_per_million"]["value"] == pytest.approx(1e6 / best / 3600 * 0.5, rel=1e-3)


@pytest.fixture(scope="module")
def repeated(tmp_path_factory: pytest.TempPathFactory, colors: Path, tiny: dict[str, Any]) -> Path:
    """A study of two seeds and two sizes of the training part. Read only."""
    out = tmp_path_factory.mktemp("compare") / "seeds"
    study = replace(QUICK, shares=(0.5,), curve=True)
    return compare(colors, MODELS, config_of(tiny, out=out, seeds=2), study=study).folder


def test_several_seeds_share_the_split_and_are_averaged(repeated: Path) -> None:
    found = json.loads((repeated / "comparison.json").read_text(encoding="utf-8"))
    for entry in found["models"]:
        runs = [RunFolder.open(run["run"]) for run in entry["runs"]]
        assert [run.facts["seed"] for run in runs] == [0, 1]
        assert len({run.facts["split_sha256"] for run in runs}) == 1
        each = [run.facts["headline"]["accuracy"]["value"] for run in runs]
        assert [run["accuracy"] for run in entry["runs"]] == pytest.approx(each)
        assert entry["accuracy"]["value"] == pytest.approx(sum(each) / 2)
    assert found["pairs"][0]["seeds"] == 2
    assert {run.parent for run in repeated.rglob("run.json")} == {
        above / name
        for above in (repeated, repeated / "share_0.5")
        for model in MODELS
        for name in (model, f"{model}-seed_1")
    }


def test_a_share_of_the_training_part_leaves_the_other_parts_alone(repeated: Path) -> None:
    found = json.loads((repeated / "comparison.json").read_text(encoding="utf-8"))
    whole, half = (
        RunFolder.open(folder / "vit_micro").facts["data"]["counts"] for folder in (repeated, repeated / "share_0.5")
    )
    assert half["train"] == pytest.approx(whole["train"] / 2, abs=3)
    assert (half["val"], half["test"]) == (whole["val"], whole["test"])
    rows = {(row["name"], row["share"]): row for row in found["learning"]}
    assert rows.keys() == {(name, share) for name in MODELS for share in (0.5, 1.0)}
    assert rows["vit_micro", 0.5]["images"] == half["train"]


def test_the_page_gives_the_answer_first_and_opens_offline(repeated: Path) -> None:
    found = json.loads((repeated / "comparison.json").read_text(encoding="utf-8"))
    page = (repeated / "comparison.html").read_text(encoding="utf-8")
    answer = html.escape(found["verdict"][0])
    assert page.index(answer) < page.index("<table")
    assert "http://" not in page and "https://" not in page and "<script" not in page
    assert all(
        f'id="{name}"' in page for name in ("accuracy", "differences", "speed", "growth", "more-images", "conditions")
    )
    assert {path.name for path in (repeated / "plots").iterdir()} == {"pareto.png", "growth.png", "learning.png"}


def test_growth_shows_the_quadratic_part_of_attention(repeated: Path) -> None:
    growth = json.loads((repeated / "comparison.json").read_text(encoding="utf-8"))["growth"]
    by_size = {point["image_size"]: point for point in growth["vit_micro"]}
    small, large = by_size[16], by_size[32]
    assert large["attention_macs"] / small["attention_macs"] == pytest.approx(16, rel=0.15)
    assert large["milliseconds"] > 0
    assert growth["resnet_micro"][0]["attention_macs"] is None


def test_more_seeds_are_added_to_a_study_and_what_is_there_is_kept(
    compared: Path, colors: Path, tiny: dict[str, Any], tmp_path: Path
) -> None:
    out = Path(shutil.copytree(compared, tmp_path / "out"))
    before = (out / "vit_micro" / "run.json").stat().st_mtime_ns
    found = compare(colors, MODELS, config_of(tiny, out=out, resume=True, seeds=2, epochs=7), study=QUICK)
    assert [len(entry["runs"]) for entry in found.models] == [2, 2]
    assert (out / "vit_micro" / "run.json").stat().st_mtime_ns == before
    assert found.facts["budget"].startswith("2 epochs")  # as the study was begun, whatever is asked for now


def test_a_continued_study_keeps_what_it_was_begun_with(
    call: Callable[..., Any], compared: Path, colors: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(compared, tmp_path / "out"))
    study = json.loads((out / "study.json").read_text(encoding="utf-8"))
    (out / "study.json").write_text(json.dumps({**study, "margin": 0.03}), encoding="utf-8")
    done = call("compare", colors, "--out", out, "--resume", *QUICK_FLAGS, "--json")
    found = json.loads(done.stdout)
    assert found["margin"] == 0.03
    assert [entry["name"] for entry in found["models"]] == list(MODELS)
    assert [len(entry["runs"]) for entry in found["models"]] == [1, 1]


def test_equal_macs_give_the_cheaper_model_more_steps(colors: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    found = compare(
        colors, MODELS, config_of(tiny, out=tmp_path / "out", epochs=20), study=replace(QUICK, equal="macs")
    )
    spent = [entry["steps"] * entry["macs"] for entry in found.models]
    assert spent[1] == pytest.approx(spent[0], rel=0.1)
    assert found.models[0]["steps"] != found.models[1]["steps"]
    assert "multiply-accumulates for each training" in found.facts["budget"]


def test_a_model_that_fails_is_reported_in_its_row_and_the_others_finish(
    call: Callable[..., Any], colors: Path, tiny_flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vitreous.workflows.study.compare import train as real

    def out_of_memory(data: Any, config: TrainConfig, reporter: Any) -> RunFolder:
        if config.model == "resnet_micro":
            raise RuntimeError("not enough memory")
        return real(data, config, reporter)

    monkeypatch.setattr("vitreous.workflows.study.compare.train", out_of_memory)
    models = "vit_micro,resnet_micro,vit_compact"
    given = ["compare", colors, "--models", models, *tiny_flags, "--seeds", "1", "--epochs", "2", *QUICK_FLAGS]
    done = call(*given, "--out", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    rows = {entry["name"]: entry for entry in found["models"]}
    assert rows["resnet_micro"]["accuracy"]["value"] is None
    assert rows["resnet_micro"]["failed"] == "RuntimeError: not enough memory"
    assert all(rows[name]["accuracy"]["value"] is not None for name in ("vit_micro", "vit_compact"))
    assert [(pair["a"], pair["b"]) for pair in found["pairs"]] == [("vit_micro", "vit_compact")]
    assert "not enough memory" in (tmp_path / "out" / "comparison.html").read_text(encoding="utf-8")
    strict = call(*given, "--out", tmp_path / "out", "--resume", "--strict")
    assert strict.returncode == 3 and "resnet_micro failed" in strict.stderr


def test_where_every_model_fails_the_reason_is_the_error(
    colors: Path, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(data: Any, config: TrainConfig, reporter: Any) -> RunFolder:
        raise UsageError("no")

    monkeypatch.setattr("vitreous.workflows.study.compare.train", refused)
    with pytest.raises(UsageError, match="no"):
        compare(colors, MODELS, config_of(tiny, out=tmp_path / "out"), study=QUICK)


def test_a_study_of_other_data_is_refused_before_any_training(
    compared: Path, make_images: Callable[..., Path], tiny: dict[str, Any], tmp_path: Path
) -> None:
    out = Path(shutil.copytree(compared, tmp_path / "out"))
    other = make_images(tmp_path / "other", 30, seed=5)
    with pytest.raises(DataError, match="is of other data"):
        compare(other, MODELS, config_of(tiny, out=out, resume=True, seeds=2), study=QUICK)
    assert not (out / "vit_micro-seed_1").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--models", "vit_micro,vit_base", "--time", "3s"], "vit_base cannot be trained in --time 3s"),
        (["--group", "hospital"], "hospital"),
        (["--equal", "time"], "--equal time needs the time"),
        (["--equal", "macs", "--time", "5s"], "contradict each other"),
        (["--k-fold", "5"], "asks for every fold"),
        (["--train-share", "0.5"], "--shares 0.5"),
        (["--margin", "2"], "--margin is a share"),
        (["--shares", "0.1,x"], "not a list of numbers"),
        (["--shares", "1.5"], "shares of the training part"),
        (["--engines", "tensorrt"], "Unknown engine 'tensorrt'"),
        (["--models", "vit_tiny_patch16_224,vit_tiny_patch16_384"], "images of different sizes"),
        (["--method", "pretrain"], "Pretraining learns from images alone"),
    ],
)
def test_what_cannot_be_compared_is_said_before_any_training(
    call: Callable[..., Any], colors: Path, tmp_path: Path, flags: list[str], said: str
) -> None:
    models = [] if "--models" in flags else ["--models", "vit_micro,resnet_micro"]
    done = call("compare", colors, *models, *QUICK_FLAGS, *flags, "--out", tmp_path / "out")
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_model_too_large_for_memory_is_said_before_any_training(
    colors: Path, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vitreous.workflows.study.ahead.free_memory", lambda device: 30_000_000)
    with pytest.raises(UsageError, match="vit_tiny does not fit into memory"):
        compare(colors, ("vit_micro", "vit_tiny"), config_of(tiny, out=tmp_path / "out"), study=QUICK)
    assert not list(tmp_path.iterdir())


def test_a_part_that_shows_one_class_is_refused_before_any_training(
    make_images: Callable[..., Path], tiny: dict[str, Any], tmp_path: Path
) -> None:
    data = make_images(tmp_path / "data" / "train", 12)
    make_images(tmp_path / "data" / "test", 4, seed=1)
    for name in ("blue", "green"):
        shutil.rmtree(tmp_path / "data" / "test" / name)
    with pytest.raises(DataError, match="The test part shows one class only, 'red'"):
        compare(data.parent, MODELS, config_of(tiny, out=tmp_path / "out"), study=QUICK)
    assert not (tmp_path / "out").exists()


def test_two_processes_do_not_write_to_one_study(
    compared: Path, colors: Path, tiny: dict[str, Any], tmp_path: Path
) -> None:
    out = Path(shutil.copytree(compared, tmp_path / "out"))
    lock = RunLock(out)
    try:
        with pytest.raises(UsageError):
            compare(colors, MODELS, config_of(tiny, out=out, resume=True), study=QUICK)
    finally:
        lock.release()
