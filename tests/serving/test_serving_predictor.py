from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from serving_fakes import CLASSES, SIDE, MeanEngine, picture, write_run

from vitreous.engines import Outputs
from vitreous.errors import ImageTooLargeError, RunError, TruncatedImageError, UsageError, VitreousError
from vitreous.runs import RunFolder, Strangeness
from vitreous.serving import Predictor


def test_the_brightest_channel_names_the_class_and_scores_sum_to_one(predictor: Predictor, tmp_path: Path) -> None:
    file = tmp_path / "green.png"
    file.write_bytes(picture((0, 255, 0)))
    red, green, blue = predictor.predict([picture(), file, Image.new("RGB", (5, 5), (0, 0, 255))])
    assert [red.label, green.label, blue.label] == CLASSES
    assert (red.path, green.path) == (None, str(file))
    assert sum(score for _, score in red.top) == pytest.approx(1)
    assert red.top[0] == (red.label, red.score)


def test_prediction_takes_any_iterable_in_batches_and_keeps_its_order(predictor: Predictor, engine: MeanEngine) -> None:
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 255, 0), (255, 0, 0)]
    answers = predictor.predict((picture(color) for color in colors), batch_size=2, top=1)
    assert [answer.label for answer in answers] == ["red", "green", "blue", "green", "red"]
    assert engine.batches == [2, 2, 1]
    assert {len(answer.top) for answer in answers} == {1}


@pytest.mark.parametrize("top", [0, -1])
def test_fewer_classes_than_one_are_refused(predictor: Predictor, engine: MeanEngine, top: int) -> None:
    with pytest.raises(UsageError, match=f"--top must be at least 1, got {top}"):
        predictor.predict([], top=top)
    with pytest.raises(UsageError, match=f"--top must be at least 1, got {top}"):
        predictor.predict_arrays(predictor.decode(picture())[None], top)
    assert engine.batches == []


def test_one_source_need_not_be_put_in_a_list(predictor: Predictor) -> None:
    assert [answer.label for answer in predictor.predict(picture())] == ["red"]


def test_the_temperature_and_the_threshold_of_the_run_are_used(tmp_path: Path) -> None:
    run = RunFolder.open(write_run(tmp_path / "warm", calibration={"temperature": 10.0}, abstention={"threshold": 0.6}))
    answer = Predictor(run, MeanEngine()).predict(picture())[0]
    assert answer.score == pytest.approx(np.e / (np.e + 2))
    assert answer.abstain


@pytest.mark.parametrize(
    ("channels", "more"),
    [
        (6, {"bit_depth": 16}),
        (2, {"value_range": [[-5.0, 40.0], [0.0, 1.0]]}),
        (1, {"decode": {"bands": [5]}}),
        (3, {"decode": {"bands": [4, 3, 2], "frame": "last"}}),
    ],
)
def test_the_self_test_suits_models_of_any_bands(tmp_path: Path, channels: int, more: dict[str, Any]) -> None:
    spec = {"height": 8, "width": 8, "channels": channels, "mean": [0.5] * channels, "std": [0.5] * channels, **more}
    folder = write_run(tmp_path / "bands", input={**spec, "classes": [f"class {k}" for k in range(channels)]})
    engine = MeanEngine()
    Predictor(RunFolder.open(folder), engine).self_test()
    assert engine.batches == [1]


