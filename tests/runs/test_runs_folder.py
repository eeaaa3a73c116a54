from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vitreous.config.input import InputSpec
from vitreous.errors import RunError
from vitreous.runs import RunFolder
from vitreous.runs.atomic import sha256_file, write_json
from vitreous.runs.folder import CHECKPOINTS, CONFIG, MODEL, RUN_JSON, SCHEMA_VERSION, read_facts

SPEC = InputSpec(height=8, width=8, classes=("cat", "dog"))
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A finished run as far as opening it goes: the weights are any bytes."""

    def build(name: str = "photos", **changes: Any) -> Path:
        folder = tmp_path / name
        (folder / "exports" / "onnx").mkdir(parents=True)
        (folder / MODEL).write_bytes(b"weights" * 100)
        (folder / CONFIG).write_text("{}")
        facts = {
            "schema_version": SCHEMA_VERSION,
            "status": "complete",
            "architecture": {"name": "vit_test", "family": "vit", "arguments": {}},
            "input": SPEC.to_dict(),
            "calibration": {"temperature": 1.5},
            "abstention": {"threshold": 0.25},
            "files": {name: sha256_file(folder / name) for name in (MODEL, CONFIG)},
            **changes,
        }
        write_json(folder / RUN_JSON, facts)
        return folder

    return build


def test_a_finished_run_gives_what_later_verbs_need(make: Make) -> None:
    folder = make()
    run = RunFolder.open(folder)
    assert run.name == "photos"
    assert run.spec == SPEC
    assert run.classes == ["cat", "dog"]
    assert run.version == sha256_file(folder / MODEL)[:12]
    assert (run.temperature, run.abstain_below) == (1.5, 0.25)
    assert run.architecture["name"] == "vit_test"
    assert run.strangeness is None
    assert run.export_file("onnx") is None


def test_an_absent_run_is_named_with_the_way_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="There is no run folder") as caught:
        RunFolder.open(tmp_path / "nothing")
    assert "vitreous train" in caught.value.hint


def test_another_folder_or_a_file_is_not_a_run(tmp_path: Path, make: Make) -> None:
    (tmp_path / "pictures").mkdir()
    for path in (tmp_path / "pictures", make() / MODEL):
        with pytest.raises(RunError, match=r"is not a run folder: it holds no run\.json"):
            RunFolder.open(path)


@pytest.mark.parametrize("sign", ["status", "checkpoints", "config"])
def test_a_half_written_run_is_recognised_with_the_way_to_finish_it(make: Make, tmp_path: Path, sign: str) -> None:
    if sign == "status":
        folder = make(status="training")
    else:
        folder = tmp_path / "begun"
        folder.mkdir()
        (folder / CHECKPOINTS).mkdir() if sign == "checkpoints" else (folder / CONFIG).write_text("{}")
    with pytest.raises(RunError, match="is half written") as caught:
        RunFolder.open(folder)
    assert f"--out {folder} --resume" in caught.value.hint


@pytest.mark.parametrize("name", [MODEL, CONFIG])
def test_one_flipped_bit_names_the_file(make: Make, name: str) -> None:
    folder = make()
    content = bytearray((folder / name).read_bytes())
    content[1] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(RunError, match=f"'{name}' in the run folder .* was changed or damaged"):
        RunFolder.open(folder)
    RunFolder.open(folder, verify=False)


def test_a_missing_file_is_named(make: Make) -> None:
    folder = make()
    (folder / MODEL).unlink()
    with pytest.raises(RunError, match=r"lacks 'model\.safetensors'"):
        RunFolder.open(folder)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'"text"', b"{}", b"\xff\xfe\x00", b'{"status": "complete"}'], ids=repr
)
def test_a_damaged_run_json_is_said_to_be_damaged(make: Make, content: bytes) -> None:
    folder = make()
    (folder / RUN_JSON).write_bytes(content)
    with pytest.raises(RunError, match=r"run\.json' is damaged"):
        RunFolder.open(folder)


@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, "2"])
def test_a_newer_schema_is_refused_with_the_way_to_upgrade(make: Make, version: Any) -> None:
    with pytest.raises(RunError, match=f"schema version {version}; this vitreous reads up to") as caught:
        RunFolder.open(make(schema_version=version))
    assert "pip install --upgrade" in caught.value.hint


def test_an_input_specification_that_makes_no_sense_is_refused(make: Make) -> None:
    with pytest.raises(RunError, match=r"no valid input specification: .*'hight'"):
        _ = RunFolder.open(make(input={"hight": 8, "width": 8})).spec


def test_a_run_moves_to_another_place_whole(make: Make, tmp_path: Path) -> None:
    moved = make().rename(tmp_path / "elsewhere")
    assert RunFolder.open(moved).name == "elsewhere"


def test_updating_replaces_some_facts_and_keeps_the_rest(make: Make) -> None:
    folder = make()
    run = RunFolder.open(folder)
    updated = run.updated(test_scored=2)
    assert updated.facts["test_scored"] == 2
    assert "test_scored" not in run.facts, "an opened run does not change"
    assert RunFolder.open(folder).facts == {**run.facts, "test_scored": 2}


def test_updates_of_two_verbs_do_not_undo_each_other(make: Make) -> None:
    folder = make()
    one, two = RunFolder.open(folder), RunFolder.open(folder)
    one.updated(first=1)
    two.updated(second=2)
    assert {"first": 1, "second": 2}.items() <= RunFolder.open(folder).facts.items()


def test_a_new_file_is_vouched_for_beside_the_others(make: Make) -> None:
    folder = make()
    export = folder / "exports" / "onnx" / "model.onnx"
    export.write_bytes(b"graph")
    name = "exports/onnx/model.onnx"
    run = RunFolder.open(folder).with_files(name, exports={"onnx": {"file": name}})
    assert run.facts["files"].keys() == {MODEL, CONFIG, name}
    assert RunFolder.open(folder).export_file("onnx") == export
    export.write_bytes(b"grabh")
    with pytest.raises(RunError, match=r"model\.onnx"):
        RunFolder.open(folder)


def test_facts_are_json_that_every_reader_takes(make: Make) -> None:
    folder = make()
    with pytest.raises(ValueError):
        RunFolder.open(folder).updated(score=float("nan"))
    assert json.loads((folder / RUN_JSON).read_text()) == read_facts(folder / RUN_JSON)
    assert [path.name for path in folder.glob(".*")] == []
