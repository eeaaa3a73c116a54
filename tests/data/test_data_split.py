from __future__ import annotations

import hashlib
import random
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitreous.data import Sample, Split, make_split
from vitreous.data.splitting.assign import Unit, assign, intervals
from vitreous.data.splitting.leaks import MOST_PAIRS, Leak
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


def _split(
    samples: list[Sample], hashes: list[str], seed: int = 0, val: float = 0.15, test: float = 0.2, **more: Any
) -> Split:
    return make_split(samples, hashes, seed=seed, val_fraction=val, test_fraction=test, **more)


def _counts(split: Split) -> dict[str, Counter[str]]:
    table: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for label, part in zip(split.labels, split.parts, strict=True):
        table[label][part] += 1
    return table


@pytest.mark.parametrize("seed", range(20))
def test_shares_are_kept_within_every_class(seed: int) -> None:
    totals = {"a": 1000, "b": 100, "c": 20, "d": 10}
    counts = _counts(_split(*_set(totals), seed=seed))
    for label, total in totals.items():
        for part, share in (("test", 0.2), ("val", 0.15 * 0.8)):
            deviation = (share * (1 - share) * total) ** 0.5
            allowed = max(1, min(2 * deviation, 0.2 * share * total))
            assert counts[label][part] == pytest.approx(share * total, abs=allowed)


def test_shares_are_right_on_average() -> None:
    splits = [_split(*_set({"a": 300, "b": 60, "c": 15}), seed=seed) for seed in range(40)]
    for label, total in (("a", 300), ("b", 60), ("c", 15)):
        test = np.mean([_counts(split)[label]["test"] for split in splits])
        val = np.mean([_counts(split)[label]["val"] for split in splits])
        assert test == pytest.approx(0.2 * total, rel=0.12)
        assert val == pytest.approx(0.12 * total, rel=0.12)


def test_large_fractions_are_honoured() -> None:
    counts = _counts(_split(*_set({"a": 400, "b": 400}), val=0.5, test=0.5))
    for part, wanted in (("train", 100), ("val", 100), ("test", 200)):
        assert counts["a"][part] == pytest.approx(wanted, abs=40)


@pytest.mark.parametrize("count", [3, 4, 5, 7])
def test_a_rare_class_is_in_every_part(count: int) -> None:
    counts = _counts(_split(*_set({"common": 300, "rare": count})))
    assert min(counts["rare"][part] for part in ("train", "val", "test")) >= 1


def test_neither_file_order_nor_names_decide() -> None:
    samples, hashes = _set({"a": 120, "b": 60}, groups_of=3)
    first = _split(samples, hashes)
    order = list(range(len(samples)))
    random.Random(1).shuffle(order)
    moved = [Sample(f"elsewhere/{i}.jpg", samples[i].label, samples[i].group, None) for i in order]
    second = _split(moved, [hashes[i] for i in order])
    assert [first.parts[i] for i in order] == second.parts
    assert [first.folds[i] for i in order] == second.folds
    assert first.digest() == second.digest()


def test_the_seed_decides() -> None:
    samples, hashes = _set({"a": 100, "b": 100})
    assert _split(samples, hashes, seed=0).parts == _split(samples, hashes, seed=0).parts
    assert _split(samples, hashes, seed=0).digest() != _split(samples, hashes, seed=1).digest()


def test_groups_stay_whole_and_classes_keep_their_shares() -> None:
    split = _split(*_set({"a": 600, "b": 300}, groups_of=6))
    parts_of = defaultdict(set)
    for group, part in zip(split.groups, split.parts, strict=True):
        parts_of[group].add(part)
    assert all(len(parts) == 1 for parts in parts_of.values())
    counts = _counts(split)
    assert counts["a"]["test"] == pytest.approx(120, abs=24)
    assert counts["b"]["val"] == pytest.approx(36, abs=7.2)


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
    assert len(split.indices("val")) == pytest.approx(12, abs=4)
    assert split.leaks == []
    assert split.notes[0] == "Kept as the data gives them: train and test."


