from __future__ import annotations

import hashlib
import random
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from vitreous.data import Sample, Split, make_split
from vitreous.errors import DataError, RunError


def _hash(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def _set(counts: dict[str, int], groups_of: int = 0) -> tuple[list[Sample], list[str]]:
    samples, number = [], 0
    for label, count in counts.items():
        for _ in range(count):
            group = f"g{number // groups_of}" if groups_of else None
            samples.append(Sample(f"{label}/{number}.png", label, group, None))
            number += 1
    return samples, [_hash(i) for i in range(number)]


def _split(samples: list[Sample], hashes: list[str], seed: int = 0, val: float = 0.15, test: float = 0.2) -> Split:
    return make_split(samples, hashes, seed=seed, val_fraction=val, test_fraction=test)


def _counts(split: Split) -> dict[str, Counter[str]]:
    table: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for label, part in zip(split.labels, split.parts, strict=True):
        table[label][part] += 1
    return table


def test_shares_are_kept_within_every_class() -> None:
    counts = _counts(_split(*_set({"a": 1000, "b": 100, "c": 10})))
    for label, total in (("a", 1000), ("b", 100), ("c", 10)):
        assert counts[label]["test"] == pytest.approx(0.2 * total, abs=1)
        assert counts[label]["val"] == pytest.approx(0.15 * 0.8 * total, abs=1)


def test_large_fractions_are_honoured() -> None:
    counts = _counts(_split(*_set({"a": 400, "b": 400}), val=0.5, test=0.5))
    assert [counts["a"][part] for part in ("train", "val", "test")] == [100, 100, 200]


@pytest.mark.parametrize("count", [3, 4, 5, 7])
def test_a_rare_class_is_in_every_part(count: int) -> None:
    counts = _counts(_split(*_set({"common": 300, "rare": count})))
    assert min(counts["rare"][part] for part in ("train", "val", "test")) >= 1


def test_neither_file_order_nor_names_decide() -> None:
    samples, hashes = _set({"a": 120, "b": 60}, groups_of=3)
    first = _split(samples, hashes)
    order = list(range(len(samples)))
    random.Random(1).shuffle(order)
    moved = [Sample(f"elsewhere/{i}.jpg", samples[i].label, f"renamed-{samples[i].group}", None) for i in order]
    second = _split(moved, [hashes[i] for i in order])
    assert [first.parts[i] for i in order] == second.parts
    assert first.digest() == second.digest()


def test_the_seed_decides() -> None:
    samples, hashes = _set({"a": 100, "b": 100})
    assert _split(samples, hashes, seed=0).parts == _split(samples, hashes, seed=0).parts
    assert _split(samples, hashes, seed=0).digest() != _split(samples, hashes, seed=1).digest()


def test_one_more_image_moves_few_others() -> None:
    samples, hashes = _set({"a": 1000, "b": 1000})
    before = _split(samples, hashes)
    after = _split([*samples, Sample("a/new.png", "a", None, None)], [*hashes, _hash(-1)])
    # Even a random redraw would leave half of them in place, nearly all of those in train.
    held = [i for i, part in enumerate(before.parts) if part == "test"]
    assert np.mean([after.parts[i] == "test" for i in held]) > 0.5


def test_groups_stay_whole_and_classes_keep_their_shares() -> None:
    split = _split(*_set({"a": 600, "b": 300}, groups_of=6))
    parts_of = defaultdict(set)
    for group, part in zip(split.groups, split.parts, strict=True):
        parts_of[group].add(part)
    assert all(len(parts) == 1 for parts in parts_of.values())
    counts = _counts(split)
    assert counts["a"]["test"] == pytest.approx(120, abs=6)
    assert counts["b"]["val"] == pytest.approx(36, abs=6)


def test_groups_of_mixed_labels_and_sizes_stay_whole_with_all_classes_everywhere() -> None:
    rng = random.Random(0)
    samples = [Sample(str(i), rng.choice("aaaaaabbc"), f"p{int(rng.expovariate(0.05))}", None) for i in range(900)]
    split = _split(samples, [_hash(i) for i in range(900)])
    groups = [{split.groups[i] for i in split.indices(part)} for part in ("train", "val", "test")]
    assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])
    assert all(_counts(split)[label][part] > 0 for label in "abc" for part in ("train", "val", "test"))
    assert len(split.indices("test")) == pytest.approx(180, abs=40)


def test_identical_pixels_join_groups_through_others() -> None:
    samples = [Sample(f"{i}", "a" if i < 40 else "b", f"g{i // 2}", None) for i in range(80)]
    hashes = [_hash(i) for i in range(80)]
    hashes[3] = hashes[4]  # joins g1 and g2
    hashes[5] = hashes[60]  # joins g2 and g30, across labels
    split = _split(samples, hashes)
    assert len({split.groups[i] for i in (2, 3, 4, 5, 60, 61)}) == 1
    assert len({split.parts[i] for i in (2, 3, 4, 5, 60, 61)}) == 1
    assert split.conflicts == [("5", "60")]


