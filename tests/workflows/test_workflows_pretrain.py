from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import vitreous
from vitreous.data import Split
from vitreous.data.sources.detect import load_source
from vitreous.errors import DataError, RunError, UsageError
from vitreous.runs.folder import METRICS, MODEL, SPLITS, RunFolder

NET = {"depth": 2, "embed_dim": 48, "num_heads": 2}
SETTINGS: dict[str, Any] = {
    "method": "pretrain",
    "model": "vit_micro",
    "image_size": 16,
    "threads": 1,
    "offline": True,
    "batch_size": 32,
    "net": NET,
    "pretrain": {"decoder_dim": 32, "decoder_depth": 1},
}


@pytest.fixture(scope="module")
def flat(colors: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images of `colors` in one folder, without classes."""
    folder = tmp_path_factory.mktemp("flat") / "photos"
    folder.mkdir()
    for number, file in enumerate(sorted(path for path in colors.rglob("*") if path.is_file())):
        shutil.copy(file, folder / f"{number:03d}{file.suffix}")
    return folder


@pytest.fixture(scope="module")
def pretrained(colors: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run pretrained on `colors`. Read only."""
    return vitreous.train(colors, out=tmp_path_factory.mktemp("pretrained") / "run", steps=30, **SETTINGS).path


def losses(run: Path) -> list[float]:
    rows = [json.loads(line) for line in (run / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    return [row["val_loss"] for row in rows if "val_loss" in row]


def test_a_pretrained_run_says_what_it_is_and_how_well_it_draws(pretrained: Path) -> None:
    run = RunFolder.open(pretrained, pretrained=True)
    assert (run.facts["task"], run.classes, run.facts["test_scored"]) == ("pretrain", [], 0)
    found = json.loads((pretrained / METRICS).read_text(encoding="utf-8"))["val"]["reconstruction_loss"]
    assert found["low"] < found["value"] < found["high"]
    assert losses(pretrained)[-1] < losses(pretrained)[0]
    card = (pretrained / "README.md").read_text(encoding="utf-8")
    assert f"--init {pretrained}" in card and "without labels" in card
    with Image.open(pretrained / "plots" / "reconstructions.png") as picture:
        assert picture.width > 2 * picture.height - 8  # six columns, three rows


def test_the_encoder_alone_is_kept(pretrained: Path) -> None:
    kept = load_file(pretrained / MODEL)
    assert not any(name.startswith(("head.", "encoder.", "leave.", "hidden_token")) for name in kept)
    model = vitreous.create_model(str(pretrained), num_classes=4)
    own = model.state_dict()
    assert all(torch.equal(own[name], value) for name, value in kept.items())


def test_pretraining_and_the_classifier_after_it_agree_on_the_test_part(
    pretrained: Path, colors: Path, tmp_path: Path, tiny: dict[str, Any]
) -> None:
    shutil.copytree(pretrained, tmp_path / "pre", ignore=shutil.ignore_patterns("checkpoints"))
    settings = {name: value for name, value in tiny.items() if name not in ("net", "epochs")}
    fine = vitreous.train(colors, out=tmp_path / "fine", init=str(tmp_path / "pre"), steps=8, method="full", **settings)
    before, after = (Split.read_csv(tmp_path / name / SPLITS) for name in ("pre", "fine"))
    assert before.parts == after.parts and "test" in before.parts
    facts = json.loads((tmp_path / "fine" / "run.json").read_text(encoding="utf-8"))
    assert facts["architecture"]["arguments"]["embed_dim"] == NET["embed_dim"]
    assert facts["weights"]["init"] == str(tmp_path / "pre")
    assert any("head starts fresh" in note for note in facts["weights"]["notes"])
    assert fine.classes == ["blue", "green", "red"]


def test_a_folder_of_images_without_classes_is_enough(flat: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no class folders"):
        load_source(flat)
    run = vitreous.train(flat, out=tmp_path / "run", steps=4, **SETTINGS).run
    counts = run.facts["data"]["counts"]
    assert counts["test"] == 0 and counts["train"] + counts["val"] == 90 and counts["val"] > 5
    assert run.facts["data"]["labelled"] is False


def test_unlabelled_parts_keep_their_names(flat: Path, tmp_path: Path) -> None:
    for part, first in (("train", 0), ("val", 8)):
        (tmp_path / part).mkdir()
        for number in range(first, first + 8):
            file = next(flat.glob(f"{number:03d}.*"))
            shutil.copy(file, tmp_path / part / file.name)
    source = load_source(tmp_path, trainable=False, labelled=False)
    assert source.classes == [] and [sample.part for sample in source.samples] == ["train"] * 8 + ["val"] * 8


@pytest.mark.parametrize("seed", [0, 1])
def test_pretraining_repeats_bit_for_bit_also_when_it_was_interrupted(
    flat: Path, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = vitreous.train(flat, out=tmp_path / "whole", steps=6, seed=seed, **SETTINGS).path
    if seed:
        from vitreous.workflows import train as workflow

        def broken(*arguments: Any) -> RunFolder:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(workflow, "finish_pretraining", broken)
            with pytest.raises(KeyboardInterrupt):
                vitreous.train(flat, out=tmp_path / "again", steps=6, seed=seed, **SETTINGS)
        newest = sorted((tmp_path / "again" / "checkpoints").glob("step_*"))[-1]
        newest.unlink()  # so that training itself goes on from the state before
    again = vitreous.train(flat, out=tmp_path / "again", steps=6, seed=seed, resume=True, **SETTINGS).path
    assert (whole / MODEL).read_bytes() == (again / MODEL).read_bytes()


def test_a_run_whose_pretraining_did_not_finish_is_nothing_to_start_from(pretrained: Path, tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    facts = json.loads((pretrained / "run.json").read_text(encoding="utf-8"))
    (tmp_path / "half" / "run.json").write_text(json.dumps(facts | {"status": "training"}), encoding="utf-8")
    with pytest.raises(RunError, match="half written"):
        vitreous.train("digits", init=str(tmp_path / "half"), out=tmp_path / "fine")


@pytest.mark.parametrize("verb", ["predict", "evaluate", "export", "explain", "serve"])
def test_verbs_that_need_classes_say_what_to_type_next(verb: str, pretrained: Path, flat: Path, call: Callable) -> None:
    words = {"predict": [flat / "000.png"], "explain": [next(flat.glob("*"))]}.get(verb, [])
    found = call(verb, pretrained, *words)
    assert found.returncode == 2
    assert "knows no classes yet" in found.stderr
    assert f"vitreous train DATA --init {pretrained}" in " ".join(found.stderr.split())


def test_a_pretrained_model_in_python_answers_nothing_but_has_its_module(pretrained: Path, colors: Path) -> None:
    with pytest.raises(RunError, match="knows no classes yet"):
        vitreous.load(pretrained)
    run = RunFolder.open(pretrained, pretrained=True)
    held = vitreous.Classifier(run, "auto", 1)
    assert isinstance(held.model, vitreous.VisionTransformer)
    assert held.model.forward_features(torch.zeros(1, 3, 16, 16)).shape[-1] == NET["embed_dim"]
    for ask in (lambda: held.predict(next(colors.rglob("*.png"))), lambda: held.evaluate(colors), held.export):
        with pytest.raises(RunError, match="knows no classes yet"):
            ask()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "resnet18"}, "is convolutional and has none"),
        ({"distill": {"teacher": "runs/big"}}, "--distill.teacher runs/big has no meaning"),
        ({"k_fold": "1/5"}, "--k-fold 1/5 has no meaning"),
        ({"seeds": 3}, "--seeds 3 has no meaning"),
        ({"balance": "weights"}, "--balance weights has no meaning"),
    ],
)
def test_what_needs_labels_or_patches_is_refused(flat: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        vitreous.train(flat, **{**SETTINGS, "net": {}, **changes})
