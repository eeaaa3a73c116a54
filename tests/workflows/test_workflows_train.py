"""What `train` leaves behind: a complete, verifiable folder, the same for the same seed, and an honest test part."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import vitreous
from vitreous.data.sources.source import Listing
from vitreous.errors import DataError, RunError
from vitreous.runs import RunFolder
from vitreous.runs.atomic import sha256_file
from vitreous.training.loop import NEARLY_ALL
from vitreous.workflows.reporter import Progress, Silent
from vitreous.workflows.train import train as train_run

METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "ece", "brier", "nll")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def read_splits(run: Path) -> list[dict[str, str]]:
    with (run / "splits.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_finished_run_holds_every_file_of_the_contract(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert names >= {
        "run.json", "model.safetensors", "config.json", "splits.csv", "history.jsonl", "metrics.json",
        "predictions.parquet", "bad_files.csv", "report.html", "README.md", "plots", "checkpoints",
    }  # fmt: skip
    assert list((trained / "plots").glob("*.png"))
    assert (trained / "checkpoints" / "best.safetensors").is_file()
    assert len(list((trained / "checkpoints").glob("step_*.safetensors"))) == 2
    assert not [path for path in trained.rglob("*") if path.name.endswith((".tmp", ".part"))]


def test_every_recorded_sha256_is_that_of_the_file(trained: Path) -> None:
    recorded = read_json(trained / "run.json")["files"]
    assert recorded.keys() >= {"model.safetensors", "config.json", "splits.csv", "metrics.json", "predictions.parquet"}
    assert recorded == {name: sha256_file(trained / name) for name in recorded}
    assert RunFolder.open(trained).classes == ["blue", "green", "red"]


def test_metrics_have_a_value_an_interval_a_count_and_a_method(trained: Path) -> None:
    metrics = read_json(trained / "metrics.json")
    counts = Counter(row["part"] for row in read_splits(trained))
    assert abs(counts["val"] - 11) <= 3 and abs(counts["test"] - 18) <= 3
    for part, count in (("val", counts["val"]), ("test", counts["test"])):
        for name in METRICS:
            found = metrics[part][name]
            assert found.keys() - {"bootstrap"} == {"value", "low", "high", "n", "method"}, (part, name)
            assert found["n"] == count
            assert found["low"] <= found["value"] <= found["high"]
        assert metrics["per_class"][part].keys() == {"blue", "green", "red"}
        matrix = metrics["confusion"][part]
        assert sum(map(sum, matrix)) == count
        right = sum(matrix[row][row] for row in range(3))
        assert metrics[part]["accuracy"]["value"] == pytest.approx(right / count)
        assert part in metrics["calibration"]
    assert metrics["timing"]["train_seconds"] > 0


def test_the_tiny_run_has_learned(trained: Path) -> None:
    assert read_json(trained / "metrics.json")["test"]["accuracy"]["value"] > 0.6


def test_predictions_hold_every_validation_and_test_image_once(trained: Path) -> None:
    table = pq.read_table(trained / "predictions.parquet")
    assert set(table.column_names) >= {"path", "label", "group", "probabilities", "ood", "abstain", "part"}
    rows = table.to_pylist()
    wanted = [(row["path"], row["part"], row["label"]) for row in read_splits(trained) if row["part"] != "train"]
    assert sorted((row["path"], row["part"], row["label"]) for row in rows) == sorted(wanted)
    for row in rows:
        assert sum(row["probabilities"]) == pytest.approx(1)
        assert 0 <= row["ood"] <= 1
    right = [row["predicted"] == row["label"] for row in rows if row["part"] == "test"]
    accuracy = read_json(trained / "metrics.json")["test"]["accuracy"]["value"]
    assert sum(right) / len(right) == pytest.approx(accuracy)


def test_splits_name_path_label_group_part_and_sha256_of_each_image(trained: Path, colors: Path) -> None:
    rows = read_splits(trained)
    assert list(rows[0]) == ["path", "label", "group", "part", "sha256", "cluster", "fold"]
    assert sorted(row["path"] for row in rows) == sorted(
        path.relative_to(colors).as_posix() for path in colors.rglob("*.*")
    )
    assert all(row["path"].startswith(row["label"]) and re.fullmatch("[0-9a-f]{64}", row["sha256"]) for row in rows)
    assert {row["part"] for row in rows} == {"train", "val", "test"}


def test_history_has_one_json_object_a_row_with_rising_steps(trained: Path) -> None:
    rows = [json.loads(line) for line in (trained / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [row["step"] for row in rows]
    assert steps == sorted(set(steps)) and steps[-1] == read_json(trained / "config.json")["steps"]
    assert all({"loss", "lr", "images_per_s"} <= row.keys() for row in rows)
    assert "val_accuracy" in rows[-1]


def test_the_report_opens_offline_and_runs_no_script(trained: Path) -> None:
    page = (trained / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page.lower()
    assert not re.search(r"""(?:src|srcset|poster|data)\s*=\s*["']?(?!data:)[^"'\s>]""", page)
    assert not re.search(r"<link\b|@import|url\(\s*[\"']?(?!data:)", page)
    assert page.count("data:image/") >= 3


def test_no_file_of_the_run_needs_pickle(trained: Path) -> None:
    for path in (file for file in trained.rglob("*") if file.is_file()):
        assert path.suffix in {".json", ".jsonl", ".safetensors", ".csv", ".parquet", ".html", ".md", ".png", ".npz"}
        start = path.read_bytes()[:4]
        assert not start.startswith(b"\x80"), f"{path.name} begins like a pickle"
        assert start[:2] != b"PK" or path.suffix == ".npz", f"{path.name} is a zip archive, as torch.save writes"


def test_the_stored_settings_given_back_repeat_the_run_bit_for_bit(
    call: Callable[..., Any], trained: Path, colors: Path, tmp_path: Path
) -> None:
    again = call("train", colors, "--config", trained / "config.json", "--out", tmp_path / "again", "--json")
    assert again.returncode == 0, again.stderr
    assert sha256_file(tmp_path / "again" / "model.safetensors") == sha256_file(trained / "model.safetensors")
    first, second = read_json(trained / "config.json"), read_json(tmp_path / "again" / "config.json")
    for stored in (first, second):  # the length is given back as steps
        del stored["out"], stored["epochs"]
    assert first == second


def test_another_seed_gives_another_split_and_other_weights(
    trained: Path, colors: Path, tiny: dict[str, Any], tmp_path: Path
) -> None:
    other = vitreous.train(colors, out=tmp_path / "other", seed=1, **tiny).path
    assert sha256_file(other / "model.safetensors") != sha256_file(trained / "model.safetensors")
    assert read_json(other / "run.json")["split_sha256"] != read_json(trained / "run.json")["split_sha256"]


class Watcher(Silent):
    """Notes the beginning and the end of every task, in the same list as the reads."""

    def __init__(self, events: list[tuple[str, str]]) -> None:
        self.events = events

    @contextmanager
    def task(self, name: str, unit: str) -> Iterator[Progress]:
        self.events.append(("begin", name))
        with Silent().task(name, unit) as progress:
            yield progress
        self.events.append(("end", name))


def test_no_test_image_is_opened_between_the_check_and_the_final_score(
    colors: Path, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[tuple[str, str]] = []
    real = Listing.open

    def opened(self: Listing, index: int) -> Any:
        events.append(("open", self.samples[index].path))
        return real(self, index)

    monkeypatch.setattr(Listing, "open", opened)
    from vitreous.config.convert import from_dict
    from vitreous.config.train import TrainConfig

    run = train_run(colors, from_dict(TrainConfig, {**tiny, "out": tmp_path / "run"}), Watcher(events))
    test = {row["path"] for row in read_splits(run.path) if row["part"] == "test"}
    assert len(test) >= 15
    checked, chosen = events.index(("end", "checking every image")), events.index(("end", "learning what is usual"))
    scored = events.index(("begin", "reading test images"))
    between = {path for event, path in events[checked:scored] if event == "open"}
    assert between and not between & test
    assert checked < events.index(("begin", "training")) < chosen < scored
    assert {path for event, path in events[scored:] if event == "open"} >= test
    assert read_json(run.path / "run.json")["test_scored"] == 1


def test_other_test_images_change_neither_weights_nor_calibration(
    make_images: Callable[..., Path], tiny: dict[str, Any], tmp_path: Path
) -> None:
    data, runs = tmp_path / "data", []
    make_images(data / "train", 12)
    for seed in (1, 2):
        shutil.rmtree(data / "test", ignore_errors=True)
        make_images(data / "test", 4, seed=seed)
        runs.append(vitreous.train(data, out=tmp_path / f"run{seed}", **tiny).run)
    a, b = runs
    assert sha256_file(a.path / "predictions.parquet") != sha256_file(b.path / "predictions.parquet")
    assert sha256_file(a.path / "model.safetensors") == sha256_file(b.path / "model.safetensors")
    for chosen in ("calibration", "abstention", "input"):
        assert a.facts[chosen] == b.facts[chosen]


def test_an_existing_run_gets_a_numbered_sibling_and_stays_as_it_is(
    call: Callable[..., Any], run_copy: Path, colors: Path, tiny_flags: list[str]
) -> None:
    before = sha256_file(run_copy / "run.json")
    done = call("train", colors, "--out", run_copy, *tiny_flags)
    assert done.returncode == 0
    assert f"{run_copy} exists; writing to {run_copy}-2." in done.stderr
    assert RunFolder.open(f"{run_copy}-2").facts["status"] == "complete"
    assert sha256_file(run_copy / "run.json") == before


def test_overwrite_replaces_a_run_only_once_the_data_is_known_to_be_good(
    run_copy: Path, colors: Path, tiny: dict[str, Any], tmp_path: Path
) -> None:
    before = sha256_file(run_copy / "model.safetensors")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        vitreous.train(tmp_path / "empty", out=run_copy, overwrite=True, **tiny)
    assert RunFolder.open(run_copy).facts["files"]["model.safetensors"] == before
    (run_copy / "exports").mkdir()
    replaced = vitreous.train(colors, out=run_copy, overwrite=True, seed=3, **tiny)
    assert replaced.path == run_copy
    assert sha256_file(run_copy / "model.safetensors") != before
    assert not (run_copy / "exports").exists()


def test_a_time_budget_is_stored_as_numbers_of_steps_that_give_the_same_weights(
    call: Callable[..., Any], colors: Path, tiny_flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vitreous.workflows.plan.PAGES", 0.3)  # lest the test train for as long as a real budget
    flags = [flag for flag in tiny_flags if flag not in ("--epochs", "12")]
    done = call("train", colors, "--time", "8s", "--out", tmp_path / "timed", *flags)
    assert done.returncode == 0, done.stderr
    config, facts = read_json(tmp_path / "timed" / "config.json"), read_json(tmp_path / "timed" / "run.json")
    assert config["steps"] >= 1
    assert f"{config['steps']:,} steps" in done.stderr
    taken, early = facts["training"]["steps"], facts["training"]["stopped_early"]
    assert taken == (config["stop_after"] or config["steps"])
    assert early == (taken < NEARLY_ALL * config["steps"])
    assert early == ("The time budget ended training" in done.stderr)
    assert early == any("time budget" in note for note in read_json(tmp_path / "timed" / "metrics.json")["notes"])
    again = call("train", colors, "--config", tmp_path / "timed" / "config.json", "--out", tmp_path / "again")
    assert again.returncode == 0, again.stderr
    weights = [sha256_file(tmp_path / name / "model.safetensors") for name in ("timed", "again")]
    assert weights[0] == weights[1]


def test_a_changed_file_is_found_when_the_run_is_opened(run_copy: Path) -> None:
    content = bytearray((run_copy / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (run_copy / "model.safetensors").write_bytes(content)
    with pytest.raises(RunError, match=r"'model\.safetensors'.*changed or damaged"):
        vitreous.load(run_copy)


def test_a_class_that_is_not_there_cannot_mean_nothing_wrong(
    call: Callable[..., Any], colors: Path, tiny_flags: list[str], tmp_path: Path
) -> None:
    done = call("train", colors, "--decide.good", "gren", "--out", tmp_path / "out", *tiny_flags)
    assert done.returncode == 2 and "'green'" in done.stderr
    assert not (tmp_path / "out").exists()
