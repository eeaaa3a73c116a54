"""The Python API: what `import vitreous` offers, in the shapes that the design promises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vitreous
from vitreous.errors import DataError, RunError, UsageError, WeightsError


def test_the_public_names_are_these_and_all_of_them_resolve() -> None:
    assert set(vitreous.__all__) == {
        "Classifier", "Explanation", "InputSpec", "MultiHeadAttention", "PatchEmbedding", "Prediction", "TrainConfig",
        "TransformerBlock", "VisionTransformer", "__version__", "audit", "create_model", "load", "train",
    }  # fmt: skip
    for name in vitreous.__all__:
        assert getattr(vitreous, name) is not None
    assert set(vitreous.__all__) <= set(dir(vitreous))
    with pytest.raises(AttributeError, match="'vitreous' has no attribute 'trian'"):
        vitreous.trian  # noqa: B018


def test_importing_the_package_loads_nothing_heavy_and_prints_nothing(in_process: Callable[..., Any]) -> None:
    done = in_process(
        "import os, sys; before = dict(os.environ); import vitreous; assert dict(os.environ) == before;"
        "heavy = {'torch', 'timm', 'numpy', 'PIL', 'onnxruntime', 'tyro'} & set(sys.modules); assert not heavy, heavy"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_train_returns_a_classifier_of_the_finished_run(
    make_images: Callable[..., Path], tiny: dict[str, Any], tmp_path: Path
) -> None:
    data = make_images(tmp_path / "data", 8)
    classifier = vitreous.train(str(data), model="vit_micro", out=str(tmp_path / "run"), **tiny)
    assert isinstance(classifier, vitreous.Classifier)
    assert classifier.path == tmp_path / "run"
    assert repr(classifier) == f"Classifier({str(tmp_path / 'run')!r}, vit_micro, 3 classes)"
    assert vitreous.load(tmp_path / "run").classes == classifier.classes == ["blue", "green", "red"]


def test_a_classifier_has_its_module_its_input_and_its_classes(trained: Path) -> None:
    classifier = vitreous.load(trained)
    assert isinstance(classifier.model, vitreous.VisionTransformer)
    assert not classifier.model.training
    assert classifier.model is classifier.model
    assert isinstance(classifier.spec, vitreous.InputSpec)
    assert classifier.spec.shape == (3, 16, 16)
    with torch.inference_mode():
        assert classifier.model(torch.zeros(2, *classifier.spec.shape)).shape == (2, 3)


def test_one_image_or_many_come_back_as_a_list_of_predictions(trained: Path, colors: Path) -> None:
    classifier = vitreous.load(trained, threads=1)
    file = colors / "red" / "plain_00.png"
    with Image.open(file) as image:
        array = np.asarray(image)
    for images, count in (
        (file, 1),
        (str(file), 1),
        ([file, array], 2),
        ((path for path in [file] * 40), 40),
        (file.read_bytes(), 1),
        (torch.from_numpy(array.copy()).permute(2, 0, 1), 1),
        ([], 0),
    ):
        answers = classifier.predict(images)
        assert len(answers) == count
        assert all(isinstance(answer, vitreous.Prediction) for answer in answers)
    (answer,) = classifier.predict(file, top=2)
    assert answer.label == answer.top[0][0] and answer.score == answer.top[0][1]
    assert len(answer.top) == 2 and isinstance(answer.abstain, bool) and 0 <= answer.ood <= 1
    assert answer.path == str(file)


def test_explain_gives_a_heat_map_an_overlay_and_faithfulness(trained: Path, colors: Path) -> None:
    classifier = vitreous.load(trained, threads=1)
    found = classifier.explain(colors / "red" / "plain_00.png", method="relevance", target="blue")
    assert isinstance(found, vitreous.Explanation)
    assert (found.target, found.method) == ("blue", "relevance")
    assert found.heatmap.shape == (16, 20)
    assert isinstance(found.overlay, Image.Image)
    assert found.faithfulness is not None
    assert classifier.explain(colors / "red" / "plain_00.png", faithfulness=False).faithfulness is None


def test_export_makes_the_next_prediction_run_without_torch(run_copy: Path, colors: Path) -> None:
    classifier = vitreous.load(run_copy)
    result = classifier.export("onnx")
    assert result.files[0] == run_copy / "exports" / "onnx" / "model.onnx"
    assert vitreous.load(run_copy).predictor.engine.name == "onnxruntime"
    assert vitreous.load(run_copy, "eager").predictor.engine.name == "eager"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"epoch": 3}, "Unknown setting 'epoch'. Did you mean 'epochs'"),
        ({"optim": {"learning_rate": 1.0}}, "Unknown setting 'optim.learning_rate'"),
        ({"optim": {"weight_decy": 1.0}}, "Did you mean 'optim.weight_decay'"),
        ({"epochs": "three"}, "'epochs' must be"),
        ({"preset": "medcal"}, "Did you mean 'medical'"),
        ({"epochs": 3, "time": "2m"}, "Both --epochs 3 and --time 2m"),
        ({"model": "vit_tny"}, "Did you mean 'vit_tiny'"),
        ({"resume": True}, "--resume needs the run folder"),
    ],
)
def test_a_mistyped_setting_is_named_with_the_nearest_before_any_work(
    settings: dict[str, Any], said: str, colors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        vitreous.train(colors, **settings)
    assert said in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_create_model_builds_by_name_with_random_weights() -> None:
    model = vitreous.create_model("vit_tiny_patch16_224", num_classes=2)
    assert isinstance(model, vitreous.VisionTransformer)
    assert (model.grid_size, model.num_prefix_tokens) == ((14, 14), 1)
    small = vitreous.create_model("vit_micro", num_classes=5, image_size=32, in_chans=1, depth=1).eval()
    with torch.inference_mode():
        assert small(torch.zeros(2, 1, 32, 32)).shape == (2, 5)
        assert vitreous.create_model("resnet18", 4).eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 4)


@pytest.mark.parametrize(
    ("name", "keywords", "said"),
    [
        ("vit_tinny", {}, "Did you mean 'vit_tiny'"),
        ("vit_tiny", {"dept": 3}, "Did you mean 'depth'"),
        ("resnet18", {"droput": 0.1}, "Did you mean 'dropout'"),
        ("vit_tiny_patch16_224", {"image_size": 100}, "not divisible by the patch size 16"),
        ("vit_tiny", {"num_heads": 5}, "cannot be built"),
    ],
)
def test_create_model_refuses_what_it_does_not_know(name: str, keywords: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        vitreous.create_model(name, 3, **keywords)
    assert said in str(caught.value)


def test_weights_of_a_run_start_another_model(trained: Path) -> None:
    model = vitreous.load(trained).model
    arguments = vitreous.load(trained).run.architecture["arguments"]
    shape = {name: arguments[name] for name in ("depth", "embed_dim", "num_heads")}
    again = vitreous.create_model("vit_micro", 3, init=str(trained), image_size=16, **shape)
    assert torch.equal(model.state_dict()["head.weight"], again.state_dict()["head.weight"])
    with pytest.raises(WeightsError, match="neither a file, a run folder, nor timm:NAME"):
        vitreous.create_model("vit_micro", 3, init="nowhere.safetensors")


def test_loading_what_is_no_run_says_what_it_is(colors: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="There is no run folder"):
        vitreous.load(tmp_path / "gone")
    with pytest.raises(RunError, match="is not a run folder"):
        vitreous.load(colors)


def test_a_dataset_in_memory_is_audited_trained_on_and_evaluated(
    colors: Path, tiny: dict[str, Any], tmp_path: Path
) -> None:
    datasets = pytest.importorskip("datasets", reason="the package datasets (extra hub) is not installed")
    files = [file for name in ("blue", "green", "red") for file in sorted((colors / name).glob("*.png"))]
    data = datasets.DatasetDict(
        train=datasets.Dataset.from_dict(
            {
                "image": [{"bytes": file.read_bytes(), "path": None} for file in files],
                "label": [file.parent.name for file in files],
            }
        ).cast_column("image", datasets.Image())
    )
    found = vitreous.audit(data, out=tmp_path / "audit")
    assert (found.data, found.images) == ("a DatasetDict in memory", len(files))
    clf = vitreous.train(data, out=tmp_path / "run", **tiny)
    assert clf.run.facts["data"]["source"] == "a DatasetDict in memory"
    assert clf.evaluate(data)["data"]["accuracy"]["n"] == len(files)
    with pytest.raises(DataError, match="was made from 'a DatasetDict in memory', which is not here"):
        clf.evaluate(split="test")
