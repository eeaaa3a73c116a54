"""Scoring a run again: on a part of its own data, and on data it has not seen."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vitreous
from vitreous.errors import DataError, UsageError


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("part", ["val", "test"])
def test_a_part_scored_again_gives_the_numbers_of_training(
    part: str, call: Callable[..., Any], run_copy: Path, tmp_path: Path
) -> None:
    done = call("evaluate", run_copy, "--split", part, "--json", "--out", tmp_path / "again.json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["run"] == str(run_copy)
    assert found["metrics"] == read_json(tmp_path / "again.json")
    stored = read_json(run_copy / "metrics.json")
    assert found["metrics"]["confusion"][part] == stored["confusion"][part]
    for name, number in stored[part].items():
        again = found["metrics"][part][name]
        assert (again["n"], again["method"]) == (number["n"], number["method"])
        if number["value"] is not None:
            assert again["value"] == pytest.approx(number["value"], abs=1e-5), name


def test_each_look_at_the_test_part_is_counted_and_warned_about(
    call: Callable[..., Any], run_copy: Path, trained: Path
) -> None:
    assert read_json(trained / "run.json")["test_scored"] == 1
    second = call("evaluate", run_copy, "--split", "test")
    assert "! The test part was scored 2 times; choosing by it would spoil it." in second.stderr
    facts = read_json(run_copy / "run.json")
    assert facts["test_scored"] == 2
    assert [entry["by"] for entry in facts["test_log"]] == ["train", "evaluate"]
    classifier = vitreous.load(run_copy, threads=1)
    for count in (3, 4):  # from one object that was opened before both
        classifier.evaluate(split="test")
        assert read_json(run_copy / "run.json")["test_scored"] == count


def test_other_parts_are_not_counted_and_said_to_flatter(call: Callable[..., Any], run_copy: Path) -> None:
    for part in ("train", "val"):
        done = call("evaluate", run_copy, "--split", part, "--json")
        note = "images were used for training or choosing: these numbers flatter."
        assert note in done.stderr
        (said,) = json.loads(done.stdout)["metrics"]["notes"]
        assert said.startswith("All ") and said.endswith(note)
    assert read_json(run_copy / "run.json")["test_scored"] == 1


def test_both_engines_give_the_same_metrics(exported: Path) -> None:
    eager = vitreous.load(exported, "eager", threads=1).evaluate()
    runtime = vitreous.load(exported, "onnxruntime", threads=1).evaluate()
    assert (eager["engine"], runtime["engine"]) == ("eager", "onnxruntime")
    assert eager["val"]["nll"]["value"] == pytest.approx(runtime["val"]["nll"]["value"], abs=1e-4)


def test_other_labelled_images_are_scored_as_data(
    call: Callable[..., Any], run_copy: Path, make_images: Callable[..., Path], tmp_path: Path
) -> None:
    data = make_images(tmp_path / "new", 5, seed=7, colors=("red", "green"))
    (data / "red" / "broken.png").write_bytes(b"")
    done = call("evaluate", run_copy, data, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["metrics"]["data"]["accuracy"]["n"] == 10
    assert found["bad_files"] == [{"path": "red/broken.png", "reason": "is empty (0 bytes)"}]
    assert read_json(run_copy / "run.json")["test_scored"] == 1


def test_a_class_the_model_does_not_know_is_named(
    call: Callable[..., Any], trained: Path, make_images: Callable[..., Path], tmp_path: Path
) -> None:
    data = make_images(tmp_path / "new", 2)
    (data / "blue").rename(data / "purple")
    done = call("evaluate", trained, data)
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert "'purple'" in last and "blue, green, red" in last


def test_an_unknown_part_names_the_nearest(run_copy: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'test'"):
        vitreous.load(run_copy).evaluate(split="tset")


def test_images_that_went_away_or_changed_since_training_are_not_silently_scored(
    make_images: Callable[..., Path], tiny: dict[str, Any], tmp_path: Path
) -> None:
    data = make_images(tmp_path / "data", 8)
    run = vitreous.train(data, out=tmp_path / "run", **tiny)
    victim = data / "red" / "plain_00.png"
    part = next(
        line.split(",")[3]
        for line in (run.path / "splits.csv").read_text(encoding="utf-8").splitlines()
        if line.startswith("red/plain_00.png,")
    )
    shutil.copy(data / "blue" / "plain_00.png", victim)
    with pytest.raises(DataError, match=r"1 \w+ images changed since training; the first: red/plain_00\.png"):
        run.evaluate(split=part)
    victim.unlink()
    with pytest.raises(DataError, match=r"no longer in .*the first: red/plain_00\.png"):
        run.evaluate(split=part)
    shutil.rmtree(data)
    with pytest.raises(DataError, match="which is not here"):
        run.evaluate(split=part)


def test_the_own_data_named_again_is_scored_by_its_stored_split(
    call: Callable[..., Any], run_copy: Path, colors: Path
) -> None:
    alone = json.loads(call("evaluate", run_copy, "--json").stdout)["metrics"]
    named = json.loads(call("evaluate", run_copy, colors, "--json").stdout)["metrics"]
    assert list(named["per_class"]) == ["val"]
    assert named["confusion"] == alone["confusion"]
    call("evaluate", run_copy, colors, "--split", "test")
    assert read_json(run_copy / "run.json")["test_scored"] == 2


def test_of_other_data_with_parts_only_one_part_is_scored(
    call: Callable[..., Any], run_copy: Path, make_images: Callable[..., Path], tmp_path: Path
) -> None:
    for count, part in ((4, "train"), (3, "test")):
        make_images(tmp_path / "other" / part, count, seed=100 + count)
    sizes = {}
    for split in ((), ("--split", "train"), ("--split", "test")):
        found = json.loads(call("evaluate", run_copy, tmp_path / "other", *split, "--json").stdout)["metrics"]
        ((part, _),) = found["per_class"].items()
        sizes[part] = found[part]["accuracy"]["n"]
        assert found["notes"] == []
    assert sizes == {"data": 9, "train": 12, "test": 9}
    assert read_json(run_copy / "run.json")["test_scored"] == 1
    absent = call("evaluate", run_copy, tmp_path / "other", "--split", "val")
    assert absent.returncode == 2
    assert "has no part 'val'" in absent.stderr


def test_copies_of_its_own_images_are_known_by_their_pixels_wherever_they_lie(
    call: Callable[..., Any], run_copy: Path, colors: Path, tmp_path: Path
) -> None:
    shutil.copytree(colors, tmp_path / "copy")
    done = call("evaluate", run_copy, tmp_path / "copy", "--json")
    notes = json.loads(done.stdout)["metrics"]["notes"]
    facts = read_json(run_copy / "run.json")
    counts = facts["data"]["counts"]
    seen = counts["train"] + counts["val"]
    assert f"{seen} of 90 images were used for training or choosing: these numbers flatter." in notes
    assert facts["test_scored"] == 2
    assert facts["test_log"][-1]["images"] == counts["test"]


def test_data_with_several_labels_an_image_are_refused_in_words(run_copy: Path, colors: Path, tmp_path: Path) -> None:
    rows = [f"{path},red|blue" for path in sorted((colors / "red").iterdir())[:3]]
    (tmp_path / "list.csv").write_text("path,labels\n" + "\n".join(rows) + "\n")
    with pytest.raises(DataError, match="several labels"):
        vitreous.load(run_copy, threads=1).evaluate(tmp_path / "list.csv")


def test_entries_that_training_left_out_do_not_matter_later(colors: Path, tmp_path: Path, tiny: dict[str, Any]) -> None:
    rows = [f"{path},{path.parent.name}" for path in sorted(colors.glob("*/*"))]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *rows, f"{colors}/red/gone.png,"]) + "\n")
    run = vitreous.train(tmp_path / "list.csv", out=tmp_path / "run", **{**tiny, "epochs": 1})
    assert read_json(run.path / "run.json")["data"]["bad_files"] == 1
    assert run.evaluate(split="val")["val"]["accuracy"]["n"] > 0


@pytest.fixture
def manifest(colors: Path, tmp_path: Path) -> Path:
    """The images with a column beside the label: which of two cameras took them."""
    rows = ["path,label,camera"]
    for number, path in enumerate(sorted(colors.rglob("*.*"))):
        rows.append(f"{path},{path.parent.name},{'left' if number % 2 else 'right'}")
    file = tmp_path / "images.csv"
    file.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return file


def test_a_column_gives_a_table_of_its_values_and_names_the_worst(
    call: Callable[..., Any], run_copy: Path, manifest: Path
) -> None:
    done = call("evaluate", run_copy, manifest, "--by", "camera", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["metrics"]["subgroups"]["data"]["camera"]
    assert [(row["value"], row["n"]) for row in found["rows"]] == [("left", 45), ("right", 45)]
    assert found["worst"] in ("left", "right")
    text = call("evaluate", run_copy, manifest, "--by", "camera").stdout
    assert "camera, data" in text and found["verdict"] in text
    wrong = call("evaluate", run_copy, manifest, "--by", "camra")
    assert wrong.returncode == 2
    assert "The data have no column 'camra'. They have camera." in wrong.stderr


def test_costs_say_what_answers_cost(call: Callable[..., Any], run_copy: Path, tmp_path: Path) -> None:
    costs = tmp_path / "costs.csv"
    costs.write_text("label,red,green,blue\nred,0,1,1\ngreen,5,0,1\nblue,1,1,0\n", encoding="utf-8")
    done = call("evaluate", run_copy, "--split", "val", "--costs", costs)
    assert done.returncode == 0, done.stderr
    assert "Cost of a val image: " in done.stdout
    costs.write_text("label,red,green\nred,0,1\ngreen,5,0\n", encoding="utf-8")
    wrong = call("evaluate", run_copy, "--costs", costs)
    assert wrong.returncode == 2 and "no row for 'blue'" in wrong.stderr


def test_corrupted_images_are_scored_at_every_severity(call: Callable[..., Any], run_copy: Path) -> None:
    done = call("evaluate", run_copy, "--split", "val", "--corrupt", "4", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["metrics"]["robustness"]["val"]
    assert found["n"] == 4
    assert len(found["corruptions"]) == 16
    for row in found["corruptions"].values():
        assert len(row["severities"]) == 5
        assert row["mean"] == pytest.approx(sum(each["value"] for each in row["severities"]) / 5)
    assert "images made worse" in call("evaluate", run_copy, "--split", "val", "--corrupt", "2").stdout


def test_thresholds_of_the_run_are_judged_on_other_images(call: Callable[..., Any], run_copy: Path) -> None:
    stored = read_json(run_copy / "run.json")["operating_points"]
    assert set(stored["points"]) == {"red", "green", "blue"} and stored["good"] is None
    document = read_json(run_copy / "metrics.json")["decisions"]
    assert set(document) == {"val", "test"}
    done = json.loads(call("evaluate", run_copy, "--split", "val", "--json").stdout)["metrics"]["decisions"]["val"]
    assert done["conformal"]["coverage"]["value"] == document["val"]["conformal"]["coverage"]["value"]
    for name, points in done["operating"].items():
        assert [point["threshold"] for point in points] == [point["threshold"] for point in stored["points"][name]]
        recall, alarms = points
        assert recall["sensitivity"]["value"] >= 0.95 and alarms["specificity"]["value"] >= 0.95
    assert 'id="acting-on-scores"' in (run_copy / "report.html").read_text(encoding="utf-8")


def test_a_learning_curve_asks_about_images_that_training_has_not_seen(
    call: Callable[..., Any], run_copy: Path
) -> None:
    done = call("evaluate", run_copy, "--learning", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["metrics"]["learning"]["val"]
    images = [point["images"] for point in found["points"]]
    counts = read_json(run_copy / "run.json")["data"]["counts"]
    assert images == sorted(images) and images[-1] == counts["train"]
    assert found["points"][-1]["draws"] == 1 < found["points"][0]["draws"]
    assert found["further"][0]["images"] == 2 * counts["train"]
    assert "have seen all training labels" in found["note"]
    shown = call("evaluate", run_copy, "--learning")
    assert f"{2 * counts['train']:,}, foretold" in shown.stdout and found["verdict"] in shown.stdout
    refused = call("evaluate", run_copy, "--learning", "--split", "train")
    assert refused.returncode == 2 and "that training has not seen" in refused.stderr


def test_a_page_of_an_evaluation_tells_how_it_was_made(
    call: Callable[..., Any], run_copy: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    done = call("evaluate", run_copy, "--corrupt", "6", "--report", page)
    assert done.returncode == 0, done.stderr
    written = page.read_text(encoding="utf-8")
    assert f"vitreous evaluate {run_copy} --split val --corrupt 6" in written
    assert 'id="robustness"' in written and 'id="more-labels"' not in written
    assert "used for choosing" in written
    wrong = json.loads(call("evaluate", run_copy, "--split", "train", "--json", "--report", page).stdout)["metrics"]
    mistaken = sum(map(sum, wrong["confusion"]["train"])) - sum(
        row[k] for k, row in enumerate(wrong["confusion"]["train"])
    )
    assert page.read_text(encoding="utf-8").count("taken for") >= min(mistaken, 1)
    for flag in ("--report", "--out"):
        refused = call("evaluate", run_copy, flag, tmp_path)
        assert refused.returncode == 2 and f"{flag} {tmp_path} is a folder" in refused.stderr
