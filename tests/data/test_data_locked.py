from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from vitreous.config.input import InputSpec
from vitreous.data import PixelStore, Sample, Source, make_split
from vitreous.data.sources.locked import LockedPartError, LockedSource
from vitreous.data.sources.source import Listing
from vitreous.errors import UserError


class _Trap:
    """Notes every image that is opened."""

    def __init__(self) -> None:
        self.opened: list[int] = []

    def __call__(self, index: int) -> np.ndarray:
        self.opened.append(index)
        return np.full((4, 4), index, np.uint8)


def _source(count: int) -> tuple[Listing, _Trap]:
    trap = _Trap()
    samples = [Sample(f"{index}.png", "ab"[index % 2], None, None) for index in range(count)]
    return Listing("toy", "folder", "here", samples, ["a", "b"], ["a note"], trap), trap


def test_a_locked_image_cannot_be_opened_and_is_named() -> None:
    source, trap = _source(6)
    locked = LockedSource(source, np.array([1, 4]))
    for index in (1, 4, -2):
        with pytest.raises(LockedPartError, match=r"The test part was opened while training or choosing: '[14]\.png'"):
            locked.open(index)
    assert trap.opened == []
    for index in (0, 2, 3, 5):
        locked.open(index)
    assert trap.opened == [0, 2, 3, 5]


def test_the_error_is_our_fault_and_not_the_callers() -> None:
    locked = LockedSource(_source(2)[0], [0])
    with pytest.raises(LockedPartError) as caught:
        locked.open(0)
    assert not isinstance(caught.value, UserError)
    assert caught.value.exit_code == 1


def test_the_part_is_open_inside_unlocked_and_closed_after_it() -> None:
    locked = LockedSource(_source(4)[0], [3])
    with locked.unlocked("scoring the test part"):
        assert np.asarray(locked.open(3))[0, 0] == 3
        with locked.unlocked("once more"):
            locked.open(3)
        locked.open(3)
    with pytest.raises(LockedPartError):
        locked.open(3)
    assert locked.openings == ("scoring the test part", "once more")


def test_an_error_inside_closes_it_too() -> None:
    locked = LockedSource(_source(4)[0], [3])
    with pytest.raises(ZeroDivisionError), locked.unlocked("scoring"):
        raise ZeroDivisionError
    with pytest.raises(LockedPartError):
        locked.open(3)


def test_a_selection_keeps_its_locks_and_opens_with_the_whole() -> None:
    source, trap = _source(6)
    locked = LockedSource(source, [1, 4])
    some = locked.select([5, 4, 0]).select([1, 2])
    assert [sample.path for sample in some.samples] == ["4.png", "0.png"]
    some.open(1)
    with pytest.raises(LockedPartError, match=r"4\.png"):
        some.open(0)
    with locked.unlocked("scoring"):
        some.open(0)
    with some.unlocked("again"):
        locked.open(1)
    assert locked.openings == some.openings == ("scoring", "again")
    assert trap.opened == [0, 4, 1]


def test_everything_but_opening_is_the_sources() -> None:
    source, _ = _source(3)
    locked: Source = LockedSource(source, [0])
    for name in ("name", "kind", "root", "samples", "classes", "task", "notes", "unusable"):
        assert getattr(locked, name) == getattr(source, name)


def test_other_threads_may_open_it_inside_and_it_stays_open_until_the_last_leaves() -> None:
    locked = LockedSource(_source(8)[0], range(8))
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with locked.unlocked("the slow one"):
            inside.set()
            leave.wait(10)

    with ThreadPoolExecutor(4) as pool:
        slow = pool.submit(hold)
        assert inside.wait(10)
        with locked.unlocked("the quick one"):
            assert len(list(pool.map(locked.open, range(8)))) == 8
        locked.open(0)
        leave.set()
        slow.result()
    with pytest.raises(LockedPartError):
        locked.open(0)
    assert sorted(locked.openings) == ["the quick one", "the slow one"]


def test_training_and_choosing_open_no_test_image() -> None:
    source, trap = _source(60)
    split = make_split(
        source.samples, [f"{index:064x}" for index in range(60)], seed=0, val_fraction=0.2, test_fraction=0.2
    )
    test = split.indices("test")
    locked = LockedSource(source, test)
    spec = InputSpec(height=4, width=4)
    for part in ("train", "val"):
        store = PixelStore(locked, split.indices(part), spec, threads=2, max_bytes=2**20)
        store.get(np.arange(len(store)))
    assert len(trap.opened) == 60 - len(test)
    assert not set(trap.opened) & set(test.tolist())
    with pytest.raises(LockedPartError):
        PixelStore(locked, test, spec, threads=2, max_bytes=2**20)
    with locked.unlocked("scoring the test part"):
        PixelStore(locked, test, spec, threads=2, max_bytes=2**20)
    assert set(trap.opened) == set(range(60))
