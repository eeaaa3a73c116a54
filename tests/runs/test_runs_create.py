from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from vitreous.errors import RunError, UsageError
from vitreous.runs.create import claim
from vitreous.runs.folder import CHECKPOINTS, CONFIG, RUN_JSON


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run_at(path: Path, status: str = "complete", *, begun: bool = True) -> Path:
    (path / CHECKPOINTS).mkdir(parents=True)
    if begun:
        (path / CONFIG).write_text("{}")
        (path / RUN_JSON).write_text(f'{{"schema_version": 1, "status": "{status}"}}')
    return path


def test_a_new_run_lies_under_runs_by_its_name() -> None:
    found = claim(None, "photos")
    assert (found.path, found.state, found.note) == (Path("runs/photos"), "new", "")
    assert found.path.is_dir()


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("my photos", "my_photos"),
        ("../../etc", "etc"),
        ("a/b", "a_b"),
        ("...", "run"),
        ("", "run"),
        ("Röntgen", "Röntgen"),
    ],
)
def test_any_name_becomes_a_folder_below_runs(name: str, folder: str) -> None:
    assert claim(None, name).path == Path("runs") / folder


def test_an_existing_run_gets_numbered_siblings() -> None:
    paths = []
    for _ in range(3):
        found = claim(None, "photos")
        run_at(found.path)
        paths.append(found.path.name)
    assert paths == ["photos", "photos-2", "photos-3"]
    assert claim(None, "photos").note == "runs/photos exists; writing to runs/photos-4."


def test_a_named_folder_that_is_occupied_gets_a_sibling_too() -> None:
    run_at(Path("out"))
    found = claim(Path("out"), "x")
    assert (found.path, found.state) == (Path("out-2"), "new")
    assert "out exists" in found.note


def test_an_empty_folder_that_was_named_is_used() -> None:
    Path("out").mkdir()
    assert claim(Path("out"), "x").path == Path("out")


def test_of_commands_that_start_at_once_each_gets_its_own_folder() -> None:
    # Reading the data takes minutes, so the first is still empty when the second looks.
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(claim(None, "photos").path)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 8


def test_resuming_an_unfinished_run_continues_it() -> None:
    path = run_at(Path("out"), "training")
    found = claim(path, "x", resume=True)
    assert (found.path, found.state) == (path, "continue")
    assert "Continuing" in found.note


def test_resuming_a_finished_run_finds_nothing_to_do() -> None:
    found = claim(run_at(Path("out")), "x", resume=True)
    assert found.state == "finished"
    assert "nothing to do" in found.note


@pytest.mark.parametrize("exists", [False, True])
def test_resuming_where_there_is_nothing_starts(exists: bool) -> None:
    if exists:
        Path("out").mkdir()
    found = claim(Path("out"), "x", resume=True)
    assert (found.path, found.state, found.note) == (Path("out"), "new", "")


def test_resuming_what_stopped_before_its_first_step_starts_it_again_in_place() -> None:
    found = claim(run_at(Path("out"), begun=False), "x", resume=True)
    assert (found.path, found.state) == (Path("out"), "new")
    assert "before its first step" in found.note


@pytest.mark.parametrize("flag", ["resume", "overwrite"])
def test_a_folder_that_is_no_run_is_neither_continued_nor_emptied(flag: str) -> None:
    Path("pictures").mkdir()
    Path("pictures/cat.jpg").write_bytes(b"precious")
    with pytest.raises(UsageError, match="is not a run folder"):
        claim(Path("pictures"), "x", **{flag: True})
    assert Path("pictures/cat.jpg").read_bytes() == b"precious"


def test_a_run_with_a_damaged_run_json_is_not_continued() -> None:
    path = run_at(Path("out"), "training")
    (path / RUN_JSON).write_text("{")
    with pytest.raises(RunError, match="damaged"):
        claim(path, "x", resume=True)


@pytest.mark.parametrize("status", ["complete", "training"])
def test_overwriting_keeps_the_former_run_until_there_is_something_to_write(status: str) -> None:
    path = run_at(Path("out"), status)
    found = claim(path, "x", overwrite=True)
    assert (found.path, found.state, found.replaces) == (path, "new", True)
    found.release()
    assert (path / RUN_JSON).is_file(), "data that turns out bad costs no good run"
    found.clear()
    assert list(path.iterdir()) == []


def test_nothing_but_a_run_that_is_replaced_is_cleared() -> None:
    new, continued = claim(Path("new"), "x"), claim(run_at(Path("out"), "training"), "x", resume=True)
    for found in (new, continued):
        (found.path / "kept").write_text("")
        found.clear()
        assert (found.path / "kept").is_file()


def test_a_place_given_back_leaves_no_empty_folders_and_removes_nothing_else() -> None:
    claim(Path("a/b/c"), "x").release()
    assert not Path("a").exists()
    Path("mine").mkdir()
    claim(Path("mine"), "x").release()
    assert Path("mine").is_dir(), "it was there before"
    found = claim(None, "photos")
    (found.path / "config.json").write_text("{}")
    found.release()
    assert (found.path / "config.json").is_file()


def test_overwriting_nothing_is_no_error() -> None:
    assert claim(Path("out"), "x", overwrite=True).path.is_dir()


def test_a_file_in_the_way_is_named() -> None:
    Path("out").write_text("")
    with pytest.raises(UsageError, match="'out' is a file"):
        claim(Path("out"), "x")


@pytest.mark.skipif(os.geteuid() == 0 if hasattr(os, "geteuid") else True, reason="root may write anywhere")
def test_a_place_that_cannot_be_written_to_is_a_run_error() -> None:
    Path("locked").mkdir(mode=0o500)
    with pytest.raises(RunError, match="could not be written"):
        claim(Path("locked/run"), "x")


def test_a_parent_that_is_a_file_is_a_run_error() -> None:
    Path("file").write_text("")
    with pytest.raises(RunError, match="could not be written") as caught:
        claim(Path("file/run"), "x")
    assert "--out" in caught.value.hint
