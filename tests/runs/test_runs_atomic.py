from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from vitreous.errors import RunError
from vitreous.runs import atomic
from vitreous.runs.atomic import sha256_file, storage_error, write_bytes, write_json, write_text, write_with


def test_files_are_written_whole_with_their_folders(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "c.txt", "héron\n")
    assert (tmp_path / "a" / "b" / "c.txt").read_bytes() == "héron\n".encode()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["c.txt"]


def test_the_content_is_synced_before_it_is_put_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, seen = tmp_path / "file", []
    write_bytes(target, b"old")
    real = os.fsync

    def fsync(handle: int) -> None:
        seen.append(target.read_bytes())
        real(handle)

    monkeypatch.setattr(atomic.os, "fsync", fsync)
    write_bytes(target, b"new")
    assert seen[0] == b"old", "the file itself, before the rename"
    assert seen[1:] in ([], [b"new"]), "then the folder, where the system allows it"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EACCES])
def test_a_failed_write_leaves_the_old_content_and_nothing_else(tmp_path: Path, number: int) -> None:
    target = tmp_path / "file.json"
    write_json(target, {"old": 1})

    def fail(temporary: Path) -> None:
        temporary.write_bytes(b'{"ne')
        raise OSError(number, os.strerror(number))

    with pytest.raises(RunError) as caught:
        write_with(target, fail)
    assert target.read_text() == '{\n  "old": 1\n}\n'
    assert [path.name for path in tmp_path.iterdir()] == ["file.json"]
    full = number in (errno.ENOSPC, errno.EDQUOT)
    assert caught.value.message.startswith("The disk is full" if full else repr(str(target)))
    assert "file.json" in caught.value.message


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_any_other_interruption_passes_and_leaves_nothing_behind(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "file"
    write_bytes(target, b"old")

    def fail(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        raise error

    with pytest.raises(error):
        write_with(target, fail)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"old")]


def test_a_failed_rename_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file"
    write_bytes(target, b"old")

    def refuse(self: Path, other: Path) -> None:
        raise PermissionError(errno.EACCES, "in use")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(RunError, match="in use"):
        write_bytes(target, b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"old")]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [float("-inf")]}])
def test_numbers_that_json_does_not_know_are_refused(tmp_path: Path, value: object) -> None:
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", value)
    assert (tmp_path / "a.json").read_text() == "1\n"


def test_an_error_without_words_still_says_something() -> None:
    assert "TimeoutError" in storage_error(Path("x"), TimeoutError()).message


def test_the_digest_is_sha256s(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_file(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
