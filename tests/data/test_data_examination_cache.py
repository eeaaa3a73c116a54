from __future__ import annotations

import shutil
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from vitreous.config.decode import DecodeConfig
from vitreous.data import load_source
from vitreous.data.examination import cache as caching
from vitreous.data.examination.cache import FILE, Cache, CacheReader, cache_folder, key_of, settings_digest, today
from vitreous.data.examination.finding import Bad
from vitreous.data.examination.scan import Scan, scan

Make = Callable[..., Path]


def _photos(make: Make, count: int = 8) -> Path:
    return make({f"{label}/{i}.png": 1000 * ord(label) + i for label in "ab" for i in range(count // 2)})


def _scan(root: Path, folder: Path | bool, **others: object) -> Scan:
    return scan(load_source(root), threads=1, cache=folder, **others)  # type: ignore[arg-type]


def test_a_second_scan_decodes_nothing_and_finds_the_same(make_images: Make, tmp_path: Path) -> None:
    root = _photos(make_images)
    (root / "a" / "empty.png").write_bytes(b"")
    first = _scan(root, tmp_path / "cache")
    second = _scan(root, tmp_path / "cache")
    assert (first.cached, second.cached) == (0, 9)
    assert (second.findings, second.bad, second.notes) == (first.findings, first.bad, [])


def test_content_is_known_under_any_name_and_the_name_is_judged_anew(make_images: Make, tmp_path: Path) -> None:
    root = _photos(make_images)
    _scan(root, tmp_path / "cache")
    (root / "a" / "0.png").rename(root / "b" / "new.jpg")
    again = _scan(root, tmp_path / "cache")
    assert again.cached == 8
    assert [finding.suffix_format for finding in again.findings] == [""] * 7 + ["JPEG"]


def test_changed_bytes_and_changed_settings_are_looked_at(make_images: Make, tmp_path: Path) -> None:
    root = _photos(make_images)
    _scan(root, tmp_path / "cache")
    shutil.copy(root / "a" / "1.png", root / "a" / "0.png")
    with (root / "a" / "0.png").open("ab") as file:
        file.write(b"more")
    assert _scan(root, tmp_path / "cache").cached == 7
    assert _scan(root, tmp_path / "cache", decode=DecodeConfig(frame="last")).cached == 0
    assert _scan(root, tmp_path / "cache", max_pixels=1000).cached == 0


def test_without_a_cache_nothing_is_written(make_images: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITREOUS_CACHE", str(tmp_path / "cache"))
    root = _photos(make_images)
    scan(load_source(root), threads=1)
    assert not (tmp_path / "cache").exists()
    assert _scan(root, False).cached == 0
    assert not (tmp_path / "cache").exists()
    _scan(root, True)
    assert (tmp_path / "cache" / FILE).is_file()


def test_what_was_found_before_an_interruption_is_not_decoded_again(make_images: Make, tmp_path: Path) -> None:
    root = _photos(make_images, 96)

    def interrupt(done: int, total: int) -> None:
        if done >= 48:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        _scan(root, tmp_path / "cache", progress=interrupt)
    again = _scan(root, tmp_path / "cache")
    assert 48 <= again.cached < 96
    assert len(again.good) == 96


@pytest.mark.parametrize("content", [b"this is no database" * 100, b"SQLite format 3\0" + bytes(range(256)) * 40])
def test_a_damaged_cache_is_reported_once_and_stops_nothing(make_images: Make, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / FILE).write_bytes(content)
    found = _scan(_photos(make_images), tmp_path / "cache")
    assert (len(found.good), found.cached) == (8, 0)
    assert len(found.notes) == 1
    assert "cannot be used" in found.notes[0]
    assert (tmp_path / "cache" / FILE).read_bytes() == content


def test_a_cache_that_breaks_under_way_is_reported_once(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with sqlite3.connect(tmp_path / FILE) as other:
        other.execute("DROP TABLE findings")
    other.close()
    for number in range(3):
        cache.put(bytes([number]) * 32, Bad("is bad"))
        cache._write()
    cache.close()
    assert len(cache.notes) == 1
    assert not cache.usable


def test_a_folder_that_cannot_be_made_is_reported(make_images: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    found = _scan(_photos(make_images), tmp_path / "file" / "cache")
    assert len(found.good) == 8
    assert len(found.notes) == 1


def test_only_what_the_bytes_decide_is_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.put(b"a" * 32, Bad("is truncated"))
    cache.put(b"b" * 32, Bad("was not decoded within 30 seconds", lasting=False))
    cache.close()
    reader = CacheReader(tmp_path / FILE)
    assert reader.find(b"a" * 32) == (Bad("is truncated"), today())
    assert reader.find(b"b" * 32) is None
    reader.close()


def test_the_least_recently_used_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(first: int, **limits: int) -> None:
        cache = Cache(tmp_path, **limits)
        for number in range(first, first + 100):
            cache.put(number.to_bytes(32, "big"), Bad(f"is number {number}"))
        cache.close()

    def known(first: int) -> int:
        reader = CacheReader(tmp_path / FILE)
        count = sum(reader.find(number.to_bytes(32, "big")) is not None for number in range(first, first + 100))
        reader.close()
        return count

    monkeypatch.setattr(caching, "today", lambda: 100)
    fill(0)
    monkeypatch.setattr(caching, "today", lambda: 101)
    fill(100)
    cache = Cache(tmp_path)
    for number in range(20):  # used again
        cache.touch(number.to_bytes(32, "big"), 100)
    cache.close()
    monkeypatch.setattr(caching, "today", lambda: 102)
    fill(200, most_rows=245)
    assert (known(0), known(100), known(200)) == (20, 100, 100)
    fill(300, most_bytes=20_000)
    assert known(300) > 0
    assert known(0) == 0


def test_scans_at_the_same_time_share_a_cache(make_images: Make, tmp_path: Path) -> None:
    root = _photos(make_images, 48)
    found: list[Scan] = []
    threads = [threading.Thread(target=lambda: found.append(_scan(root, tmp_path / "cache"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [entry.notes for entry in found] == [[]] * 3
    assert all(entry.findings == found[0].findings for entry in found)
    assert _scan(root, tmp_path / "cache").cached == 48


def test_the_cache_holds_no_name_and_no_path(make_images: Make, tmp_path: Path) -> None:
    root = make_images({"a/secret-name-1.png": 1, "b/secret-name-2.png": 2})
    _scan(root, tmp_path / "cache")
    content = b"".join(path.read_bytes() for path in (tmp_path / "cache").iterdir())
    assert b"secret" not in content
    assert str(root).encode() not in content


def test_the_folder_is_where_the_system_keeps_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    for name in ("VITREOUS_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_folder() == tmp_path / ".cache" / "vitreous"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == tmp_path / ".cache" / "vitreous"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "shared"))
    assert cache_folder() == tmp_path / "shared" / "vitreous"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == tmp_path / "Library" / "Caches" / "vitreous"
    monkeypatch.setattr(sys, "platform", "win32")
    assert cache_folder() == tmp_path / "AppData" / "Local" / "vitreous" / "cache"
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "Local"))
    assert cache_folder() == tmp_path / "Local" / "vitreous" / "cache"
    monkeypatch.setenv("VITREOUS_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"


def test_a_user_without_a_home_has_no_cache_and_is_told(make_images: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    root = _photos(make_images)
    for name in ("VITREOUS_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", fail)
    found = _scan(root, True)
    assert len(found.good) == 8
    assert "VITREOUS_CACHE" in found.notes[0]


def test_the_key_depends_on_every_byte_and_every_setting() -> None:
    settings = settings_digest(DecodeConfig(), 10)
    others = [
        settings_digest(DecodeConfig(), 11),
        settings_digest(DecodeConfig(bands=(1,)), 10),
        settings_digest(DecodeConfig(window="full"), 10),
    ]
    keys = {key_of(b"data", one) for one in (settings, *others)} | {key_of(b"datb", settings)}
    assert len(keys) == 5
    assert key_of(b"data", settings) == key_of(b"data", settings_digest(DecodeConfig(), 10))
