"""Learning from a trained model: a probe, adapters, the head alone, and a head in closed form before fine-tuning."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

import vitreous
from vitreous.config.input import InputSpec
from vitreous.config.train import NetConfig, TrainConfig
from vitreous.errors import UsageError
from vitreous.models.layers.pool import ClassAndMeanPool
from vitreous.models.vit import VisionTransformer
from vitreous.runs import RunFolder
from vitreous.runs.decision import probabilities
from vitreous.workflows import probe as workflow
from vitreous.workflows.initial import prepare_model
from vitreous.workflows.probe import settle_head
from vitreous.workflows.reporter import Silent


class Listener(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.said.append(text)


def quick(tiny: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A run of two epochs from a trained model, whose shape comes with it."""
    return {name: value for name, value in tiny.items() if name in ("image_size", "threads", "offline")} | changes


@pytest.fixture(scope="module")
def probed(
    trained: Path, colors: Path, tiny: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Any]:
    """A run folder made with `--method probe`, and the probe that was fitted."""
    fitted: list[Any] = []
    original = workflow.fit_probe

    def remember(*arguments: Any, **options: Any) -> Any:
        fitted.append(original(*arguments, **options))
        return fitted[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workflow, "fit_probe", remember)
        out = tmp_path_factory.mktemp("probe") / "run"
        vitreous.train(colors, out=out, **quick(tiny, method="probe", init=str(trained)))
    return out, fitted[0]


def test_a_probe_is_an_ordinary_run_folder_that_answers_what_the_probe_answers(probed: tuple[Path, Any]) -> None:
    path, probe = probed
    run, clf = RunFolder.open(path), vitreous.load(path)
    table = pq.read_table(path / "predictions.parquet").to_pylist()
    assert {row["part"] for row in table} == {"val", "test"}
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(20, *run.spec.shape, generator=generator)
    with torch.no_grad():
        features = clf.model.pool(clf.model.forward_features(images))  # type: ignore[operator]
        wanted = features.double() @ probe.weight.T + probe.bias
        found = clf.model(images).double()
    np.testing.assert_allclose(probabilities(found.numpy()), probabilities(wanted.numpy()), atol=1e-5)
    np.testing.assert_allclose(found, wanted, atol=1e-5 * float(wanted.abs().max()), rtol=1e-5)


def test_only_the_head_of_a_probed_model_differs_from_what_it_began_from(
    probed: tuple[Path, Any], trained: Path
) -> None:
    before, after = load_file(trained / "model.safetensors"), load_file(probed[0] / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"head.weight", "head.bias"}