def test_a_missing_test_part_is_taken_from_training_images_and_never_from_validation() -> None:
    samples, hashes = _set({"a": 50, "b": 50})
    samples = [Sample(s.path, s.label, None, "val" if i % 5 == 0 else None) for i, s in enumerate(samples)]
    split = _split(samples, hashes)
    assert [i for i, s in enumerate(samples) if s.part == "val"] == split.indices("val").tolist()
    assert len(split.indices("test")) == pytest.approx(0.2 * 80, abs=5)


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
    assert split.leaks == [Leak("a/5.png", "a/4.png", "identical pixels"), Leak("a/1.png", "a/8.png", "same group")]
    assert split.leak_count == 2
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
    for name in ("paths", "labels", "groups", "parts", "hashes", "clusters", "folds"):
        assert getattr(again, name) == getattr(split, name)
    assert again.digest() == split.digest()
    assert (
        (tmp_path / "splits.csv").read_text(encoding="utf-8").startswith("path,label,group,part,sha256,cluster,fold\n")
    )


def test_a_split_of_five_columns_is_still_read(tmp_path: Path) -> None:
    (tmp_path / "splits.csv").write_text("path,label,group,part,sha256\na,b,c,test,d\n")
    split = Split.read_csv(tmp_path / "splits.csv")
    assert (split.parts, split.clusters, split.folds) == (["test"], [""], [-1])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "path,label\n",
        "path,label,group,part,sha256\na,b,c,holdout,d\n",
        "path,label,group,part,sha256,cluster,fold\na,b,c,test,d\n",
        "path,label,group,part,sha256,cluster,fold\na,b,c,train,d,,first\n",
    ],
)
def test_a_damaged_split_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "splits.csv").write_text(text)
    with pytest.raises(RunError, match="is no stored split"):
        Split.read_csv(tmp_path / "splits.csv")


def _moved(before: Split, after: Split) -> int:
    """Images that both hold, in different parts."""
    known = dict(zip(before.hashes, before.parts, strict=True))
    return sum(known.get(digest, part) != part for digest, part in zip(after.hashes, after.parts, strict=True))


def _corrected(split: Split) -> int:
    found = [note for note in split.notes if "were moved for the shares" in note]
    return int(found[0].split()[0].replace(",", "")) if found else 0


def _mixture(count: int, seed: int) -> tuple[list[Sample], list[str]]:
    """Single images and groups of up to five, three classes of very different size."""
    rng = random.Random(seed)
    samples = []
    for number in range(count):
        group = f"g{rng.randrange(count // 5)}" if rng.random() < 0.5 else None
        samples.append(Sample(f"{number}.png", rng.choice("a" * 40 + "b" * 10 + "c"), group, None))
    return samples, [_hash(seed * 10**6 + number) for number in range(count)]


@pytest.mark.parametrize("seed", range(10))
def test_adding_files_moves_none_of_the_old_but_those_that_were_corrected(seed: int) -> None:
    samples, hashes = _set({"a": 1500, "b": 700})
    more, others = _set({"a": 200, "b": 400})
    before = _split(samples, hashes, seed=seed)
    after = _split([*more, *samples], [*(_hash(-1 - i) for i in range(len(others))), *hashes], seed=seed)
    assert _moved(before, after) <= _corrected(before) + _corrected(after)
    assert _corrected(before) + _corrected(after) < 20


def test_adding_files_to_groups_and_copies_of_files_moves_none_of_the_old() -> None:
    samples, hashes = _set({"a": 3000, "b": 3000}, groups_of=3)
    alone, digests = _set({"a": 3000, "b": 3000})
    samples, hashes = samples + alone, hashes + [_hash(10**6 + i) for i in range(len(digests))]
    before = _split(samples, hashes)
    grown = [Sample(f"new/{i}", samples[i].label, samples[i].group, None) for i in range(0, 6000, 9)]
    copies = [Sample(f"copy/{i}", samples[i].label, None, None) for i in range(6000, 12000, 9)]
    added = [_hash(-i - 1) for i in range(len(grown))] + [hashes[i] for i in range(6000, 12000, 9)]
    after = _split([*grown, *copies, *samples], [*added, *hashes])
    assert _corrected(before) == _corrected(after) == 0
    assert after.parts[len(added) :] == before.parts
    assert [after.parts[i] for i in range(len(grown))] == [before.parts[i] for i in range(0, 6000, 9)]
    assert [after.parts[len(grown) + i] for i in range(len(copies))] == [before.parts[i] for i in range(6000, 12000, 9)]