def test_strangeness_comes_from_the_run_and_is_zero_without_one(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    assert Predictor(RunFolder.open(folder), MeanEngine()).predict(picture())[0].ood == 0.0
    means = np.zeros((3, 3), np.float32)
    reference = np.array([0.1, 0.2, 0.3, 5.0], np.float32)
    Strangeness(means, np.eye(3, dtype=np.float32), np.zeros(3, np.float32), reference).save(folder / "strangeness.npz")
    answer = Predictor(RunFolder.open(folder), MeanEngine()).predict(picture())[0]
    assert answer.ood == pytest.approx(0.75)
    assert not answer.abstain


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_never_leave(predictor: Predictor, value: float) -> None:
    class Broken:
        name = "broken"

        def predict(self, batch: np.ndarray) -> Outputs:
            logits = np.zeros((len(batch), len(CLASSES)), np.float32)
            logits[0, 1] = value
            return Outputs(logits, logits)

    with pytest.raises(VitreousError, match="not finite"):
        dataclasses.replace(predictor, engine=Broken()).self_test()


def test_the_self_test_refuses_outputs_of_the_wrong_width(predictor: Predictor) -> None:
    class Narrow:
        name = "narrow"

        def predict(self, batch: np.ndarray) -> Outputs:
            return Outputs(np.zeros((len(batch), 2), np.float32), np.zeros((len(batch), 2), np.float32))

    predictor.self_test()
    with pytest.raises(VitreousError, match="shape"):
        dataclasses.replace(predictor, engine=Narrow()).self_test()


def test_decoding_gives_the_shape_of_the_specification_and_keeps_limits(predictor: Predictor) -> None:
    array = predictor.decode(picture())
    assert (array.shape, array.dtype) == ((3, SIDE, SIDE), np.float32)
    with pytest.raises(ImageTooLargeError):
        predictor.decode(picture(size=(20, 20)), max_pixels=399)
    with pytest.raises(TruncatedImageError):
        predictor.decode(picture(size=(90, 90), format="JPEG")[:400])


def test_explaining_hands_run_engine_and_wishes_to_the_explanation_room(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    class Explainer:
        def __init__(self, run: RunFolder, engine: object) -> None:
            asked.append((run, engine))

        def explain(self, source: object, **wishes: object) -> str:
            asked.append((source, wishes))
            return "explanation"

    fake = types.ModuleType("vitreous.explanation")
    fake.Explainer = Explainer  # type: ignore[attr-defined]
    fake.METHODS = {"relevance": None, "occlusion": None}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vitreous.explanation", fake)
    assert predictor.explain("a.png", "occlusion", "green") == "explanation"
    assert predictor.explain("b.png") == "explanation"
    assert asked == [
        (predictor.run, predictor.engine),
        ("a.png", {"method": "occlusion", "target": "green", "faithfulness": False}),
        ("b.png", {"method": "auto", "target": None, "faithfulness": False}),
    ]
    assert predictor.explain_methods() == ("relevance", "occlusion")


def test_an_occlusion_map_needs_nothing_but_the_engine(predictor: Predictor) -> None:
    explanation = predictor.explain(picture(), "occlusion", "red")
    assert explanation.target == "red"
    assert explanation.heatmap.ndim == 2
    with pytest.raises(UsageError, match="gren"):
        predictor.explain(picture(), "occlusion", "gren")


def test_loading_refuses_unknown_engines_and_folders(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="onnxruntme"):
        Predictor.load(write_run(tmp_path / "run"), engine="onnxruntme")
    with pytest.raises(RunError):
        Predictor.load(tmp_path / "nowhere")


@pytest.mark.parametrize("engine", ["auto", "eager", "onnxruntime"])
def test_loading_refuses_fewer_threads_than_one(tmp_path: Path, engine: str) -> None:
    with pytest.raises(UsageError, match="--threads must be at least 1, got 0"):
        Predictor.load(write_run(tmp_path / "run"), engine, threads=0)


def write_onnx(file: Path) -> None:
    """features = channel means of `images`, logits = ten times them."""
    onnx = pytest.importorskip("onnx")
    tensor, value = onnx.helper.make_tensor, onnx.helper.make_tensor_value_info
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("ReduceMean", ["images", "axes"], ["features"], keepdims=0),
            onnx.helper.make_node("Mul", ["features", "ten"], ["logits"]),
        ],
        "means",
        [value("images", kind, ["b", 3, SIDE, SIDE])],
        [value("logits", kind, ["b", 3]), value("features", kind, ["b", 3])],
        [tensor("axes", onnx.TensorProto.INT64, [2], [2, 3]), tensor("ten", kind, [], [10.0])],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    file.parent.mkdir(parents=True)
    onnx.save(model, str(file))


@pytest.mark.parametrize(("family", "torch_installed"), [("timm", True), ("vit", False)])
def test_an_exported_model_is_served_without_ever_importing_torch(
    tmp_path: Path, family: str, torch_installed: bool
) -> None:
    architecture = {"name": "fake", "family": family, "arguments": {}}
    folder = write_run(
        tmp_path / "run", architecture=architecture, exports={"onnx": {"file": "exports/onnx/model.onnx"}}
    )
    write_onnx(folder / "exports" / "onnx" / "model.onnx")
    (tmp_path / "green.png").write_bytes(picture((0, 255, 0)))
    program = """
import json, sys, urllib.request
if sys.argv[3] == "hidden":
    sys.modules["torch"] = None
from vitreous.serving import BackgroundServer, Predictor
predictor = Predictor.load(sys.argv[1])
image = open(sys.argv[2], "rb").read()
with BackgroundServer(predictor) as server:
    def post(path):
        request = urllib.request.Request(server.url + path, image, {"Content-Type": "image/png"})
        with urllib.request.urlopen(request, timeout=30) as reply:
            return json.load(reply)
    predicted = post("/predict")["predictions"][0]["label"]
    explained = post("/explain?format=json&target=green")["method"]
print(json.dumps([predictor.engine.name, predictor.predict([image])[0].label, predicted, explained,
                  sorted(name for name in sys.modules if name.split(".")[0] in ("torch", "timm", "torchvision") and sys.modules[name])]))
"""
    done = subprocess.run(
        [
            *(sys.executable, "-W", "error", "-c", program, str(folder), str(tmp_path / "green.png")),
            "installed" if torch_installed else "hidden",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["onnxruntime", "green", "green", "occlusion", []]


def test_an_operating_point_of_the_run_decides_the_label(exported: Path, colors: Path) -> None:
    plain = Predictor.load(exported, "onnxruntime")
    images = sorted(colors.glob("*/*"))[::7]
    point = plain.run.point("red:recall")
    answers = Predictor.load(exported, "onnxruntime", point="red:recall").predict(images)
    for answer, usual in zip(answers, plain.predict(images), strict=True):
        assert (answer.label == "red") == (dict(usual.top)["red"] >= point[1])
        assert answer.set is not None and usual.label in answer.set


def test_a_point_with_an_aim_of_its_own_is_fitted_to_the_validation_images(exported: Path) -> None:
    run = Predictor.load(exported, "onnxruntime").run
    stored = run.point("red:recall")
    assert run.point("red:recall=0.95") == (stored[0], pytest.approx(stored[1]))
    assert run.point("red:false_alarms=0.05")[1] == pytest.approx(run.point("red:false_alarms")[1])
    assert run.point("red:recall=0.5")[1] >= run.point("red:recall=0.99")[1]


@pytest.mark.parametrize(
    ("point", "said"),
    [
        ("rad:recall", "Did you mean 'red'"),
        ("red:precision", "red:recall, red:false_alarms"),
        ("red", "class"),
        ("red:recall=99", "no share between 0 and 1"),
        ("red:recall=most", "red:recall=0.99"),
    ],
)
def test_a_point_that_the_run_does_not_have_is_refused_with_those_it_has(exported: Path, point: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        Predictor.load(exported, "onnxruntime", point=point)
    assert said in f"{caught.value.message} {caught.value.hint}"
