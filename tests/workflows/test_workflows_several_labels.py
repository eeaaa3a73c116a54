"""Images that may have several labels or none, from a manifest to the server."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

import vitreous
from vitreous.config.serve import ServeConfig
from vitreous.runs import RunFolder
from vitreous.serving.app import create_app
from vitreous.serving.predictor import Predictor

COLORS = ("red", "green", "blue")


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of 120 images with a bright square for each of their labels, none to three. Read only."""
    folder, rng = tmp_path_factory.mktemp("squares"), np.random.default_rng(0)
    rows = []
    for number in range(120):
        labels = [name for name in COLORS if rng.random() < 0.45]
        pixels = rng.normal(70, 12, (16, 16, 3))
        for name in labels:
            top, left = rng.integers(0, 8, 2)
            pixels[top : top + 8, left : left + 8, COLORS.index(name)] += 120
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / f"{number}.png")
        rows.append((f"{number}.png", "|".join(labels)))
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "labels"), *rows])
    return folder / "labels.csv"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, squares: Path, tiny: dict[str, Any]) -> RunFolder:
    out = tmp_path_factory.mktemp("runs") / "squares"
    return RunFolder.open(vitreous.train(squares, out=out, **{**tiny, "epochs": 25}).path)


def test_a_run_learns_labels_that_do_not_exclude_each_other(run: RunFolder) -> None:
    facts = json.loads((run.path / "run.json").read_text(encoding="utf-8"))
    assert facts["task"] == "multi_label"
    assert facts["thresholds"].keys() == set(COLORS) and all(0 < value < 1 for value in facts["thresholds"].values())
    found = json.loads((run.path / "metrics.json").read_text(encoding="utf-8"))["test"]
    assert found["average_precision"]["value"] > 0.8
    assert {"accuracy", "label_accuracy", "macro_f1", "micro_f1", "auroc"} <= found.keys()
    assert json.loads((run.path / "config.json").read_text(encoding="utf-8"))["loss"]["name"] == "bce"


def test_predictions_name_every_label_above_its_threshold(
    run: RunFolder, squares: Path, call: Callable[..., Any]
) -> None:
    found = json.loads(call("predict", run.path, squares, "--json").stdout)["predictions"]
    thresholds = run.facts["thresholds"]
    for answer in found:
        scores = {entry["label"]: entry["score"] for entry in answer["top"]}
        assert {entry["label"] for entry in answer["labels"]} == {n for n, s in scores.items() if s >= thresholds[n]}
    assert {len(answer["labels"]) for answer in found} >= {0, 1, 2}


def test_a_table_of_predictions_joins_the_labels(
    run: RunFolder, squares: Path, call: Callable[..., Any], tmp_path: Path
) -> None:
    assert call("predict", run.path, squares, "--out", tmp_path / "found.csv").returncode == 0
    with (tmp_path / "found.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert any("|" in row["labels"] for row in rows)
    assert {name for row in rows for name in row["labels"].split("|") if name} <= set(COLORS)


def test_the_server_answers_labels(run: RunFolder, squares: Path) -> None:
    with TestClient(create_app(Predictor.load(run), ServeConfig())) as client:
        reply = client.post(
            "/predict", content=(squares.parent / "0.png").read_bytes(), headers={"Content-Type": "image/png"}
        )
    answer = reply.json()["predictions"][0]
    local = vitreous.load(run.path).predict([squares.parent / "0.png"])[0]
    assert local.labels is not None
    assert [entry["label"] for entry in answer["labels"]] == [label for label, _ in local.labels]


def test_evaluation_repeats_what_training_measured(run: RunFolder) -> None:
    stored = json.loads((run.path / "metrics.json").read_text(encoding="utf-8"))["val"]
    again = vitreous.load(run.path).evaluate(split="val")["val"]
    assert {name: row["value"] for name, row in again.items()} == pytest.approx(
        {name: row["value"] for name, row in stored.items()}, abs=1e-5
    )


def test_stored_predictions_say_all_labels(run: RunFolder) -> None:
    import pyarrow.parquet as pq

    rows = pq.read_table(run.path / "predictions.parquet", columns=["part", "label", "predicted"]).to_pylist()
    test = [row for row in rows if row["part"] == "test"]
    right = np.mean([row["label"] == row["predicted"] for row in test])
    stored = json.loads((run.path / "metrics.json").read_text(encoding="utf-8"))["test"]["accuracy"]["value"]
    assert right == pytest.approx(stored)


def test_the_report_speaks_of_labels(run: RunFolder) -> None:
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "have exactly the right labels" in page and "commonest class" not in page


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--method", "probe"], "--method probe is for images with one label each"),
        (["--recipe", "probe"], "--method probe is for images with one label each"),
        (["--balance", "sampler"], "--balance sampler is for images with one label each"),
        (["--loss.name", "cross-entropy"], "--loss.name cross-entropy is for images with one label each"),
    ],
)
def test_what_has_no_meaning_for_several_labels_is_refused(
    squares: Path, tiny_flags: list[str], call: Callable[..., Any], tmp_path: Path, flags: list[str], said: str
) -> None:
    done = call("train", squares, *tiny_flags, *flags, "--out", tmp_path / "out")
    assert done.returncode == 2 and said in done.stderr


@pytest.mark.parametrize("flags", [["--learning"], ["--costs", "costs.csv"]])
def test_evaluation_of_single_labels_refuses_what_it_cannot_do(
    run: RunFolder, call: Callable[..., Any], flags: list[str]
) -> None:
    done = call("evaluate", run.path, *flags)
    assert done.returncode == 2 and "are for one label each" in done.stderr


def test_subgroups_and_corrupted_images_count_those_with_all_labels_right(
    run: RunFolder, squares: Path, call: Callable[..., Any], tmp_path: Path
) -> None:
    with squares.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    named = tmp_path / "named.csv"
    with named.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [
                ("path", "labels", "light"),
                *(
                    (squares.parent / row["path"], row["labels"], "even" if k % 2 else "odd")
                    for k, row in enumerate(rows)
                ),
            ]
        )
    page = tmp_path / "page.html"
    done = call("evaluate", run.path, named, "--by", "light", "--corrupt", "12", "--json", "--report", page)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["metrics"]
    table = found["subgroups"]["data"]["light"]
    assert [row["value"] for row in table["rows"]] == ["even", "odd"]
    shares = [row["accuracy"]["value"] * row["n"] for row in table["rows"]]
    assert sum(shares) == pytest.approx(found["data"]["accuracy"]["value"] * len(rows))
    assert table["rows"][0].keys() >= {"micro_f1"}
    worse = found["robustness"]["data"]
    assert 0 < worse["mean"]["value"] < worse["clean"]["value"]
    assert 'id="robustness"' in page.read_text(encoding="utf-8")
    assert "micro F1" in call("evaluate", run.path, named, "--by", "light").stdout


def test_the_asymmetric_loss_trains_too(squares: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    found = vitreous.train(squares, out=tmp_path / "out", **{**tiny, "loss": {"name": "asymmetric"}})
    assert found.run.facts["task"] == "multi_label"


def test_several_seeds_choose_by_average_precision(squares: Path, tiny: dict[str, Any], tmp_path: Path) -> None:
    found = vitreous.train(squares, out=tmp_path / "out", **{**tiny, "epochs": 2, "seeds": 2})
    repeats = json.loads((tmp_path / "out" / "repeats.json").read_text(encoding="utf-8"))
    best = max(repeats["runs"], key=lambda entry: entry["val"]["average_precision"])
    assert repeats["status"] == "complete" and Path(best["run"]) == found.path
