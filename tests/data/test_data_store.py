from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from vitreous.config.input import InputSpec
from vitreous.data import PixelStore, Source, load_source
from vitreous.data.batches import eval_batches
from vitreous.errors import DataError
from vitreous.inputs import open_image, prepare

Make = Callable[..., Path]
SPEC = InputSpec(height=8, width=8, classes=("a", "b"))


@pytest.fixture
def root(make_images: Make) -> Path:
    return make_images({f"{label}/{i}.png": 10 * ord(label) + i for label in "ab" for i in range(10)}, size=(23, 17))


def test_kept_and_decoded_anew_give_the_same_numbers(root: Path) -> None:
    source = load_source(root)
    indices = np.array([3, 1, 4, 15, 9])
    kept = PixelStore(source, indices, SPEC, threads=2, max_bytes=10**9)
    fresh = PixelStore(source, indices, SPEC, threads=2, max_bytes=0)
    assert (kept.in_memory, fresh.in_memory) == (True, False)
    rows = np.array([4, 0, 0, 2])
    assert kept.get(rows).shape == (4, 8, 8, 3)
    assert kept.get(rows).dtype == np.uint8
    np.testing.assert_array_equal(kept.get(rows), fresh.get(rows))
    np.testing.assert_array_equal(kept.get(rows)[1], kept.get(rows)[2])
    assert kept.mean_std() == fresh.mean_std()


def test_memory_decides_to_the_byte(root: Path) -> None:
    source = load_source(root)
    needed = 5 * 8 * 8 * 3
    assert PixelStore(source, range(5), SPEC, threads=1, max_bytes=needed).in_memory
    assert not PixelStore(source, range(5), SPEC, threads=1, max_bytes=needed - 1).in_memory


