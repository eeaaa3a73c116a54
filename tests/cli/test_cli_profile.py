"""`vitreous profile`: what the terminal and a program behind `--json` get."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vitreous.cli.profile import batch_sizes
from vitreous.errors import UsageError

QUICK = ("--seconds", "0.001", "--engines", "eager", "--image-size", "32", "--device", "cpu")


def test_json_is_one_object_with_the_keys_of_the_design_and_progress_goes_elsewhere(
    call: Callable[..., Any], tmp_path: Path
) -> None:
    done = call(
        "profile", "vit_micro", "resnet_micro", *QUICK, "--batch", "1,2", "--curve", "--json", "--out", tmp_path / "x"
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [entry["name"] for entry in found["models"]] == ["vit_micro", "resnet_micro"]
    for entry in found["models"]:
        assert entry.keys() >= {"name", "parameters", "macs", "image_size", "latency", "memory"}
        assert [(row["engine"], row["batch"]) for row in entry["latency"]] == [("eager", 1), ("eager", 2)]
        for row in entry["latency"]:
            assert row.keys() >= {"engine", "batch", "p50_ms", "p95_ms", "images_per_s"}
        assert entry["memory"].keys() >= {"inference_bytes", "training_bytes"}
        assert len(entry["curve"]) == 6
    assert found["folder"] == str(tmp_path / "x") and (tmp_path / "x" / "profile.json").is_file()
    assert "measuring the activation memory" in done.stderr


def test_the_terminal_shows_tables_and_writes_nothing_unasked(
    call: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = call("profile", "vit_micro", *QUICK, "--batch", "1")
    assert done.returncode == 0, done.stderr
    for said in ("760.52 k parameters", "closed form", "p50", "eager", "Measured on "):
        assert said in done.stdout
    assert "image size" not in done.stdout  # no --curve
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "There is no model to profile. Such as: vitreous profile vit_base_patch16_224 resnet50"),
        (("vit_tinny",), "Unknown model 'vit_tinny'. Did you mean 'vit_tiny'"),
        (("vit_micro", "--batch", "1,x"), "--batch got 'x', which is not a whole number of at least 1."),
        (("vit_micro", "--batch", "8,0"), "--batch got '0', which is not a whole number of at least 1."),
        (("vit_micro", "--batch", ","), "--batch names no batch size."),
        (("vit_micro", "--engines", "eagre"), "Unknown engine 'eagre'. Did you mean 'eager'?"),
        (("vit_micro", "--bach", "1"), "Unknown flag --bach. Did you mean --batch?"),
        (("vit_micro", "--seconds", "0"), "--seconds must be more than 0, got 0."),
        (("runs/gone",), "There is no run folder 'runs/gone'."),
    ],
)
def test_what_is_wrong_is_one_clear_sentence_and_exit_code_two(
    words: tuple[str, ...], said: str, call: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = call("profile", *words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert said in done.stderr
    assert done.stderr.startswith("vitreous: ") and done.stderr.count("\n") == 1


def test_batch_sizes_are_read_in_their_order_and_once() -> None:
    assert batch_sizes("8, 1,8") == [8, 1]
    with pytest.raises(UsageError, match="'-1'"):
        batch_sizes("-1")
