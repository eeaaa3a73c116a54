"""Several seeds and folds: ordinary runs in one folder, with mean, spread and the best of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import vitreous
from vitreous.config.train import TrainConfig
from vitreous.data import Split
from vitreous.errors import StoppedError, UsageError
from vitreous.runs import RunFolder
from vitreous.workflows import repeat
from vitreous.workflows.train import train


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def quick(tiny: dict[str, Any]) -> dict[str, Any]:
    return {**tiny, "epochs": 2}


def test_seeds_share_their_split_differ_in_weights_and_are_summarised(
    call: Callable[..., Any], colors: Path, tiny_flags: list[str], tmp_path: Path
) -> None:
    flags = ["2" if flag == "12" else flag for flag in tiny_flags]
    done = call("train", colors, "--out", tmp_path / "all", "--seeds", "2", "--seed", "4", "--json", *flags)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    repeats, stored = answer["repeats"], read(tmp_path / "all" / "repeats.json")
    runs = [Path(entry["run"]) for entry in repeats["runs"]]
    assert [run.name for run in runs] == ["seed_4", "seed_5"]
    assert {name: stored[name] for name in ("runs", "test", "best")} == {
        name: repeats[name] for name in ("runs", "test", "best")
    }
    assert stored["status"] == "complete"

    splits = [Split.read_csv(run / "splits.csv") for run in runs]
    assert splits[0].parts == splits[1].parts
    opened = [RunFolder.open(run) for run in runs]
    assert opened[0].version != opened[1].version
    values = [read(run / "metrics.json")["test"]["accuracy"]["value"] for run in runs]
    found = repeats["test"]["accuracy"]
    assert found["mean"] == pytest.approx(sum(values) / 2)
    assert found["n"] == 2
    assert found["low"] <= found["mean"] <= found["high"]
    assert "pooled" not in repeats
    scores = [read(run / "metrics.json")["val"]["balanced_accuracy"]["value"] for run in runs]
    assert answer["run"] == repeats["best"] == str(runs[scores.index(max(scores))])
    assert answer["metrics"] == read(Path(answer["run"]) / "metrics.json")


def test_all_folds_judge_every_image_outside_the_test_part_once(
    colors: Path, quick: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = vitreous.train(colors, out=tmp_path / "folds", k_fold="2", **quick)
    found = read(tmp_path / "folds" / "repeats.json")
    assert [entry["name"] for entry in found["runs"]] == ["fold_1", "fold_2"]
    assert str(best.path) == found["best"]
    tables = [pq.read_table(Path(entry["run"]) / "predictions.parquet").to_pylist() for entry in found["runs"]]
    judged = [row for table in tables for row in table if row["part"] == "val"]
    split = Split.read_csv(best.path / "splits.csv")
    assert sorted(row["path"] for row in judged) == sorted(
        path for path, part in zip(split.paths, split.parts, strict=True) if part in ("train", "val")
    )
    pooled = found["pooled"]["accuracy"]
    assert pooled["n"] == len(judged)
    assert pooled["value"] == pytest.approx(sum(row["label"] == row["predicted"] for row in judged) / len(judged))
    assert pooled["low"] < pooled["value"] <= pooled["high"] or pooled["value"] == 1

    # Finished runs are kept, and what was asked for is remembered.
    def never(*given: object, **named: object) -> None:
        raise AssertionError("a finished run is not trained again")

    monkeypatch.setattr("vitreous.workflows.train._train", never)
    again = vitreous.train(colors, out=tmp_path / "folds", resume=True)
    assert again.path == best.path


def test_runs_that_were_stopped_are_continued_and_the_others_started(
    call: Callable[..., Any], colors: Path, tiny_flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    stopping = [True]

    def fake(data: object, config: TrainConfig, reporter: object) -> RunFolder:
        assert config.out is not None
        started.append(f"{config.out.name} {config.seed} {config.k_fold} {config.split_seed}")
        if len(started) == 3 and stopping.pop():
            raise StoppedError("Stopped by SIGTERM after step 3 of 9; the state is saved.")
        return RunFolder(config.out, {})

    monkeypatch.setattr(repeat, "train", fake)
    done = call("train", colors, "--out", tmp_path / "all", "--seeds", "2", "--k-fold", "2", *tiny_flags)
    assert done.returncode == 75
    assert f"Continue with: vitreous train {colors} --out {tmp_path / 'all'} --resume" in done.stderr
    assert started == ["seed_0-fold_1 0 1/2 0", "seed_0-fold_2 0 2/2 0", "seed_1-fold_1 1 1/2 0"]
    assert read(tmp_path / "all" / "repeats.json")["status"] == "training"

    started.clear()
    stopping.append(False)
    monkeypatch.setattr(repeat, "summarise", lambda folder, members, runs: {"best": str(runs[0].path), "runs": []})
    repeat.train_all(colors, TrainConfig(out=tmp_path / "all", resume=True))
    assert [entry.split()[0] for entry in started] == [
        "seed_0-fold_1", "seed_0-fold_2", "seed_1-fold_1", "seed_1-fold_2",
    ]  # fmt: skip


def test_a_time_budget_is_shared_evenly_and_runs_continued_later_get_no_more(
    colors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, given = [100.0], []

    def fake(data: object, config: TrainConfig, reporter: object) -> RunFolder:
        assert config.time is not None and config.out is not None
        given.append(config.time)
        if len(given) == 2:
            raise StoppedError("Stopped by SIGTERM.")
        now[0] += 15.0
        return RunFolder(config.out, {})

    monkeypatch.setattr(repeat, "train", fake)
    monkeypatch.setattr(repeat.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(repeat, "summarise", lambda folder, members, runs: {"best": str(runs[0].path), "runs": []})
    with pytest.raises(StoppedError):
        repeat.train_all(colors, TrainConfig(out=tmp_path / "all", seeds=3, time="60s"), began=97.0)
    repeat.train_all(colors, TrainConfig(out=tmp_path / "all", resume=True))
    assert given == ["19.00s"] * 5
    with pytest.raises(UsageError, match="--time 2s is for all 3 runs together"):
        repeat.train_all(colors, TrainConfig(out=tmp_path / "none", seeds=3, time="2s"))


def test_a_folder_of_runs_that_moved_finds_its_parts_and_first_weights_where_they_are_now(
    colors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[TrainConfig] = []

    def fake(data: object, config: TrainConfig, reporter: object) -> RunFolder:
        assert config.out is not None
        started.append(config)
        if len(started) == 1:
            raise StoppedError("Stopped by SIGTERM.")
        return RunFolder(config.out, {})

    monkeypatch.setattr(repeat, "train", fake)
    monkeypatch.setattr(repeat, "summarise", lambda folder, members, runs: {"best": str(runs[0].path), "runs": []})
    first = TrainConfig(out=tmp_path / "all", seeds=2, val=tmp_path / "val", init=str(tmp_path / "first"))
    with pytest.raises(StoppedError):
        repeat.train_all(colors, first)
    moved = TrainConfig(out=tmp_path / "all", resume=True, val=tmp_path / "moved", init=str(tmp_path / "elsewhere"))
    repeat.train_all(colors, moved)
    assert {config.val for config in started[1:]} == {tmp_path / "moved"}
    assert {config.init for config in started[1:]} == {str(tmp_path / "elsewhere")}


def test_processes_of_torchrun_do_not_start_several_runs(
    colors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="one run after the other"):
        repeat.train_all(colors, TrainConfig(out=tmp_path / "all", seeds=2))


def test_one_run_is_not_several_and_several_devices_train_one(colors: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one was asked for"):
        train(colors, TrainConfig(seeds=2))
    with pytest.raises(UsageError, match="several runs"):
        TrainConfig(seeds=2, devices=2)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(UsageError, match="holds something else"):
        repeat.train_all(colors, TrainConfig(seeds=2, out=tmp_path / "other", overwrite=True))
