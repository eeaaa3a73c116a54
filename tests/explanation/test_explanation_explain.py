"""One image explained, from a run folder."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vitreous.engines import Engine, Outputs, load_engine
from vitreous.errors import MissingExtraError, UsageError
from vitreous.explanation import METHODS, Explainer, explain_image
from vitreous.models import Architecture
from vitreous.runs import RunFolder

CNN = Architecture("resnet_micro", "timm", {"name": "resnet_micro", "num_classes": 3, "small_stem": True})

MakeRun = Callable[..., RunFolder]


@dataclass
class Foreign:
    """Any engine but the eager one, so that gradient methods must load the weights themselves."""

    inner: Engine
    name: str = "foreign"

    def predict(self, batch: np.ndarray) -> Outputs:
        return self.inner.predict(batch)


def photo(width: int = 90, height: int = 60) -> Image.Image:
    noise = np.random.default_rng(1).integers(0, 256, (6, 9, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_a_map_at_the_images_own_size(make_run: MakeRun, method: str) -> None:
    run = make_run()
    found = explain_image(run, load_engine(run, "eager"), photo(), method=method)
    assert found.heatmap.shape == (60, 90) and found.heatmap.dtype == np.float32
    assert found.heatmap.min() >= 0 and found.heatmap.max() <= 1 and found.heatmap.std() > 0
    assert (found.heatmap[:, :15] == 0).all()  # cut away by the centre crop
    assert found.overlay.size == found.picture.size == (270, 180)
    assert found.method == method and found.target in run.classes
    assert found.faithfulness is not None and all(0 <= value <= 1 for value in found.faithfulness.to_dict().values())
    assert (found.warning is None) == found.faithfulness.beats_random
    assert found.side_by_side().width == 2 * 270 + 8
    assert set(found.to_dict()) == {"target", "score", "method", "faithfulness", "warning"}


def test_the_predicted_class_is_explained_unless_another_is_named(make_run: MakeRun) -> None:
    run = make_run()
    engine = load_engine(run, "eager")
    explain = Explainer(run, engine).explain
    predicted = explain(photo(), faithfulness=False)
    assert predicted.score > 1 / 3 and predicted.faithfulness is None and predicted.warning is None
    named = [explain(photo(), target=name, faithfulness=False) for name in run.classes]
    assert max(named, key=lambda one: one.score).target == predicted.target
    assert sum(one.score for one in named) == pytest.approx(1)
    assert not np.allclose(named[0].grid, named[1].grid)
    by_number = explain(photo(), target=1, faithfulness=False)
    assert by_number.target == run.classes[1] and np.array_equal(by_number.grid, named[1].grid)


def test_unknown_names_are_answered_with_the_nearest(make_run: MakeRun) -> None:
    run = make_run()
    engine = load_engine(run, "eager")
    with pytest.raises(UsageError, match=r"class 'hose'.*'horse'"):
        explain_image(run, engine, photo(), target="hose")
    with pytest.raises(UsageError, match=r"method 'oclusion'.*'occlusion'"):
        explain_image(run, engine, photo(), method="oclusion")
    with pytest.raises(UsageError, match="0 to 2"):
        explain_image(run, engine, photo(), target=3)


def test_auto_takes_relevance_for_a_transformer_on_any_engine_and_occlusion_otherwise(make_run: MakeRun) -> None:
    vit, cnn = make_run(), make_run(CNN)
    assert Explainer(vit, load_engine(vit, "eager")).choose("auto") == "relevance"
    assert Explainer(vit, Foreign(load_engine(vit, "eager"))).choose("auto") == "relevance"
    found = explain_image(cnn, load_engine(cnn, "eager"), photo(), faithfulness=False)
    assert found.method == "occlusion"


def test_auto_without_torch_is_occlusion(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run()
    engine = Foreign(load_engine(run, "eager"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    assert explain_image(run, engine, photo(), faithfulness=False).method == "occlusion"


def test_a_cnn_has_no_attention_to_read_and_the_message_says_what_works(make_run: MakeRun) -> None:
    run = make_run(CNN)
    for method in ("relevance", "rollout"):
        with pytest.raises(UsageError, match=r"'resnet_micro' has none.*'occlusion'"):
            explain_image(run, load_engine(run, "eager"), photo(), method=method)


def test_another_engine_gets_the_same_gradient_map_from_weights_loaded_once(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    eager = load_engine(run, "eager")
    expected = explain_image(run, eager, photo(), method="relevance", faithfulness=False)
    import vitreous.models.load as load

    loads, load_model = [], load.load_model
    monkeypatch.setattr(load, "load_model", lambda run: loads.append(1) or load_model(run))
    explainer = Explainer(run, Foreign(eager))
    for _ in range(2):
        found = explainer.explain(photo(), method="relevance", faithfulness=False)
        assert np.allclose(found.grid, expected.grid, atol=1e-6)
    assert len(loads) == 1


def test_gradient_methods_without_torch_name_the_extra(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run()
    engine = Foreign(load_engine(run, "eager"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    with pytest.raises(MissingExtraError, match=r"occlusion.*vitreous\[train\]") as caught:
        explain_image(run, engine, photo(), method="relevance")
    assert caught.value.status == 501


def test_a_map_no_better_than_chance_carries_a_warning(make_run: MakeRun) -> None:
    run = make_run()
    explainer = Explainer(run, load_engine(run, "eager"))
    found = [explainer.explain(photo(), method="rollout", target=name) for name in run.classes]
    # Rollout shows the same cells for every class; what speaks for one class speaks against another.
    assert any(one.warning and "chance" in one.warning for one in found)
    assert any(one.warning is None for one in found)


def test_the_score_is_the_one_that_predict_gives(make_run: MakeRun, tmp_path: Path) -> None:
    from vitreous.inputs import prepare
    from vitreous.runs.decision import probabilities

    run = make_run()
    file = tmp_path / "large.jpg"
    photo(640, 480).save(file)
    engine = load_engine(run, "eager")
    found = explain_image(run, engine, file, faithfulness=False)
    scores = probabilities(engine.predict(prepare(file, run.spec)[None]).logits, run.temperature)
    assert found.score == scores.max()
    assert found.heatmap.shape == (480, 640)


def test_images_smaller_than_the_map_and_grey_models_work(make_run: MakeRun) -> None:
    architecture = Architecture(
        "vit_grey",
        "vit",
        {"image_size": [8, 8], "patch_size": [2, 2], "num_classes": 3, "embed_dim": 16, "depth": 1, "num_heads": 2}
        | {"in_chans": 1, "pooling": "mean", "class_token": False},
    )
    run = make_run(architecture)
    run = run.updated(input=replace(run.spec, height=8, width=8, channels=1, mean=(0.5,), std=(0.5,)).to_dict())
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3), np.uint8)
    found = explain_image(run, load_engine(run, "eager"), pixels)
    assert found.heatmap.shape == (3, 3) and found.overlay.size == (225, 225)


def test_explaining_by_occlusion_imports_no_torch() -> None:
    code = (
        "import sys, vitreous.explanation, vitreous.explanation.occlusion, vitreous.explanation.draw\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_explaining_does_not_change_what_the_engine_predicts(make_run: MakeRun) -> None:
    run = make_run()
    engine = load_engine(run, "eager")
    batch = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)).numpy()
    before = engine.predict(batch).logits
    explain_image(run, engine, photo(), method="relevance")
    assert np.array_equal(engine.predict(batch).logits, before)
