from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

import vitreous
from vitreous.config.train import DistillConfig, TrainConfig
from vitreous.errors import RunError, UsageError, WeightsError
from vitreous.models import published as timms
from vitreous.models.fetch import Published
from vitreous.models.load import load_model
from vitreous.runs.atomic import sha256_file
from vitreous.runs.folder import MODEL, RUN_JSON, RunFolder
from vitreous.workflows.reporter import Silent
from vitreous.workflows.teacher import find_teacher

STUDENT: dict[str, Any] = {"model": "vit_micro", "net": {"depth": 1, "embed_dim": 32, "num_heads": 2}, "epochs": 8}


def train(data: Path, out: Path, tiny: dict[str, Any], **changes: Any) -> RunFolder:
    return vitreous.train(data, out=out, **{**tiny, **STUDENT, **changes}).run


def test_a_student_learns_from_a_run_of_another_size_and_says_from_whom(
    trained: Path, colors: Path, tmp_path: Path, tiny: dict[str, Any]
) -> None:
    asked = {"teacher": str(trained), "kind": "patient"}
    run = train(colors, tmp_path / "student", tiny, image_size=12, distill=asked)
    teacher = run.facts["teacher"]
    assert (teacher["source"], teacher["kind"]) == (str(trained), "patient")
    assert teacher["version"] == RunFolder.open(trained).version and teacher["macs"] > 0
    assert teacher["accuracy"] == RunFolder.open(trained).facts["headline"]["accuracy"]
    assert teacher["licence"]
    assert run.facts["headline"]["accuracy"]["value"] > 0.7  # without a single label; chance is a third


def test_a_hard_teacher_speaks_to_the_distillation_token(
    trained: Path, colors: Path, tmp_path: Path, tiny: dict[str, Any]
) -> None:
    net = {**STUDENT["net"], "distillation_token": True, "class_token": True, "pooling": "cls"}
    run = train(
        colors, tmp_path / "student", tiny, net=net, epochs=1, distill={"teacher": str(trained), "kind": "hard"}
    )
    weights = load_file(run.path / MODEL)
    assert weights["head.label.weight"].any() and weights["head.teacher.weight"].any()
    assert not torch.equal(weights["head.label.weight"], weights["head.teacher.weight"])


