from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitreous.config.input import InputSpec
from vitreous.data import PixelStore, load_source
from vitreous.errors import DataError

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