def test_images_without_a_group_are_named_by_their_content() -> None:
    split = _split(*_set({"a": 5, "b": 5}))
    assert split.groups == [digest[:16] for digest in split.hashes]


def test_given_parts_win_and_only_the_missing_one_is_made() -> None:
    samples, hashes = _set({"a": 50, "b": 50})
    samples = [Sample(s.path, s.label, None, "test" if i % 5 == 0 else "train") for i, s in enumerate(samples)]
    split = _split(samples, hashes)
    assert [i for i, s in enumerate(samples) if s.part == "test"] == split.indices("test").tolist()
    assert len(split.indices("val")) == 12
    assert split.leaks == []
    assert split.notes[0] == "Kept as the data gives them: train and test."


def test_a_missing_test_part_is_taken_from_training_images_and_never_from_validation() -> None:
    samples, hashes = _set({"a": 50, "b": 50})
    samples = [Sample(s.path, s.label, None, "val" if i % 5 == 0 else None) for i, s in enumerate(samples)]
    split = _split(samples, hashes)
    assert [i for i, s in enumerate(samples) if s.part == "val"] == split.indices("val").tolist()
    assert len(split.indices("test")) == 20


def test_nothing_is_moved_where_all_parts_are_given() -> None:
    samples, hashes = _set({"a": 9, "b": 9})
    given = [Sample(s.path, s.label, None, ("train", "val", "test")[i % 3]) for i, s in enumerate(samples)]
    assert _split(given, hashes).parts == [s.part for s in given]


def test_leaks_between_given_parts_are_listed_and_kept_out_of_made_parts() -> None:
    samples, hashes = _set({"a": 40, "b": 40})
    given = [Sample(s.path, s.label, None, "test" if i % 4 == 0 else "train") for i, s in enumerate(samples)]
    given[1] = Sample(given[1].path, "a", "patient", "train")
    given[8] = Sample(given[8].path, "a", "patient", "test")
    hashes[5] = hashes[4]
    split = _split(given, hashes)
    assert sorted(split.leaks) == [("a/1.png", "a/8.png"), ("a/5.png", "a/4.png")]
    assert split.parts[1] == split.parts[5] == "train"


def test_copies_of_a_test_image_follow_it_into_the_test_part() -> None:
    samples, hashes = _set({"a": 40, "b": 40})
    given = [Sample(s.path, s.label, None, "test" if i % 4 == 0 else None) for i, s in enumerate(samples)]
    hashes[1] = hashes[0]
    split = _split(given, hashes)
    assert split.parts[1] == "test"
    assert split.leaks == []
    assert any("1 images without a part follow" in note for note in split.notes)


def test_a_class_with_too_few_groups_keeps_one_in_train_and_is_said() -> None:
    samples, hashes = _set({"a": 60, "b": 60})
    samples += [Sample(f"rare/{i}", "rare", f"r{i // 4}", None) for i in range(8)]
    split = _split(samples, hashes + [_hash(1000 + i) for i in range(8)])
    counts = _counts(split)["rare"]
    assert counts == {"train": 4, "test": 4}
    assert "The class 'rare' has only 2 independent groups: none is in val." in split.notes


def test_one_single_group_cannot_be_split() -> None:
    samples, hashes = _set({"a": 10, "b": 10}, groups_of=100)
    with pytest.raises(DataError, match="form only 1 independent groups"):
        _split(samples, hashes)


def test_data_without_training_images_cannot_be_split() -> None:
    with pytest.raises(DataError, match="no training images"):
        _split([Sample("1", "a", None, "test")], [_hash(1)])


def test_a_split_survives_writing_and_reading(tmp_path: Path) -> None:
    samples, hashes = _set({'a,"b"': 20, "ü\nx": 20}, groups_of=2)
    split = _split(samples, hashes)
    split.write_csv(tmp_path / "splits.csv")
    again = Split.read_csv(tmp_path / "splits.csv")
    for name in ("paths", "labels", "groups", "parts", "hashes"):
        assert getattr(again, name) == getattr(split, name)
    assert again.digest() == split.digest()
    assert (tmp_path / "splits.csv").read_text(encoding="utf-8").startswith("path,label,group,part,sha256\n")


@pytest.mark.parametrize("text", ["", "path,label\n", "path,label,group,part,sha256\na,b,c,holdout,d\n"])
def test_a_damaged_split_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "splits.csv").write_text(text)
    with pytest.raises(RunError, match="is no stored split"):
        Split.read_csv(tmp_path / "splits.csv")