def test_a_run_that_is_continued_asks_the_same_teacher_wherever_it_is(
    trained: Path, colors: Path, tmp_path: Path, tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vitreous.workflows import train as workflow

    here, there, changed = (tmp_path / name for name in ("here", "there", "changed"))
    for place in (here, there, changed):
        shutil.copytree(trained, place, ignore=shutil.ignore_patterns("checkpoints"))
    weights = {name: value + 0.01 for name, value in load_file(changed / MODEL).items()}
    save_file(weights, changed / MODEL)
    facts = json.loads((changed / RUN_JSON).read_text(encoding="utf-8"))
    facts["files"][MODEL] = sha256_file(changed / MODEL)
    (changed / RUN_JSON).write_text(json.dumps(facts), encoding="utf-8")
    asked = {"teacher": str(here)}
    whole = train(colors, tmp_path / "whole", tiny, epochs=2, distill=asked)

    def broken(*arguments: Any) -> RunFolder:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(workflow, "finish", broken)
        with pytest.raises(KeyboardInterrupt):
            train(colors, tmp_path / "student", tiny, epochs=2, distill=asked)
    sorted((tmp_path / "student" / "checkpoints").glob("step_*"))[-1].unlink()
    shutil.rmtree(here)
    with pytest.raises(RunError, match="There is no teacher"):
        train(colors, tmp_path / "student", tiny, resume=True)
    with pytest.raises(RunError, match="other weights than when this run began"):
        train(colors, tmp_path / "student", tiny, resume=True, distill={"teacher": str(changed)})
    again = train(colors, tmp_path / "student", tiny, resume=True, distill={"teacher": str(there)})
    assert (again.path / MODEL).read_bytes() == (whole.path / MODEL).read_bytes()


def test_classes_are_matched_by_name_not_by_number(trained: Path) -> None:
    run = RunFolder.open(trained)
    spec = vitreous.InputSpec(**{**run.spec.to_dict(), "classes": ("red", "blue", "green"), "decode": run.spec.decode})  # type: ignore[arg-type]
    config = TrainConfig(distill=DistillConfig(teacher=str(trained), kind="soft", weight=0.5, temperature=1.0))
    found = find_teacher(config, spec, "cpu", 1_000_000, Silent(), None)
    assert found is not None
    images = torch.randn(4, *spec.shape)
    own = load_model(run)(images)[:, [run.classes.index(name) for name in spec.classes]]
    assert torch.allclose(found.teach(images), own, atol=1e-6)


def test_a_teacher_of_other_classes_is_refused_by_name(
    trained: Path, make_images: Callable[..., Path], tmp_path: Path, tiny: dict[str, Any]
) -> None:
    data = make_images(tmp_path / "two", 30, colors=("red", "green"))
    with pytest.raises(UsageError, match="knows 'blue', which the data lack"):
        train(data, tmp_path / "student", tiny, distill={"teacher": str(trained)})
    assert not (tmp_path / "student").exists()


def test_what_is_no_teacher_is_refused_before_any_image_is_read(trained: Path, tmp_path: Path) -> None:
    for teacher, error, words in (
        ("runs/nothing", RunError, "There is no teacher"),
        (str(trained / MODEL), UsageError, "does not say which model"),
        ("timm:resnet1", WeightsError, "timm has no model"),
        ("timm:vit_base_patch14_dinov2", WeightsError, "have no classifier"),
    ):
        with pytest.raises(error, match=words):
            vitreous.train("digits", out=tmp_path / "run", distill={"teacher": teacher}, offline=True, epochs=1)
    with pytest.raises(UsageError, match="without a teacher"):
        vitreous.train("digits", out=tmp_path / "run", distill={"kind": "hard"})


@pytest.mark.parametrize("name", ["resnet10t", "swin_tiny_patch4_window7_224"])
def test_any_published_timm_model_teaches_with_its_own_input(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: Path
) -> None:
    """The published file is stood in for by one of random weights; three classes stand in for a thousand."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3).eval()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr(Published, "cached", tmp_path / "model.safetensors")
    config = TrainConfig(distill=DistillConfig(teacher=f"timm:{name}", kind="soft", weight=0.5, temperature=1.0))
    spec = RunFolder.open(trained).spec
    with pytest.raises(UsageError, match="1,000 classes, and these data have 3"):
        find_teacher(config, spec, "cpu", 1, Silent(), None)
    monkeypatch.setattr(timms, "published_classes", lambda name: 3)
    monkeypatch.setattr("vitreous.workflows.teacher.published_classes", lambda name: 3)
    found = find_teacher(config, spec, "cpu", 1, Silent(), None)
    assert found is not None and found.facts["architecture"] == name and found.facts["licence"]
    images = torch.randn(1, *spec.shape)
    pretrained = timm.get_pretrained_cfg(name)
    assert pretrained is not None
    seen = found.teach.convert(images)
    assert tuple(seen.shape[1:]) == pretrained.input_size
    raw = images * torch.tensor(spec.std).view(-1, 1, 1) + torch.tensor(spec.mean).view(-1, 1, 1)
    assert np.allclose(
        float(seen.mean()),
        float(
            ((raw - torch.tensor(pretrained.mean).view(-1, 1, 1)) / torch.tensor(pretrained.std).view(-1, 1, 1)).mean()
        ),
        atol=0.1,
    )
    assert torch.allclose(found.teach(images), model(seen), atol=1e-4)


def test_a_published_teacher_that_is_not_here_is_an_error_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Published, "cached", None)
    with pytest.raises(WeightsError, match="--offline forbids"):
        timms.fetch_published("resnet10t", offline=True)
