"""Heat maps as files: what is written, in which size, and with which proof."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitreous.errors import DataError, UsageError
from vitreous.workflows.explain import _safe as safe_name
from vitreous.workflows.explain import explain


@pytest.mark.parametrize("method", ["auto", "relevance", "rollout", "occlusion"])
def test_each_method_writes_a_map_and_an_overlay_of_the_images_own_size(
    method: str, trained: Path, colors: Path, tmp_path: Path
) -> None:
    found = explain(
        trained, [str(colors / "red" / "rotated_01.jpg")], method=method, out=tmp_path / "maps", threads=1
    ).images
    (entry,) = found
    assert entry["method"] == ("relevance" if method == "auto" else method)
    assert entry.keys() >= {"path", "target", "method", "heatmap", "overlay", "faithfulness"}
    assert entry["faithfulness"].keys() >= {"deletion", "insertion", "random_deletion", "random_insertion"}
    with Image.open(entry["heatmap"]) as heatmap, Image.open(entry["overlay"]) as overlay:
        assert heatmap.size == (20, 16)  # upright, as people see it
        assert heatmap.mode == "L" and overlay.mode == "RGB"
        assert np.asarray(heatmap).std() > 0
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == sorted(
        Path(entry[name]).name for name in ("heatmap", "overlay")
    )


def test_equal_names_from_two_folders_do_not_overwrite_each_other(trained: Path, colors: Path, tmp_path: Path) -> None:
    images = [str(colors / name / "plain_00.png") for name in ("red", "green", "blue")]
    explain(trained, images, method="rollout", out=tmp_path / "maps", threads=1, faithfulness=False)
    assert len(list((tmp_path / "maps").iterdir())) == 6


def test_two_classes_of_one_image_do_not_overwrite_each_other(trained: Path, colors: Path, tmp_path: Path) -> None:
    image = str(colors / "red" / "plain_00.png")
    for target in ("red", "blue"):
        found = explain(
            trained, [image], method="relevance", target=target, out=tmp_path / "maps", threads=1, faithfulness=False
        )
        assert f".relevance.{target}.overlay" in found.images[0]["overlay"]
    assert len(list((tmp_path / "maps").iterdir())) == 4


def test_a_class_name_that_is_no_file_name_becomes_one_of_its_own() -> None:
    names = ["..", "a/b", "a\\b", "a b", "a_b", "Grün", "x" * 300, "x" * 301]
    safe = [safe_name(name) for name in names]
    assert len(set(safe)) == len(names)
    assert all(re.fullmatch(r"[\w-]{1,47}", name) for name in safe)
    assert (safe[4], safe[5]) == ("a_b", "Grün")


def test_auto_explains_an_exported_transformer_by_relevance(exported: Path, colors: Path, tmp_path: Path) -> None:
    image = str(colors / "red" / "plain_00.png")
    maps = [
        explain(exported, [image], engine=engine, out=tmp_path / engine, threads=1, faithfulness=False).images[0]
        for engine in ("auto", "onnxruntime", "eager")
    ]
    assert [entry["method"] for entry in maps] == ["relevance"] * 3
    pictures = [np.asarray(Image.open(entry["heatmap"]), dtype=int) for entry in maps]
    assert max(np.abs(picture - pictures[2]).max() for picture in pictures) <= 1


def test_pictures_go_into_the_run_unless_told_otherwise(run_copy: Path, colors: Path, call: Callable[..., Any]) -> None:
    done = call("explain", run_copy, colors / "red" / "plain_00.png", "--no-faithfulness", "--target", "blue", "--json")
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads(done.stdout)["images"]
    assert entry["target"] == "blue" and entry["faithfulness"] is None
    assert Path(entry["overlay"]).parent == run_copy / "explanations"


def test_the_exported_model_explains_by_occlusion_as_the_original_does(exported: Path, colors: Path) -> None:
    import vitreous

    image = colors / "green" / "plain_06.png"
    maps = [
        vitreous.load(exported, engine, threads=1).explain(image, "occlusion", faithfulness=False).heatmap
        for engine in ("eager", "onnxruntime")
    ]
    assert np.abs(maps[0] - maps[1]).max() < 5e-3


def test_unusable_images_are_listed_and_alone_are_an_error(trained: Path, colors: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    good = str(colors / "red" / "plain_00.png")
    found = explain(trained, [str(bad), good], method="rollout", out=tmp_path / "maps", threads=1, faithfulness=False)
    assert [entry["path"] for entry in found.images] == [good]
    assert [entry["path"] for entry in found.bad_files] == [str(bad)]
    with pytest.raises(DataError, match=r"bad\.png"):
        explain(trained, [str(bad)], out=tmp_path / "none", threads=1)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("asked", "said"),
    [({"method": "gradcam"}, "gradcam"), ({"target": "gren"}, "Did you mean 'green'"), ({"engine": "onx"}, "onnx")],
)
def test_unknown_names_are_refused_with_the_nearest(
    asked: dict[str, Any], said: str, trained: Path, colors: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as caught:
        explain(trained, [str(colors / "red" / "plain_00.png")], out=tmp_path / "maps", threads=1, **asked)
    assert said in str(caught.value)
    assert not (tmp_path / "maps").exists()
