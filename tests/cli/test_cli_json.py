"""`--json`: one object on stdout with the keys that programs rely on, for answers and for errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vitreous.cli.output import Console
from vitreous.errors import ImageError, VitreousError


def whole(text: str) -> dict[str, Any]:
    """The one object that stdout holds; a second one, or a word before it, is an error."""
    found = json.loads(text)
    assert isinstance(found, dict)
    return found


def test_train_and_evaluate_give_the_run_and_its_metrics(
    call: Callable[..., Any], run_copy: Path, colors: Path
) -> None:
    for words in (("train", colors, "--out", run_copy, "--resume"), ("evaluate", run_copy)):
        done = call(*words, "--json")
        assert done.returncode == 0, done.stderr
        found = whole(done.stdout)
        assert found["run"] == str(run_copy)
        assert found["metrics"]["val"]["accuracy"].keys() == {"value", "low", "high", "n", "method"}
    assert whole(call("train", colors, "--out", run_copy, "--resume", "--json").stdout)["metrics"] == json.loads(
        (run_copy / "metrics.json").read_text(encoding="utf-8")
    )


def test_predict_gives_an_entry_for_each_image(call: Callable[..., Any], exported: Path, colors: Path) -> None:
    done = call("predict", exported, colors / "red", "--top", "2", "--json")
    found = whole(done.stdout)
    assert len(found["predictions"]) == 30 and found["bad_files"] == []
    for entry in found["predictions"]:
        assert entry.keys() >= {"path", "label", "score", "top", "abstain", "ood"}
        assert [set(choice) for choice in entry["top"]] == [{"label", "score"}] * 2
        assert isinstance(entry["abstain"], bool) and 0 <= entry["ood"] <= 1


def test_explain_gives_files_and_faithfulness(
    call: Callable[..., Any], trained: Path, colors: Path, tmp_path: Path
) -> None:
    done = call("explain", trained, colors / "red" / "plain_00.png", "--out", tmp_path / "maps", "--json")
    (entry,) = whole(done.stdout)["images"]
    assert entry.keys() >= {"path", "target", "method", "heatmap", "overlay", "faithfulness"}
    assert entry["faithfulness"].keys() >= {"deletion", "insertion", "random_deletion", "random_insertion"}
    assert Path(entry["heatmap"]).is_file() and Path(entry["overlay"]).is_file()


def test_export_gives_files_and_the_proof(call: Callable[..., Any], run_copy: Path) -> None:
    for reused in (False, True):
        done = call("export", run_copy, "--json")
        assert done.returncode == 0, done.stderr
        found = whole(done.stdout)
        assert found["reused"] == reused
        assert found["parity"].keys() >= {"max_abs_difference", "top1_agreement", "batches"}
        assert found["files"][0] == str(run_copy / "exports" / "onnx" / "model.onnx")
        assert all(Path(file).is_file() for file in found["files"])


def test_models_gives_names_with_their_cost(call: Callable[..., Any]) -> None:
    entries = whole(call("models", "--filter", "vit_tiny", "--json").stdout)["models"]
    by_name = {entry["name"]: entry for entry in entries}
    assert all("vit_tiny" in name for name in by_name)
    # DeiT-Ti: 5.7 M parameters and 1.3 G multiply-accumulates at 224 pixels (arXiv:2012.12877, table 1).
    tiny = by_name["vit_tiny_patch16_224"]
    assert tiny["parameters"] == 5_717_416
    assert tiny["macs"] == pytest.approx(1.26e9, rel=0.02)
    assert tiny["pretrained"].startswith("timm:") and tiny["licence"] == "apache-2.0"


@pytest.mark.parametrize(
    ("text", "found"), [("siglip2", "vit_base_siglip"), ("sbb", "vit_wee_reg1_gap"), ("augreg", "vit_tiny")]
)
def test_models_are_found_by_paper_and_by_tag(call: Callable[..., Any], text: str, found: str) -> None:
    entries = whole(call("models", "--filter", text, "--json").stdout)["models"]
    assert found in {entry["name"] for entry in entries}


def test_doctor_gives_versions_devices_extras_and_engines(call: Callable[..., Any]) -> None:
    found = whole(call("doctor", "--json").stdout)
    assert found.keys() >= {"versions", "devices", "extras", "engines"}
    assert found["versions"].keys() >= {"python", "vitreous", "torch", "onnxruntime"}
    assert found["devices"][0]["name"] == "cpu" and found["devices"][0]["cores"] >= 1
    assert set(found["extras"]) == {"train", "serve", "export", "track"}
    assert {engine["name"] for engine in found["engines"]} == {"eager", "onnxruntime", "packed", "packed-bf16"}
    assert found["fast_paths"]["cpu"].endswith(".")
    text = call("doctor")
    assert text.returncode == 0 and "engine onnxruntime" in text.stdout


@pytest.mark.parametrize(
    ("words", "code", "number"),
    [
        (("trian",), "usage", 2),
        (("train", "x", "--modl", "y"), "usage", 2),
        (("train", "gone"), "data", 2),
        (("evaluate", "gone"), "run", 2),
        (("predict", "gone", "a.png"), "run", 2),
        (("export", "gone"), "run", 2),
        (("explain", "gone", "a.png"), "run", 2),
    ],
)
def test_an_error_is_one_object_with_code_message_and_hint(
    words: tuple[str, ...], code: str, number: int, call: Callable[..., Any], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    done = call(*words, "--json")
    assert done.returncode == number
    error = whole(done.stdout)["error"]
    assert error.keys() == {"code", "message", "hint"}
    assert error["code"] == code and error["message"] and error["hint"]
    assert not list(tmp_path.iterdir())


def test_what_nobody_foresaw_is_our_fault_and_shows_its_traceback_only_under_debug(
    call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("vitreous.workflows.environment.describe", broken)
    plain, debug = call("doctor"), call("doctor", "--debug")
    assert plain.returncode == debug.returncode == 1
    assert plain.stderr.startswith(
        "vitreous: Something went wrong inside vitreous (ZeroDivisionError: division by zero"
    )
    assert plain.stderr.count("\n") == 1
    assert "Traceback" in debug.stderr
    assert whole(call("doctor", "--json").stdout)["error"]["code"] == "internal"


def test_every_error_leaves_with_its_own_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    def tree(kind: type[VitreousError]) -> list[type[VitreousError]]:
        return [kind, *(below for child in kind.__subclasses__() for below in tree(child))]

    codes = {}
    for kind in (kind for kind in tree(VitreousError) if kind.__module__ == "vitreous.errors"):
        arguments = ("x", "train", "torch") if kind.__name__ == "MissingExtraError" else ("What. ", "Hint.")
        codes[kind.__name__] = Console(json=True).fail(kind(*arguments))
        assert "error" in whole(capsys.readouterr().out)
    assert set(codes.values()) == {1, 2, 3, 75}
    assert (codes["VitreousError"], codes["GateError"], codes["StoppedError"]) == (1, 3, 75)
    assert codes["ImageError"] == ImageError.exit_code == 2


def test_progress_goes_to_stderr_only(call: Callable[..., Any], exported: Path, colors: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("vitreous.cli.output.PLAIN_EVERY", 0.0)
    done = call("predict", exported, colors, "--json")
    whole(done.stdout)
    assert "predicting: 90/90 images" in done.stderr