def test_each_image_is_decoded_once_where_it_is_kept(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = load_source(root)
    opened: list[int] = []
    counting = replace(source, reader=lambda index: (opened.append(index), source.open(index))[1])
    store = PixelStore(counting, [2, 5], SPEC, threads=1, max_bytes=10**9)
    for _ in range(3):
        store.get(np.array([0, 1]))
    assert opened == [2, 5]


def test_progress_counts_to_the_end(root: Path) -> None:
    calls: list[tuple[int, int]] = []
    PixelStore(
        load_source(root), range(20), SPEC, threads=2, max_bytes=10**9, progress=lambda *args: calls.append(args)
    )
    assert calls[-1] == (20, 20)


def test_mean_and_deviation_are_those_of_all_pixels(root: Path) -> None:
    store = PixelStore(load_source(root), range(20), SPEC, threads=1, max_bytes=10**9)
    values = store.get(np.arange(20)) / 255
    mean, std = store.mean_std()
    np.testing.assert_allclose(mean, values.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, values.std((0, 1, 2)), rtol=1e-9)
    assert all(isinstance(value, float) for value in (*mean, *std))


def test_a_constant_channel_can_still_be_divided_by(tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / label).mkdir()
        Image.new("L", (8, 8), 77).save(tmp_path / label / "1.png")
    spec = InputSpec(height=8, width=8, channels=1, mean=(0.5,), std=(0.5,))
    mean, std = PixelStore(load_source(tmp_path), [0, 1], spec, threads=1, max_bytes=10**9).mean_std()
    assert mean == pytest.approx((77 / 255,))
    assert std == (1 / 255,)
    replace(spec, mean=mean, std=std)


def test_sixteen_bits_are_kept(tmp_path: Path) -> None:
    for label, value in (("a", 1000), ("b", 60000)):
        (tmp_path / label).mkdir()
        Image.fromarray(np.full((8, 8), value, np.uint16)).save(tmp_path / label / "1.png")
    spec = InputSpec(height=8, width=8, channels=1, bit_depth=16, mean=(0.5,), std=(0.5,))
    store = PixelStore(load_source(tmp_path), [0, 1], spec, threads=1, max_bytes=10**9)
    pixels = store.get(np.array([0, 1]))
    assert pixels.dtype == np.uint16
    assert pixels[:, 0, 0, 0].tolist() == [1000, 60000]
    assert store.image_bytes == 128


def test_another_normalisation_shares_the_pixels(root: Path) -> None:
    store = PixelStore(load_source(root), range(4), SPEC, threads=1, max_bytes=10**9)
    twin = store.with_spec(replace(SPEC, mean=(0.1, 0.2, 0.3), classes=("x", "y")))
    assert np.shares_memory(twin.get(np.s_[:]), store.get(np.s_[:]))  # type: ignore[arg-type]
    assert twin.spec.mean == (0.1, 0.2, 0.3)
    assert store.spec is SPEC
    with pytest.raises(AssertionError):
        store.with_spec(replace(SPEC, height=9))


@pytest.mark.parametrize("max_bytes", [0, 10**9])
def test_an_image_that_has_gone_is_named(root: Path, max_bytes: int) -> None:
    source = load_source(root)
    (root / "a" / "3.png").unlink()
    with pytest.raises(DataError, match=r"'a/3.png' does not exist"):
        PixelStore(source, range(20), SPEC, threads=2, max_bytes=max_bytes).get(np.arange(20))


def _digests(source: Source) -> list[str]:
    """Of the files; good enough where nothing else is at hand."""
    return [hashlib.sha256(Path(source.open(i)).read_bytes()).hexdigest() for i in range(len(source.samples))]


def _on_disk(root: Path, tmp_path: Path, indices: Sequence[int] = range(20), spec: InputSpec = SPEC) -> PixelStore:
    source = load_source(root)
    return PixelStore(source, indices, spec, threads=2, max_bytes=0, digests=_digests(source), cache=tmp_path / "cache")


def _files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache" / "pixels").iterdir())


@pytest.mark.parametrize("depth", [8, 16])
def test_memory_disk_and_decoding_anew_give_the_same_numbers(root: Path, tmp_path: Path, depth: Literal[8, 16]) -> None:
    spec, source = replace(SPEC, bit_depth=depth), load_source(root)
    indices = [3, 1, 4, 15, 9]
    disk = _on_disk(root, tmp_path, indices, spec)
    again = _on_disk(root, tmp_path, indices, spec)
    kept = PixelStore(source, indices, spec, threads=1, max_bytes=10**9)
    fresh = PixelStore(source, indices, spec, threads=1, max_bytes=0)
    assert [store.where for store in (disk, again, kept, fresh)] == ["disk", "disk", "memory", "decoded each time"]
    assert (disk.note, kept.note) == (None, None)
    assert fresh.note is not None
    assert "no digests" in fresh.note
    rows = np.array([4, 0, 0, 2])
    for store in (disk, again, fresh):
        assert store.get(rows).dtype == kept.get(rows).dtype
        assert store.get(rows).flags.writeable
        np.testing.assert_array_equal(store.get(rows), kept.get(rows))
        assert store.mean_std() == kept.mean_std()


def test_a_set_on_disk_is_decoded_once_by_all_processes_together(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _on_disk(root, tmp_path)
    monkeypatch.setattr(PixelStore, "_one", lambda self, index: pytest.fail("decoded again"))
    calls: list[tuple[int, int]] = []
    source = load_source(root)
    PixelStore(
        source,
        range(20),
        replace(SPEC, mean=(0.1, 0.2, 0.3), classes=("x", "y")),
        threads=1,
        max_bytes=0,
        digests=_digests(source),
        cache=tmp_path / "cache",
        progress=lambda *args: calls.append(args),
    )
    assert calls == [(20, 20)]


def test_other_pixels_another_order_or_another_size_are_another_file(root: Path, tmp_path: Path) -> None:
    first = _on_disk(root, tmp_path).get(np.arange(20))
    assert len(_files(tmp_path)) == 1
    turned = _on_disk(root, tmp_path, range(19, -1, -1)).get(np.arange(20))
    np.testing.assert_array_equal(turned, first[::-1])
    assert _on_disk(root, tmp_path, spec=replace(SPEC, width=9)).get(np.arange(20)).shape == (20, 8, 9, 3)
    Image.new("RGB", (23, 17), (1, 2, 3)).save(root / "a" / "3.png")
    changed = _on_disk(root, tmp_path).get(np.arange(20))
    np.testing.assert_array_equal(changed[3], np.broadcast_to([1, 2, 3], (8, 8, 3)))
    np.testing.assert_array_equal(np.delete(changed, 3, 0), np.delete(first, 3, 0))
    assert len(_files(tmp_path)) == 4


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_fill_leaves_nothing_and_is_done_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException | type[BaseException]
) -> None:
    decode = PixelStore._one

    def fail(store: PixelStore, index: int) -> np.ndarray:
        if index == 17:
            raise stop
        return decode(store, index)

    with monkeypatch.context() as patch:
        patch.setattr(PixelStore, "_one", fail)
        if stop is KeyboardInterrupt:
            with pytest.raises(KeyboardInterrupt):
                _on_disk(root, tmp_path)
        else:
            store = _on_disk(root, tmp_path)
            assert store.where == "decoded each time"
            assert store.note is not None
            assert "cannot be written (No space left on device)" in store.note
    assert _files(tmp_path) == []
    assert _on_disk(root, tmp_path).where == "disk"


@pytest.mark.parametrize("damage", [b"", b"not an array", None])
def test_a_damaged_file_is_replaced(root: Path, tmp_path: Path, damage: bytes | None) -> None:
    whole = _on_disk(root, tmp_path).get(np.arange(20))
    path = tmp_path / "cache" / "pixels" / _files(tmp_path)[0]
    path.write_bytes(path.read_bytes()[:-1] if damage is None else damage)
    store = _on_disk(root, tmp_path)
    assert store.where == "disk"
    np.testing.assert_array_equal(store.get(np.arange(20)), whole)


def test_the_least_recently_used_sets_make_room(root: Path, tmp_path: Path) -> None:
    source = load_source(root)

    def store(start: int, most: int) -> PixelStore:
        return PixelStore(
            source,
            range(start, start + 5),
            SPEC,
            threads=1,
            max_bytes=0,
            digests=_digests(source),
            cache=tmp_path / "cache",
            max_disk_bytes=most,
        )

    size = 5 * 8 * 8 * 3
    names = []
    for age, start in enumerate((0, 5, 10)):
        before = set(_files(tmp_path)) if age else set()
        store(start, 10**6)
        names += set(_files(tmp_path)) - before
        os.utime(tmp_path / "cache" / "pixels" / names[-1], (1000 + age, 1000 + age))
    store(0, 10**6)  # used again, so no longer the oldest
    held = (tmp_path / "cache" / "pixels" / names[0]).stat().st_size
    store(15, 2 * held + size)
    assert set(names) & set(_files(tmp_path)) == {names[0], names[2]}
    assert len(_files(tmp_path)) == 3
    small = store(1, size - 1)
    assert small.where == "decoded each time"
    assert small.note is not None
    assert "5 images take 0.0 MB when decoded" in small.note
    assert len(_files(tmp_path)) == 3


def test_a_disk_without_twice_the_room_is_left_alone(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 20 * 8 * 8 * 3
    usage = type(shutil.disk_usage(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, 2 * size - 1))
    store = _on_disk(root, tmp_path)
    assert store.where == "decoded each time"
    assert store.note is not None
    assert "twice the size is needed" in store.note
    assert _files(tmp_path) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, 2 * size))
    assert _on_disk(root, tmp_path).where == "disk"


