"""Profiling: every number there, each measured in the way it says, without data."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vitreous.engines import Outputs
from vitreous.errors import RunError, UsageError
from vitreous.models.cost.activations import count
from vitreous.workflows import latency
from vitreous.workflows import profile as profile_module
from vitreous.workflows.latency import ENGINES, choose_engines
from vitreous.workflows.profile import Profile, profile
from vitreous.workflows.profile_view import curve_text, profile_text, write_profile
from vitreous.workflows.reporter import Silent

QUICK: dict[str, Any] = {"seconds": 0.001, "device": "cpu"}


class Listening(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.warned: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.warned.append(text)


@pytest.fixture(scope="module")
def both() -> Profile:
    """A Vision Transformer and a convolutional model, with the curve and every engine that works here."""
    torch.set_num_threads(1)
    return profile(["vit_micro", "resnet_micro"], image_size=32, batches=(1, 3), curve=True, **QUICK)


def test_each_model_has_every_number_that_the_design_promises(both: Profile) -> None:
    for entry, name in zip(both.models, ("vit_micro", "resnet_micro"), strict=True):
        assert entry["name"] == name and entry["image_size"] == 32 and entry["run"] is None
        assert entry["parameters"] > 100_000 and entry["macs"] > 1_000_000
        for row in entry["latency"]:
            assert 0 < row["p50_ms"] <= row["p95_ms"] and row["runs"] >= 3
            assert row["images_per_s"] == pytest.approx(1000 * row["batch"] / row["p50_ms"], rel=0.01)
        assert {"inference_bytes", "training_bytes", "training_checkpointed_bytes"} <= entry["memory"].keys()
    json.dumps(both.to_dict(), allow_nan=False)


def test_every_engine_that_works_here_ran_at_every_batch_size_or_says_why_not(both: Profile) -> None:
    for entry in both.models:
        ran = {row["engine"] for row in entry["latency"]}
        left_out = {each["engine"] for each in entry["skipped"]}
        assert ran | left_out == set(choose_engines(["auto"], "cpu")) and not ran & left_out
        assert {"eager", "onnxruntime"} <= ran
        for engine in ran:
            assert [row["batch"] for row in entry["latency"] if row["engine"] == engine] == [1, 3]


def test_engines_are_compared_with_eager(both: Profile) -> None:
    for row in both.models[0]["latency"]:
        allowed = {"eager": 0.0, "packed-bf16": 0.1}.get(row["engine"], 1e-4)
        assert row["difference"] <= allowed, row


def test_memory_is_measured_and_predicted_within_five_percent(both: Profile) -> None:
    transformer, convolutional = (entry["memory"] for entry in both.models)
    for memory, method in ((transformer, "closed form"), (convolutional, "counted")):
        assert memory["batch"] == 3 and memory["not_measured"] is None
        assert memory["method"] == "storages followed" and memory["predicted"]["method"] == method
        assert memory["largest_error"] < 0.05
        assert [row["batch"] for row in memory["by_batch"]] == [1, 3]
        assert memory["by_batch"][1]["training_bytes"] == memory["predicted"]["training_bytes"]
        assert memory["peak_training_bytes"] > memory["peak_inference_bytes"] > memory["weights_bytes"]
    assert transformer["attention"].keys() == {"inference", "training"} and convolutional["attention"] is None
    assert sum(transformer["saved_by_part"].values()) == transformer["predicted"]["saved_bytes"]


def test_the_parts_of_a_transformer_add_up_and_its_curve_shows_attention_growing(both: Profile) -> None:
    transformer, convolutional = both.models
    assert sum(transformer["macs_by_part"].values()) == transformer["macs"]
    here = next(point for point in transformer["curve"] if point["image_size"] == 32)
    assert here["macs"] == transformer["macs"] and here["tokens"] == transformer["tokens"]
    shares = [point["attention_share"] for point in transformer["curve"]]
    assert shares == sorted(shares) and shares[-1] > 2 * shares[0]
    assert convolutional["macs_by_part"] is None and convolutional["curve"][0]["attention_share"] is None


def test_the_text_holds_what_a_person_looks_for(both: Profile) -> None:
    text = profile_text(both)
    for said in (
        f"{both.models[0]['parameters'] / 1e3:.2f} k parameters", "activation memory in fp32, batch of 3", "closed form", "counted", "training, blocks recomputed",
        "p95", "images/s", "onnxruntime", "attention scores", "From 64 to 128 px: tokens × 4.0, attention × 16.0, the rest × ",
    ):  # fmt: skip
        assert said in text, said
    assert max(map(len, text.splitlines())) < 180


def test_the_curve_marks_the_size_of_the_model_and_its_longest_bar_is_the_costliest(both: Profile) -> None:
    lines = curve_text(both.models[0]["curve"], 32).splitlines()
    assert [line.startswith("32 px") for line in lines if line.endswith("<")] == [True]
    bars = [line.count("█") + line.count("░") for line in lines if " px " in line and "%" in line]
    assert bars == sorted(bars) and bars[-1] == 32


def test_a_profile_is_written_with_a_picture_of_each_curve(both: Profile, tmp_path: Path) -> None:
    folder, note = write_profile(both, tmp_path / "cost")
    assert note == "" and sorted(path.name for path in folder.iterdir()) == [
        "profile.json", "resnet_micro_resolution.png", "vit_micro_resolution.png",
    ]  # fmt: skip
    assert json.loads((folder / "profile.json").read_text(encoding="utf-8"))["models"][0]["name"] == "vit_micro"
    with Image.open(folder / "vit_micro_resolution.png") as picture:
        assert picture.width > 1000
    again, note = write_profile(both, tmp_path / "cost")
    assert again == tmp_path / "cost-2" and "cost-2" in note


def test_a_run_is_profiled_with_its_own_size_classes_and_weights(trained: Path) -> None:
    (entry,) = profile([str(trained)], batches=(2,), engines=["eager"], **QUICK).models
    facts = json.loads((trained / "run.json").read_text(encoding="utf-8"))
    assert entry["run"] == str(trained) and entry["image_size"] == 16
    assert (entry["parameters"], entry["macs"]) == (facts["parameters"], facts["macs"])
    with pytest.raises(UsageError, match="takes images of 16 x 16 pixels, not of 32"):
        profile([str(trained)], image_size=32, **QUICK)
    with pytest.raises(RunError, match="There is no run folder"):
        profile(["runs/nowhere"], **QUICK)


def test_a_run_that_was_exported_is_timed_as_it_was_exported(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("exported again")

    monkeypatch.setattr("vitreous.export.onnx.export_onnx", refuse)
    (entry,) = profile([str(exported)], batches=(1,), engines=["eager", "onnxruntime"], **QUICK).models
    assert [row["engine"] for row in entry["latency"]] == ["eager", "onnxruntime"] and entry["skipped"] == []


def test_an_option_without_a_closed_form_is_counted_and_the_text_says_so() -> None:
    found = profile(["vit_pwee_reg1_gap"], image_size=64, batches=(1,), engines=["eager"], **QUICK)
    memory = found.models[0]["memory"]
    assert memory["predicted"]["method"] == "counted" and memory["saved_by_part"] is None
    assert memory["predicted"]["outside_closed_form"] == "block='parallel'"
    assert "counted: no closed form for block='parallel'" in profile_text(found)


@pytest.mark.parametrize(
    ("models", "settings", "said"),
    [
        ([], {}, "There is no model to profile."),
        (["vit_tinny"], {}, "Unknown model 'vit_tinny'. Did you mean 'vit_tiny'"),
        (["resnet18", "resnet5"], {}, "Unknown model 'resnet5'."),
        (["auto"], {}, "'auto' is no model to profile"),
        (["vit_micro"], {"batches": (1, 0)}, "Batch sizes must be 1 or more, got 1, 0."),
        (["vit_micro"], {"batches": ()}, "Batch sizes must be 1 or more, got none."),
        (["vit_micro"], {"seconds": 0}, "--seconds must be more than 0, got 0."),
        (["vit_micro"], {"engines": ["onxruntime"]}, "Unknown engine 'onxruntime'. Did you mean 'onnxruntime'?"),
        (["vit_micro"], {"device": "gpu"}, "Unknown device 'gpu'."),
        (["vit_tiny_patch16_224"], {"image_size": 100}, "not divisible by the patch size 16"),
        (["vgg11"], {"image_size": 8}, "does not take images of 8 x 8 pixels"),
    ],
)
def test_what_cannot_be_profiled_is_said_before_anything_is_measured(
    models: Sequence[str], settings: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("measured")

    monkeypatch.setattr(profile_module, "measure", refuse)
    with pytest.raises(UsageError) as error:
        profile(models, **(QUICK | settings))
    assert said in str(error.value)


def test_a_model_too_large_for_the_machine_is_counted_and_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile_module, "free_memory", lambda _: 1_000_000)
    listening = Listening()
    found = profile(["vit_micro"], image_size=32, batches=(1, 2), engines=["eager"], reporter=listening, **QUICK)
    (entry,) = found.models
    assert entry["latency"] == [] and entry["skipped"][0]["engine"] == "eager"
    assert entry["memory"]["method"] == "closed form" and "weights" in entry["memory"]["not_measured"]
    assert entry["memory"]["training_bytes"] == entry["memory"]["predicted"]["training_bytes"] > 0
    assert any("too large" in text for text in listening.warned)
    assert "Not measured: the weights alone take" in profile_text(found)


def test_a_batch_too_large_for_the_machine_is_left_out_of_the_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile_module, "free_memory", lambda _: 50_000_000)
    listening = Listening()
    found = profile(["vit_micro"], image_size=32, batches=(1, 100_000), engines=["eager"], reporter=listening, **QUICK)
    (entry,) = found.models
    assert [row["batch"] for row in entry["latency"]] == [1]
    assert any("A batch of 100,000 would take" in text for text in listening.warned)


def test_memory_of_a_costly_model_is_not_measured_for_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile_module, "MOST_MEASURED_MACS", 1_000_000)
    (entry,) = profile(["vit_micro"], image_size=32, batches=(1,), engines=["eager"], **QUICK).models
    assert entry["memory"]["not_measured"] == "one training step would take minutes"
    assert len(entry["latency"]) == 1


def test_an_engine_that_fails_is_left_out_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise ValueError("no such operator\nand a long story")

    monkeypatch.setitem(ENGINES, "onnxruntime", broken)
    listening = Listening()
    found = profile(
        ["vit_micro"], image_size=32, batches=(1,), engines=["eager", "onnxruntime"], reporter=listening, **QUICK
    )
    (entry,) = found.models
    assert entry["skipped"] == [{"engine": "onnxruntime", "reason": "ValueError: no such operator"}]
    assert "without onnxruntime: ValueError: no such operator" in profile_text(found)


def test_engines_take_turns_and_each_runs_at_least_three_times(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    class Fake:
        def __init__(self, name: str) -> None:
            self.name = name

        def predict(self, batch: np.ndarray) -> Outputs:
            calls.append(self.name)
            return Outputs(np.ones((len(batch), 2), np.float32), np.ones((len(batch), 3), np.float32))

    for name in ("eager", "packed"):
        monkeypatch.setitem(ENGINES, name, lambda *_, name=name: Fake(name))
    model = torch.nn.Identity()
    spec = profile_module.subject("vit_micro", 32).spec
    found = latency.time_engines(latency.Bare(model, spec, "cpu", None), ["eager", "packed"], [2], 1e-9, Silent())
    assert calls[-6:] == ["eager", "packed"] * 3
    assert [(row.engine, row.runs, row.difference) for row in found.found] == [("eager", 3, 0.0), ("packed", 3, 0.0)]


def test_where_the_model_is_on_another_device_only_eager_runs() -> None:
    assert choose_engines(["auto"], "cuda") == ["eager"]
    assert choose_engines(["packed", "eager", "packed"], "cuda") == ["packed", "eager"]
    bare = latency.Bare(torch.nn.Identity(), profile_module.subject("vit_micro", 32).spec, "cuda", None)
    found = latency.time_engines(bare, ["packed"], [1], 1e-9, Silent())
    assert found.found == [] and "runs on the CPU" in found.skipped[0]["reason"]


def test_training_memory_is_that_of_the_way_training_computes() -> None:
    """On some processors fp32 training computes attention in the open, and inference in eager mode does not."""
    (entry,) = profile(["vit_micro"], image_size=64, batches=(2,), engines=["eager"], **QUICK).models
    skeleton = profile_module.subject("vit_micro", 64).skeleton()
    expected = count(skeleton, (3, 64, 64), 2, training=profile_module.training_products("cpu"))
    assert entry["memory"]["training_bytes"] == expected.training
    assert entry["memory"]["inference_bytes"] == expected.inference


def test_a_convolutional_model_alone_is_profiled_in_a_fresh_process(in_process: Callable[..., Any]) -> None:
    code = (
        "import os; os.environ['OMP_WAIT_POLICY'] = 'PASSIVE'\n"
        "from vitreous.workflows.profile import profile\n"
        "found = profile(['resnet_micro'], batches=(1,), engines=('eager',), seconds=0.01)\n"
        "assert found.models[0]['macs'] > 0\n"
    )
    done = in_process(code)
    assert done.returncode == 0, done.stderr