def test_the_history_of_a_probe_tells_every_strength_and_the_neighbours(probed: tuple[Path, Any]) -> None:
    rows = [json.loads(line) for line in (probed[0] / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    strengths = [row["strength"] for row in rows]
    assert strengths == sorted(strengths, reverse=True) and all(row["iterations"] > 0 for row in rows)
    assert 0.3 < rows[-1]["val_neighbours_accuracy"] <= 1
    metrics = json.loads((probed[0] / "metrics.json").read_text(encoding="utf-8"))
    assert any("nearest neighbours" in note for note in metrics["notes"])
    assert metrics["test"]["accuracy"]["value"] > 0.8


def test_the_same_probe_again_takes_its_features_from_the_cache_and_is_the_same_to_the_bit(
    probed: tuple[Path, Any], trained: Path, colors: Path, tiny: dict[str, Any], tmp_path: Path
) -> None:
    again = vitreous.train(colors, out=tmp_path / "again", **quick(tiny, method="probe", init=str(trained)))
    one, two = load_file(probed[0] / "model.safetensors"), load_file(again.path / "model.safetensors")
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"epochs": 3}, r"--epochs 3 would change nothing.*--method head"),
        ({"optim": {"lr": 0.1}, "augment": {"mixup": 0.2}}, r"--optim\.lr and --augment\.mixup"),
    ],
    ids=["epochs", "optim"],
)
def test_settings_of_steps_are_refused_for_a_probe_that_has_none(
    trained: Path, colors: Path, tiny: dict[str, Any], tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        vitreous.train(colors, out=tmp_path / "run", **quick(tiny, method="probe", init=str(trained), **settings))
    assert not (tmp_path / "run").exists()


def test_a_probe_is_repeated_from_its_stored_settings_and_its_history_is_tracked(
    probed: tuple[Path, Any], colors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[Any] = []

    @contextlib.contextmanager
    def tracking(*arguments: Any) -> Iterator[Any]:
        yield rows.append

    monkeypatch.setattr("vitreous.workflows.train.tracking", tracking)
    vitreous.train(colors, out=tmp_path / "again", config=probed[0] / "config.json")
    history = (tmp_path / "again" / "history.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(rows) == len(history) > 3
    one, two = (load_file(path / "model.safetensors") for path in (probed[0], tmp_path / "again"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_probe_of_a_model_that_reads_its_class_token_reads_the_patches_too(tmp_path: Path) -> None:
    net: dict[str, Any] = {"embed_dim": 16, "depth": 1, "num_heads": 2, "pooling": "cls", "class_token": True}
    spec = InputSpec(height=16, width=16, channels=1, mean=(0.5,), std=(0.5,), classes=("a", "b"))
    config = TrainConfig(model="vit_micro", image_size=16, net=NetConfig(**net), init="scratch")
    start = prepare_model(config, spec, Silent())
    save_file(start.model.state_dict(), tmp_path / "weights.safetensors")
    again = TrainConfig(
        model="vit_micro",
        image_size=16,
        net=NetConfig(**net),
        init=str(tmp_path / "weights.safetensors"),
        method="probe",
    )
    probed = prepare_model(again, spec, Silent())
    assert isinstance(probed.model, VisionTransformer) and isinstance(probed.model.pooler, ClassAndMeanPool)
    assert probed.architecture.arguments["pooling"] == "cls_mean"
    images = torch.rand(2, 1, 16, 16)
    torch.testing.assert_close(probed.model.forward_features(images), start.model.forward_features(images))  # type: ignore[operator]


def test_adapters_are_part_of_the_weights_in_the_end_and_the_body_has_moved_by_low_rank_alone(
    trained: Path, colors: Path, tiny: dict[str, Any], tmp_path: Path
) -> None:
    run = vitreous.train(
        colors,
        out=tmp_path / "lora",
        **quick(tiny, method="lora", init=str(trained), epochs=2, lora={"rank": 2, "alpha": 4.0}),
    )
    before, after = load_file(trained / "model.safetensors"), load_file(run.path / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    linear = {f"blocks.{i}.{part}.weight" for i in (0, 1) for part in ("attention.qkv", "attention.projection", "mlp.expand", "mlp.contract")}  # fmt: skip
    assert linear <= changed <= linear | {"head.weight", "head.bias"}
    difference = after["blocks.0.attention.qkv.weight"] - before["blocks.0.attention.qkv.weight"]
    values = torch.linalg.svdvals(difference)
    assert values[1] > 1e-5 and values[2] < 1e-3 * values[0]


def test_the_head_alone_learns_from_a_closed_form_on(
    trained: Path, colors: Path, tiny: dict[str, Any], tmp_path: Path
) -> None:
    run = vitreous.train(
        colors,
        out=tmp_path / "head",
        **quick(tiny, method="head", init=str(trained), epochs=2, head_init="closed-form"),
    )
    before, after = load_file(trained / "model.safetensors"), load_file(run.path / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"head.weight", "head.bias"}
    stored = json.loads((run.path / "config.json").read_text(encoding="utf-8"))
    assert stored["method"] == "head" and stored["head_init"] == "closed-form"


def test_a_run_with_a_hidden_head_is_saved_loaded_and_explained(
    colors: Path, tiny: dict[str, Any], tmp_path: Path
) -> None:
    settings = tiny | {"epochs": 1, "net": tiny["net"] | {"head_hidden": 8, "dropout": 0.3}}
    run = vitreous.train(colors, out=tmp_path / "hidden", **settings)
    clf = vitreous.load(run.path)
    assert "head.hidden.weight" in clf.model.state_dict()
    image = next((colors).rglob("*.png"))
    assert clf.explain(image, method="relevance", faithfulness=False).heatmap.ndim == 2
    exported = clf.export("onnx")
    assert exported


@pytest.mark.parametrize("settings", [{"method": "probe"}, {"head_init": "closed-form"}], ids=str)
def test_a_closed_form_for_a_head_with_a_hidden_layer_is_refused(settings: dict[str, Any]) -> None:
    spec = InputSpec(height=16, width=16, channels=1, mean=(0.5,), std=(0.5,), classes=("a", "b"))
    config = TrainConfig(model="vit_micro", image_size=16, init="scratch", net=NetConfig(head_hidden=4), **settings)
    start = prepare_model(config, spec, Silent())
    with pytest.raises(UsageError, match="HiddenHead"):
        settle_head(config, start)


def test_auto_fits_the_head_only_where_the_body_is_trained_and_the_head_is_new() -> None:
    spec = InputSpec(height=16, width=16, channels=1, mean=(0.5,), std=(0.5,), classes=("a", "b"))
    scratch = TrainConfig(model="vit_micro", image_size=16, init="scratch", method="full")
    start = prepare_model(scratch, spec, Silent())
    from_file = TrainConfig(model="vit_micro", image_size=16, init="somewhere", method="full")
    assert settle_head(scratch, start).head_init == "zero"
    assert settle_head(from_file, start).head_init == "closed-form"
    with torch.no_grad():
        start.model.head.weight.fill_(0.1)  # type: ignore[union-attr, operator]
    assert settle_head(from_file, start).head_init == "zero"