@pytest.mark.parametrize("seed", range(10))
def test_with_the_earlier_split_no_image_ever_moves(seed: int, tmp_path: Path) -> None:
    samples, hashes = _mixture(300, seed)
    split = _split(samples, hashes, seed=seed)
    for step in range(4):
        split.write_csv(tmp_path / "splits.csv")
        before = Split.read_csv(tmp_path / "splits.csv")
        more, digests = _mixture(60, 1000 + 10 * seed + step)
        samples, hashes = samples + more, hashes + digests
        order = random.Random(step).sample(range(len(samples)), len(samples))
        samples, hashes = [samples[i] for i in order], [hashes[i] for i in order]
        clusters = [int(digest[:2], 16) if digest[2] == "0" else -1 for digest in hashes]
        split = _split(samples, hashes, seed=seed, clusters=clusters, previous=before)
        assert _moved(before, split) == 0
        known = dict(zip(before.hashes, before.groups, strict=True))
        aside = {digest for digest, part in zip(before.hashes, before.parts, strict=True) if part == "none"}
        for digest, group in zip(split.hashes, split.groups, strict=True):
            assert digest in aside or known.get(digest, group) == group
        _assert_no_new_image_straddles(samples, split, clusters, set(before.hashes) - aside)


def _assert_no_new_image_straddles(samples: list[Sample], split: Split, clusters: list[int], old: set[str]) -> None:
    sets: defaultdict[object, list[int]] = defaultdict(list)
    for i, sample in enumerate(samples):
        sets["pixels", split.hashes[i]].append(i)
        if sample.group is not None:
            sets["group", sample.group].append(i)
        if clusters[i] >= 0:
            sets["cluster", clusters[i]].append(i)
    for members in sets.values():
        placed = [i for i in members if split.parts[i] != "none"]
        if len({split.parts[i] for i in placed}) > 1:
            assert all(split.hashes[i] in old for i in placed)


