"""Giving every image a part.

Decided by what the images show and by the seed, never by file order or file names: renaming or moving files changes
nothing. What belongs together stays whole: identical pixels, one group, one cluster of near-duplicates; so that no made
part holds what another has seen. Parts that the data gives win and are only reported.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from vitreous.data.sources.source import PARTS, Sample
from vitreous.data.splitting.assign import Assignment, Counts, Unit, assign, intervals
from vitreous.data.splitting.earlier import Earlier, earlier_rows
from vitreous.data.splitting.folds import deal_folds
from vitreous.data.splitting.leaks import find_conflicts, find_leaks
from vitreous.data.splitting.links import Keys, Placement, connected, link_keys, place
from vitreous.data.splitting.names import name_clusters, name_groups
from vitreous.data.splitting.stored import NO_PART, Split
from vitreous.errors import DataError

_NAMED = 10
"""Images set aside, and classes absent from a part, that notes name; splits.csv tells of all."""


def make_split(
    samples: Sequence[Sample],
    hashes: Sequence[str],
    *,
    seed: int,
    val_fraction: float,
    test_fraction: float,
    clusters: Sequence[int] | None = None,
    near_pairs: Sequence[tuple[int, int]] = (),
    previous: Split | None = None,
    folds: int = 5,
    private_groups: bool = False,
    wanted: Sequence[str] = ("test", "val"),
) -> Split:
    """Give every image a part. Parts that the data names are kept; those it lacks are made from training images.

    hashes: sha256 of the decoded pixels of each sample.
    val_fraction: share of the images that are not test. test_fraction: share of all images outside a validation part
    that the data gives. Both are meant on average, see `assign`.
    clusters: number of the cluster of near-duplicates of each sample, negative for none.
    near_pairs: positions of verified near-duplicates, reported where they lie in different parts.
    previous: an earlier split of these data. Images with pixels that are in it keep part, group and cluster; new ones
    follow those they are joined with; one that would join two parts is set aside (part "none") and named in a note.
    folds: how many `Split.folds` there are.
    private_groups: the names of groups must not be stored; part of a hash of their pixels stands for them.
    wanted: the parts besides training that there must be; images without labels need no test part.
    Raises DataError where a missing part cannot be made: no training images, or too few independent groups.
    """
    given = [sample.part for sample in samples]
    made = [part for part in wanted if part not in given]
    if not any(part in (None, "train") for part in given):
        raise DataError("The data holds no training images to split or to train on.")
    keys = link_keys(samples, hashes, clusters)
    earlier = earlier_rows(previous, samples, hashes) if previous is not None else [None] * len(samples)
    fixed, overruled = _fixed(keys, given, made, earlier)
    barred = {index for index, row in enumerate(earlier) if row and row.torn and fixed[index] is None}
    placement = place(keys, fixed, barred)
    parts = [placement.follows.get(index, part) for index, part in enumerate(fixed)]
    members = connected(keys, (index for index in range(len(samples)) if index not in placement.aside))
    notes = _notes(samples, given, earlier, overruled, placement, parts)
    if made:
        units, held = _units(samples, hashes, members, parts, made)
        result = assign(units, held, intervals(made, val_fraction, test_fraction), seed)
        for unit, part in zip(units, result.parts, strict=True):
            for index in unit.members:
                parts[index] = part
        _check_made(made, parts, len(samples), len(members))
        notes += _assignment_notes(result, made, seed)
    final = [part or (NO_PART if index in placement.aside else "train") for index, part in enumerate(parts)]
    leaks, leak_count = find_leaks(samples, hashes, final, near_pairs)
    numbers, fold_notes = _folds(samples, hashes, members, final, folds, seed)
    return Split(
        paths=[sample.path for sample in samples],
        labels=[sample.label for sample in samples],
        groups=name_groups(samples, hashes, members, final, earlier, private=private_groups),
        parts=final,
        hashes=list(hashes),
        clusters=name_clusters(hashes, clusters, earlier),
        folds=numbers,
        leaks=leaks,
        leak_count=leak_count,
        conflicts=find_conflicts(samples, hashes),
        notes=notes + fold_notes,
    )


def _fixed(
    keys: Keys, given: Sequence[str | None], made: Sequence[str], earlier: Sequence[Earlier | None]
) -> tuple[list[str | None], int]:
    """The part of each image that has one from the data or from an earlier split, and how often they disagree.

    Given training images are what missing parts are made from, so they are open as long as one is missing, but for
    those joined with images of a part that the data gives: these are leaks, and must not get into a made part too.
    """
    fixed: list[str | None] = []
    overruled = 0
    for part, row in zip(given, earlier, strict=True):
        before = row.part if row else None
        bound = part == "train" and (not made or before not in (None, "train", *made))
        chosen = part if bound or part in ("val", "test") else before
        overruled += before not in (None, chosen)
        fixed.append(chosen)
    if made and any(part in ("val", "test") for part in given):
        touched = {key for own, part in zip(keys, fixed, strict=True) if part in made for key in own}
        for indices in connected(keys, range(len(keys))):
            if any(given[index] in ("val", "test") for index in indices):
                for index in indices:
                    if given[index] == "train" and fixed[index] is None and not touched.intersection(keys[index]):
                        fixed[index] = "train"
    return fixed, overruled


def _units(
    samples: Sequence[Sample],
    hashes: Sequence[str],
    members: Sequence[Sequence[int]],
    parts: Sequence[str | None],
    made: Sequence[str],
) -> tuple[list[Unit], list[tuple[str, Counts]]]:
    """What is to be dealt out, in an order of its own, and (part, counts) of what has a part and counts for the shares."""
    units: list[Unit] = []
    held: list[tuple[str, Counts]] = []
    for indices in members:
        if all(parts[index] is None for index in indices):
            units.append(Unit(_key(indices, samples, hashes), _counts(samples[index] for index in indices), indices))
            continue
        for part in ("train", *made):
            inside = [index for index in indices if parts[index] == part]
            if inside:
                held.append((part, _counts(samples[index] for index in inside)))
    return sorted(units, key=lambda unit: unit.key), held


def _key(indices: Sequence[int], samples: Sequence[Sample], hashes: Sequence[str]) -> str:
    """A name for the content of a unit. A group keeps its name whatever images it gains; pixels are all others have."""
    names = [group for index in indices if (group := samples[index].group) is not None]
    return f"group {min(names)}" if names else f"pixels {min(hashes[index] for index in indices)}"


def _counts(samples: Iterable[Sample]) -> dict[str | None, int]:
    """{label: images}, each label of an image that has several, and under None all of them."""
    counts: Counter[str | None] = Counter()
    for sample in samples:
        counts[None] += 1
        counts.update(_labels(sample))
    return dict(counts)


def _labels(sample: Sample) -> tuple[str, ...]:
    return (sample.label,) if sample.labels is None else sample.labels


def _check_made(made: Sequence[str], parts: Sequence[str | None], images: int, groups: int) -> None:
    for part in made:
        if part not in parts:
            raise DataError(
                f"No {part} part can be made: the {images:,} images form only {groups:,} independent groups.",
                f"Give one with --{part} PATH, or group the images more finely with --group.",
            )


def _folds(
    samples: Sequence[Sample],
    hashes: Sequence[str],
    members: Sequence[Sequence[int]],
    parts: Sequence[str],
    folds: int,
    seed: int,
) -> tuple[list[int], list[str]]:
    """The fold of each image of train and val, -1 for all where there are too few groups, which is said."""
    numbers = [-1] * len(samples)
    units = [[index for index in indices if parts[index] in ("train", "val")] for indices in members]
    units = sorted((unit for unit in units if unit), key=lambda unit: _key(unit, samples, hashes))
    if len(units) < folds:
        return numbers, [f"No folds: outside the test part are {len(units):,} independent groups, fewer than {folds}."]
    index_of: defaultdict[str, int] = defaultdict(lambda: len(index_of))
    counts = [Counter(index_of[label] for index in unit for label in _labels(samples[index])) for unit in units]
    for unit, fold in zip(units, deal_folds(counts, [len(unit) for unit in units], folds, seed), strict=True):
        for index in unit:
            numbers[index] = fold
    return numbers, []


def _notes(
    samples: Sequence[Sample],
    given: Sequence[str | None],
    earlier: Sequence[Earlier | None],
    overruled: int,
    placement: Placement,
    parts: Sequence[str | None],
) -> list[str]:
    present = [part for part in PARTS if part in given]
    notes = [f"Kept as the data gives them: {' and '.join(present)}."] if present else []
    known = sum(row is not None and row.part is not None for row in earlier)
    if known:
        notes.append(f"{known:,} images were in the earlier split and {len(samples) - known:,} are new.")
    if overruled:
        notes.append(
            f"{overruled:,} images were in another part in the earlier split; the parts that the data gives win."
        )
    if placement.follows:
        notes.append(
            f"{len(placement.follows):,} images without a part follow what they resemble into the part it is in."
        )
    for index in [*placement.aside][:_NAMED]:
        alike = placement.aside[index]
        found = ", ".join(f"{samples[other].path!r} ({parts[other]})" for other in alike)
        why = f"resembles images of different parts, {found}" if alike else "was in two parts of the earlier split"
        notes.append(f"{samples[index].path!r} {why}: it is set aside.")
    if len(placement.aside) > _NAMED:
        notes.append(f"{len(placement.aside):,} images are set aside in all; in splits.csv their part is {NO_PART!r}.")
    return notes


def _assignment_notes(result: Assignment, made: Sequence[str], seed: int) -> list[str]:
    notes = []
    for part in ("train", *made):
        absent = [(label, groups) for (label, other), groups in result.absent.items() if other == part]
        for label, groups in absent[:_NAMED]:
            counted = f"{groups} independent group{'s' * (groups != 1)}"
            if groups <= len(made):
                notes.append(f"The class {label!r} has only {counted}: none is in {part}.")
            else:
                notes.append(f"The class {label!r} is not in {part}: its {counted} are bound to other parts.")
        if len(absent) > _NAMED:
            notes.append(f"{len(absent):,} classes in all are not in {part}, most for want of independent groups.")
    notes.append(f"Made by content, seed {seed}, whole groups, stratified by class: {' and '.join(sorted(made))}.")
    if result.moved:
        notes.append(f"{result.moved:,} of {len(result.parts):,} groups were moved for the shares of their classes.")
    return notes
