"""Look-alikes are searched for once for the same images."""

from __future__ import annotations

import os
import time
from pathlib import Path

from vitreous.data.examination.remembered import KEPT, similar_or_remembered
from vitreous.data.examination.similar import Pair, Similar

FOUND = Similar([Pair(0, 2, "stored, sized or lit differently", 0.97)], [0, 1, 0], [0, 1, 2])


class Search:
    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> Similar:
        self.made += 1
        return FOUND


def test_the_same_images_are_searched_once_and_others_anew(tmp_path: Path) -> None:
    search = Search()
    for digests in (["a", "b", "c"], ["a", "b", "c"], ["a", "b", "d"], ["b", "a", "c"]):
        assert similar_or_remembered(digests, search, tmp_path) == FOUND
    assert search.made == 3


def test_without_a_cache_every_search_is_made(tmp_path: Path) -> None:
    search = Search()
    for _ in range(2):
        similar_or_remembered(["a", "b", "c"], search, None)
        similar_or_remembered(["a", "b", "c"], search, False)
    assert search.made == 4


def test_a_damaged_or_foreign_memory_is_no_memory(tmp_path: Path) -> None:
    search = Search()
    similar_or_remembered(["a", "b", "c"], search, tmp_path)
    (file,) = (tmp_path / "similar").iterdir()
    for text in ("{", "{}", '{"pairs": [], "clusters": [0], "representatives": [0]}'):
        file.write_text(text, encoding="utf-8")
        assert similar_or_remembered(["a", "b", "c"], search, tmp_path) == FOUND
    assert search.made == 4


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("in the way", encoding="utf-8")
    assert similar_or_remembered(["a", "b", "c"], Search(), place) == FOUND


def test_what_was_not_used_for_long_is_removed(tmp_path: Path) -> None:
    similar_or_remembered(["a", "b", "c"], Search(), tmp_path)
    (old,) = (tmp_path / "similar").iterdir()
    os.utime(old, (time.time() - KEPT - 9, time.time() - KEPT - 9))
    similar_or_remembered(["a", "b", "d"], Search(), tmp_path)
    assert not old.exists() and len(list((tmp_path / "similar").iterdir())) == 1


def test_a_full_search_answers_a_quick_one_and_not_the_other_way(tmp_path: Path) -> None:
    search, digests = Search(), ["a", "b", "c"]
    similar_or_remembered(digests, search, tmp_path, quick=True)
    similar_or_remembered(digests, search, tmp_path, quick=True)
    assert search.made == 1
    similar_or_remembered(digests, search, tmp_path)
    assert search.made == 2
    (tmp_path / "similar").joinpath(next(f.name for f in (tmp_path / "similar").glob("*-quick.json"))).unlink()
    similar_or_remembered(digests, search, tmp_path, quick=True)
    assert search.made == 2
