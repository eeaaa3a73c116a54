"""The tour, once from end to end with a shortened training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vitreous.runs import RunFolder


@pytest.mark.slow
def test_the_quickstart_trains_compares_explains_exports_and_serves(
    call: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vitreous.workflows.quickstart.EPOCHS", 1)
    done = call("quickstart", "--out", tmp_path / "tour", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    run = RunFolder.open(found["run"])
    assert run.facts["data"]["source"] == "digits"
    assert found["metrics"]["test"]["accuracy"]["n"] == run.facts["data"]["counts"]["test"]
    assert [entry["name"] for entry in found["comparison"]["models"]] == ["vit_micro", "resnet_micro"]
    assert len(found["comparison"]["pairs"]) == 1
    assert len(found["heat_maps"]) == 5
    assert all(entry["faithfulness"].keys() >= {"deletion", "insertion"} for entry in found["heat_maps"])
    assert found["export"]["parity"]["top1_agreement"] == 1
    assert run.export_file("onnx") == Path(found["export"]["files"][0])
    served = found["served"]
    assert served["true"] == "9"
    assert served["model"] and served["predictions"][0]["label"] in run.classes
    for name in (
        "vit_micro/report.html",
        "vit_micro/explanations/digits.png",
        "resnet_micro/run.json",
        "comparison.json",
    ):
        assert (tmp_path / "tour" / name).is_file(), name