@pytest.mark.parametrize("seed", range(10))
def test_no_group_cluster_or_copy_straddles_made_parts(seed: int) -> None:
    samples, hashes = _mixture(400, seed)
    hashes = [hashes[i - 7] if i % 23 == 22 else digest for i, digest in enumerate(hashes)]
    clusters = [i // 4 if i % 5 == 0 else -1 for i in range(400)]
    split = _split(samples, hashes, seed=seed, clusters=clusters)
    _assert_no_new_image_straddles(samples, split, clusters, set())
    assert split.leaks == []
    assert split.set_aside == []


@pytest.mark.parametrize("seed", range(10))
def test_no_correction_is_needless(seed: int) -> None:
    rng = random.Random(seed)
    units = []
    for number in range(120):
        size = rng.choice([1, 1, 1, 2, 6])
        labels = Counter[str | None](rng.choices("abcd", [60, 30, 8, 2], k=size))
        labels[None] = size
        units.append(Unit(f"{seed}-{number}", labels, [number]))
    spans = intervals(("test", "val"), 0.15, 0.2)
    result = assign(units, [], spans, seed)
    worst = _badness(units, result.parts)
    assert worst <= _badness(units, result.drawn)
    for index, (part, drawn) in enumerate(zip(result.parts, result.drawn, strict=True)):
        if part != drawn:
            back = [*result.parts[:index], drawn, *result.parts[index + 1 :]]
            assert _badness(units, back) > worst
    assert result.moved < 20


@pytest.mark.parametrize("count", [7, 15, 40])
def test_the_units_moved_are_those_nearest_the_boundary(count: int) -> None:
    moved = 0
    for seed in range(30):
        units = [Unit(str(number), {"a": 1, None: 1}, [number]) for number in range(count)]
        result = assign(units, [], intervals(("test",), 0.15, 0.4), seed)
        in_order = [
            part for _, part in sorted((unit.draw(seed), p) for unit, p in zip(units, result.parts, strict=True))
        ]
        assert in_order == sorted(in_order)  # test before train
        moved += result.moved
    assert moved > 10


def _badness(units: list[Unit], parts: list[str]) -> tuple[int, int, int, float]:
    """Classes absent from train, test and val, and by how much shares are out of bounds: an oracle of its own."""
    labels = {label for unit in units for label in unit.counts}
    have = Counter()
    for unit, part in zip(units, parts, strict=True):
        for label, count in unit.counts.items():
            have[part, label] += count
    excess = 0.0
    for label in labels:
        sizes = [unit.counts[label] for unit in units if label in unit.counts]
        for part, share in (("test", 0.2), ("val", 0.12)):
            chance = 2 * (share * (1 - share) * sum(size**2 for size in sizes)) ** 0.5
            allowed = max(sum(sizes) / len(sizes), min(chance, 0.2 * share * sum(sizes)))
            excess += max(abs(have[part, label] - share * sum(sizes)) - allowed, 0) / allowed
    train, test, val = (sum(not have[part, label] for label in labels) for part in ("train", "test", "val"))
    return train, test, val, round(excess, 6)


def test_near_duplicates_stay_together_and_their_cluster_is_named() -> None:
    samples, hashes = _set({"a": 60, "b": 60})
    clusters = list(range(120))
    clusters[3] = clusters[50] = clusters[100] = 7
    split = _split(samples, hashes, clusters=clusters)
    members = [3, 7, 50, 100]
    assert len({split.parts[i] for i in members}) == 1
    name = min(hashes[i] for i in members)[:12]
    assert {i for i, cluster in enumerate(split.clusters) if cluster} == set(members)
    assert {split.clusters[i] for i in members} == {name}


def test_a_new_image_follows_the_old_ones_it_resembles() -> None:
    samples, hashes = _set({"a": 60, "b": 60})
    samples = [replace(sample, group=f"g{i // 2}") for i, sample in enumerate(samples)]
    before = _split(samples, hashes)
    test, train = before.indices("test")[0], before.indices("train")[0]
    new = [
        Sample("new/group", "a", f"g{test // 2}", None),
        Sample("new/copy", "a", None, None),
        Sample("new/cluster", "a", None, None),
        Sample("new/chain", "a", "later", None),
        Sample("new/chained", "a", "later", None),
    ]
    digests = [_hash(-1), hashes[train], _hash(-3), hashes[test], _hash(-4)]
    clusters = [*range(len(samples)), -1, -1, int(test), -1, -1]
    split = _split(samples + new, hashes + digests, clusters=clusters, previous=before)
    assert split.parts[:120] == before.parts
    assert split.parts[120:] == ["test", "train", "test", "test", "test"]
    assert split.groups[120] == split.groups[122] == before.groups[test]
    assert split.clusters[122] == split.clusters[test] == min(hashes[test], _hash(-3))[:12]
    assert split.leaks == []


def test_a_new_image_that_would_join_two_parts_is_set_aside_and_named(tmp_path: Path) -> None:
    samples, hashes = _set({"a": 60, "b": 60})
    before = _split(samples, hashes)
    test, train = int(before.indices("test")[0]), int(before.indices("train")[0])
    samples = [replace(s, group="scene") if i == test else s for i, s in enumerate(samples)]
    bridge, friend = Sample("new/bridge", "a", "scene", None), Sample("new/friend", "a", "scene", None)
    clusters = [*range(len(samples)), train, -1]
    split = _split([*samples, bridge, friend], [*hashes, _hash(-1), _hash(-2)], clusters=clusters, previous=before)
    assert split.set_aside == [120]
    assert split.parts[120:] == ["none", "test"]
    assert split.folds[120] == -1
    assert not any(120 in split.indices(part) for part in ("train", "val", "test"))
    note = next(note for note in split.notes if "new/bridge" in note)
    assert samples[test].path in note
    assert samples[train].path in note
    split.write_csv(tmp_path / "splits.csv")
    again = Split.read_csv(tmp_path / "splits.csv")
    assert again.set_aside == [120]
    assert again.digest() == split.digest()


def test_a_chain_of_new_images_between_two_parts_is_set_aside_whole() -> None:
    samples, hashes = _set({"a": 60, "b": 60})
    before = _split(samples, hashes)
    test, train = int(before.indices("test")[0]), int(before.indices("train")[0])
    new = [Sample("new/1", "a", "between", None), Sample("new/2", "a", "between", None)]
    clusters = [*range(len(samples)), test, train]
    split = _split(samples + new, [*hashes, _hash(-1), _hash(-2)], clusters=clusters, previous=before)
    assert split.set_aside == [120, 121]


def test_old_images_that_turn_out_alike_stay_where_they_are_and_are_reported() -> None:
    samples, hashes = _set({"a": 60, "b": 60})
    before = _split(samples, hashes)
    test, train = int(before.indices("test")[0]), int(before.indices("train")[0])
    clusters = list(range(120))
    clusters[test] = train
    split = _split(samples, hashes, clusters=clusters, near_pairs=[(test, train)], previous=before)
    assert split.parts == before.parts
    assert split.leaks == [Leak(samples[train].path, samples[test].path, "near-duplicate")]


def test_a_corrected_label_does_not_move_an_image() -> None:
    samples, hashes = _set({"a": 60, "b": 60})
    before = _split(samples, hashes)
    relabelled = [replace(sample, label="b") if i % 7 == 0 else sample for i, sample in enumerate(samples)]
    assert _split(relabelled, hashes, previous=before).parts == before.parts


def test_of_two_copies_that_were_in_different_parts_each_keeps_its_own() -> None:
    samples, hashes = _set({"a": 40, "b": 40})
    hashes[1] = hashes[0]
    given = [replace(s, part="test" if i % 4 == 0 else "val" if i % 4 == 2 else "train") for i, s in enumerate(samples)]
    before = _split(given, hashes)
    assert _split(samples, hashes, previous=before).parts == before.parts
    renamed = [replace(sample, path=f"elsewhere/{i}") for i, sample in enumerate(samples)]
    after = _split(renamed, hashes, previous=before)
    assert after.set_aside == [0, 1]
    assert any("was in two parts of the earlier split" in note for note in after.notes)


def test_of_two_copies_under_two_labels_the_label_tells_which_is_which() -> None:
    samples, hashes = _set({"a": 40, "b": 40})
    hashes[79] = hashes[0]
    given = [replace(s, part="test" if i % 4 == 0 else "val" if i % 4 == 2 else "train") for i, s in enumerate(samples)]
    before = _split(given, hashes)
    renamed = [replace(sample, path=f"elsewhere/{i}") for i, sample in enumerate(samples)]
    after = _split(renamed, hashes, previous=before)
    assert after.parts == before.parts
    assert after.leaks == [Leak("elsewhere/79", "elsewhere/0", "identical pixels")]


def test_parts_that_the_data_gives_win_over_the_earlier_split() -> None:
    samples, hashes = _set({"a": 60, "b": 60})
    before = _split(samples, hashes)
    train = int(before.indices("train")[0])
    given = [replace(sample, part="test" if i == train else None) for i, sample in enumerate(samples)]
    split = _split(given, hashes, previous=before)
    assert split.parts[train] == "test"
    assert _moved(before, split) == 1
    assert "1 images were in another part in the earlier split; the parts that the data gives win." in split.notes


def test_new_images_are_dealt_out_towards_the_shares_of_all() -> None:
    samples, hashes = _set({"a": 100, "b": 100})
    before = _split(samples, hashes)
    before = replace(
        before, parts=["train" if part == "test" and i % 2 else part for i, part in enumerate(before.parts)]
    )
    more, digests = _set({"a": 100, "b": 100})
    split = _split(samples + more, hashes + [_hash(-1 - i) for i in range(len(digests))], previous=before)
    assert split.parts[:200] == before.parts
    for label in "ab":
        assert _counts(split)[label]["test"] == pytest.approx(40, abs=8)


def test_an_image_without_a_part_that_repeats_two_given_parts_is_set_aside() -> None:
    samples, hashes = _set({"a": 40, "b": 40})
    given = [replace(s, part="test" if i % 4 == 0 else "train") for i, s in enumerate(samples)]
    copy = Sample("copy", "a", None, None)
    hashes[1] = hashes[0]
    split = _split([*given, copy], [*hashes, hashes[0]])
    assert split.parts[0] == "test"
    assert split.parts[1] == "train"
    assert split.parts[80] == "none"


def test_every_pair_of_a_leak_is_listed_once_with_the_strongest_reason() -> None:
    parts = ["train", "train", "val", "test", "test", "test"]
    samples = [Sample(str(i), "a", "scene" if i in (0, 2, 3) else None, part) for i, part in enumerate(parts)]
    hashes = [_hash(number) for number in (0, 1, 2, 0, 0, 5)]
    split = _split(samples, hashes, near_pairs=[(0, 3), (5, 1), (1, 5), (3, 4), (0, 2)])
    assert split.leaks == [
        Leak("0", "3", "identical pixels"),
        Leak("0", "4", "identical pixels"),
        Leak("0", "2", "same group"),
        Leak("2", "3", "same group"),
        Leak("1", "5", "near-duplicate"),
    ]
    assert split.leak_count == 5


def test_very_many_pairs_are_counted_but_not_all_listed() -> None:
    samples = [Sample(str(i), "a", "one", ("train", "val", "test")[i % 3]) for i in range(300)]
    split = _split(samples, [_hash(i // 2) for i in range(300)])
    assert split.leak_count == 3 * 100 * 100
    pairs = {(leak.first, leak.second) for leak in split.leaks}
    assert len(pairs) == len(split.leaks)
    assert len([leak for leak in split.leaks if leak.reason == "same group"]) == MOST_PAIRS
    assert len([leak for leak in split.leaks if leak.reason == "identical pixels"]) == 150


def test_each_of_several_labels_keeps_its_share() -> None:
    rng = random.Random(0)
    samples = []
    for i in range(600):
        labels = tuple(name for name, share in (("a", 0.5), ("b", 0.2), ("c", 0.03)) if rng.random() < share)
        samples.append(Sample(str(i), "|".join(labels), None, None, labels=labels))
    split = _split(samples, [_hash(i) for i in range(600)])
    for name in "abc":
        parts = Counter(split.parts[i] for i, sample in enumerate(samples) if name in (sample.labels or ()))
        total = sum(parts.values())
        assert parts["test"] == pytest.approx(0.2 * total, abs=max(1, 0.2 * 0.2 * total))
        assert parts["val"] == pytest.approx(0.12 * total, abs=max(1, 0.2 * 0.12 * total))
        folds = Counter(split.folds[i] for i, sample in enumerate(samples) if name in (sample.labels or ()))
        del folds[-1]
        assert max(folds.values()) - min(folds.values()) <= 2


def test_private_group_names_never_reach_the_split(tmp_path: Path) -> None:
    samples, hashes = _set({"a": 60, "b": 60})
    samples = [replace(sample, group=f"Miller^{i // 3}") for i, sample in enumerate(samples)]
    public, private = _split(samples, hashes), _split(samples, hashes, private_groups=True)
    assert private.parts == public.parts
    assert private.groups[4] == private.groups[5] == min(hashes[3:6])[:12]
    again = _split(samples, hashes, private_groups=True, previous=public)
    for split in (private, again):
        split.write_csv(tmp_path / "splits.csv")
        assert "Miller" not in (tmp_path / "splits.csv").read_text()
        assert not any("Miller" in note for note in split.notes)


def test_folds_hold_whole_groups_of_train_and_val_and_their_share_of_every_class() -> None:
    samples, hashes = _mixture(500, 1)
    split = _split(samples, hashes, folds=4)
    of_group: defaultdict[str, set[int]] = defaultdict(set)
    for group, fold, part in zip(split.groups, split.folds, split.parts, strict=True):
        of_group[group].add(fold)
        assert (fold == -1) == (part == "test")
    assert all(len(folds) == 1 for folds in of_group.values())
    assert set(split.folds) == {-1, 0, 1, 2, 3}
    common = Counter(f for f, label in zip(split.folds, split.labels, strict=True) if label == "a" and f >= 0)
    assert max(common.values()) - min(common.values()) <= 3


def test_too_few_groups_for_folds_are_said() -> None:
    split = _split(*_set({"a": 12, "b": 12}, groups_of=4))
    assert set(split.folds) == {-1}
    assert any(note.startswith("No folds:") for note in split.notes)