def test_what_a_killed_process_left_half_written_is_removed_in_time(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "pixels"
    folder.mkdir(parents=True)
    for name, age in (("old.part", 7200), ("young.part", 60)):
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (time.time() - age, time.time() - age))
    _on_disk(root, tmp_path)
    assert "old.part" not in _files(tmp_path)
    assert "young.part" in _files(tmp_path)


def test_processes_that_fill_one_set_at_once_agree(root: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(lambda _: _on_disk(root, tmp_path), range(4)))
    assert [store.where for store in stores] == ["disk"] * 4
    for store in stores[1:]:
        np.testing.assert_array_equal(store.get(np.arange(20)), stores[0].get(np.arange(20)))
    assert len(_files(tmp_path)) == 1


def test_an_unreadable_image_is_named_while_a_file_is_filled(root: Path, tmp_path: Path) -> None:
    source = load_source(root)
    digests = _digests(source)
    (root / "a" / "3.png").unlink()
    with pytest.raises(DataError, match=r"'a/3.png' does not exist"):
        PixelStore(source, range(20), SPEC, threads=2, max_bytes=0, digests=digests, cache=tmp_path / "cache")
    assert _files(tmp_path) == []


def test_without_an_argument_the_users_cache_folder_is_taken(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VITREOUS_CACHE", str(tmp_path / "cache"))
    source = load_source(root)
    PixelStore(source, range(20), SPEC, threads=1, max_bytes=0, digests=_digests(source))
    assert len(_files(tmp_path)) == 1


def test_training_evaluation_and_prediction_decode_photographs_alike(tmp_path: Path) -> None:
    """A photograph large enough to be decoded at reduced size, by way of a store and by way of its file."""
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    for label in "ab":
        (tmp_path / label).mkdir()
        Image.fromarray(pixels).resize((401, 303), Image.Resampling.BICUBIC).save(
            tmp_path / label / "1.jpg", quality=90
        )
    spec = InputSpec(height=32, width=32, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.2), classes=("a", "b"))
    path = tmp_path / "a" / "1.jpg"
    assert open_image(path, target=spec).width < 401
    for max_bytes in (0, 10**9):
        store = PixelStore(load_source(tmp_path), [0], spec, threads=1, max_bytes=max_bytes)
        np.testing.assert_array_equal(next(eval_batches(store, 8))[0], prepare(path, spec))
        np.testing.assert_array_equal(prepare(open_image(path, target=spec), spec), prepare(path, spec))


@pytest.mark.parametrize(
    ("threads", "beside_training", "most"), [(1, False, 1), (3, False, 3), (3, True, 2), (2, True, 1)]
)
def test_decoding_beside_training_leaves_it_a_core(
    root: Path, monkeypatch: pytest.MonkeyPatch, threads: int, beside_training: bool, most: int
) -> None:
    decode, lock, now, seen = PixelStore._one, threading.Lock(), [0], [0]
    together = threading.Barrier(most)

    def counted(store: PixelStore, index: int) -> np.ndarray:
        with lock:
            now[0] += 1
            seen[0] = max(seen[0], now[0])
        together.wait(timeout=20)  # breaks where fewer than `most` ever decode at once
        pixels = decode(store, index)
        with lock:
            now[0] -= 1
        return pixels

    source = load_source(root)
    expected = PixelStore(source, range(18), SPEC, threads=1, max_bytes=10**9).get(np.arange(18))
    monkeypatch.setattr(PixelStore, "_one", counted)
    store = PixelStore(source, range(18), SPEC, threads=threads, max_bytes=0)
    np.testing.assert_array_equal(store.get(np.arange(18), beside_training=beside_training), expected)
    assert seen[0] == most
