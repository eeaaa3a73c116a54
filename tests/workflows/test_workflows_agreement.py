"""One preprocessing contract: what training measured is what prediction, the export and the server answer."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import vitreous
from vitreous.serving.predictor import Predictor
from vitreous.serving.run import BackgroundServer

KINDS = ("plain", "rotated", "palette", "alpha", "cmyk", "deep")
MODES = {"plain": "RGB", "rotated": "RGB", "palette": "P", "alpha": "RGBA", "cmyk": "CMYK", "deep": "I;16"}


@pytest.fixture(scope="session")
def recorded(trained: Path) -> dict[str, dict[str, Any]]:
    """What training wrote of every validation and test image, by path."""
    return {row["path"]: row for row in pq.read_table(trained / "predictions.parquet").to_pylist()}


def kind_of(path: str) -> str:
    return Path(path).name.split("_")[0]


def check(label: str, score: float, ood: float, row: dict[str, Any]) -> None:
    assert label == row["predicted"]
    assert score == pytest.approx(row["score"], abs=1e-4)
    assert ood == pytest.approx(row["ood"], abs=1e-4)


def test_the_recorded_images_are_stored_in_every_awkward_way(recorded: dict[str, dict[str, Any]], colors: Path) -> None:
    assert {kind_of(path) for path in recorded} == set(KINDS)
    for path in recorded:
        with Image.open(colors / path) as image:
            assert image.mode == MODES[kind_of(path)]
            assert (image.getexif().get(274) == 6) == (kind_of(path) == "rotated")


@pytest.mark.parametrize("engine", ["eager", "onnxruntime"])
def test_prediction_repeats_what_training_measured(
    engine: str, recorded: dict[str, dict[str, Any]], exported: Path, colors: Path
) -> None:
    answers = vitreous.load(exported, engine, threads=1).predict([colors / path for path in recorded], top=3)
    for (path, row), answer in zip(recorded.items(), answers, strict=True):
        assert answer.path == str(colors / path)
        assert answer.abstain == row["abstain"]
        check(answer.label, answer.score, answer.ood, row)
        scores = dict(answer.top)
        assert [scores[name] for name in ("blue", "green", "red")] == pytest.approx(row["probabilities"], abs=1e-4)


def test_the_command_line_repeats_it_too(
    call: Callable[..., Any], recorded: dict[str, dict[str, Any]], exported: Path, colors: Path
) -> None:
    done = call("predict", exported, *(colors / path for path in recorded), "--json")
    for row, answer in zip(recorded.values(), json.loads(done.stdout)["predictions"], strict=True):
        check(answer["label"], answer["score"], answer["ood"], row)


def test_the_server_repeats_it_too(recorded: dict[str, dict[str, Any]], exported: Path, colors: Path) -> None:
    chosen = {kind_of(path): path for path in recorded}
    assert len(chosen) == len(KINDS)
    with BackgroundServer(Predictor.load(exported, threads=1)) as server:
        for path in chosen.values():
            kind = "image/jpeg" if path.endswith(".jpg") else "image/png"
            body = (colors / path).read_bytes()
            request = urllib.request.Request(f"{server.url}/predict", data=body, headers={"Content-Type": kind})
            with urllib.request.urlopen(request, timeout=30) as reply:
                answer = json.loads(reply.read())["predictions"][0]
            check(answer["label"], answer["score"], answer["ood"], recorded[path])


def test_a_pillow_image_an_array_and_a_tensor_get_the_answer_of_their_file(
    recorded: dict[str, dict[str, Any]], trained: Path, colors: Path
) -> None:
    import torch

    path = next(path for path in recorded if kind_of(path) == "plain")
    with Image.open(colors / path) as image:
        image.load()
        array = np.asarray(image)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    answers = vitreous.load(trained, threads=1).predict([colors / path, str(colors / path), image, array, tensor])
    assert [answer.path for answer in answers] == [str(colors / path)] * 2 + [None] * 3
    for answer in answers:
        check(answer.label, answer.score, answer.ood, recorded[path])


def test_the_answers_depend_on_rotation_and_transparency(
    recorded: dict[str, dict[str, Any]], trained: Path, colors: Path
) -> None:
    """Without this the tests above would hold for a program that ignores EXIF and alpha."""
    classifier = vitreous.load(trained, threads=1)
    for kind in ("rotated", "alpha"):
        paths = [path for path in recorded if kind_of(path) == kind]
        raw = []
        for path in paths:
            with Image.open(colors / path) as image:
                raw.append(np.asarray(image)[..., :3])
        answers = zip(paths, classifier.predict(raw), strict=True)
        assert max(abs(answer.score - recorded[path]["score"]) for path, answer in answers) > 1e-3
