"""Dealing whole groups out to parts so that each part gets its share of every class.

Greedy, largest group first, each to the part where it lowers the chi-square distance to the wanted counts most
(the idea of scikit-learn's StratifiedGroupKFold, with parts of unequal size); then groups are moved until every class
is present wherever it can be.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vitreous.data.sources.source import natural_order


@dataclass(frozen=True)
class Cluster:
    """Images that must stay together."""

    key: str
    """Decides the order among clusters of one size; depends on content and seed alone."""
    counts: Mapping[str, int]
    """{label: images}, labels in sorted order."""
    members: Sequence[int]

    @property
    def rank(self) -> tuple[int, str]:
        return -len(self.members), self.key


def assign(
    clusters: Sequence[Cluster],
    wanted: Mapping[str, Mapping[str, float]],
    made: Sequence[str],
    held_train: Mapping[str, int],
) -> tuple[list[str], list[str]]:
    """The part of each cluster (train, or one of `made`), and sentences about classes that some part had to go without.

    wanted: {part: {label: images}}. held_train: {label: images} that are in train already.
    """
    order = sorted(range(len(clusters)), key=lambda index: clusters[index].rank)
    parts = ("train", *made)
    have = {part: dict.fromkeys(wanted["train"], 0) for part in parts}
    have["train"].update(held_train)
    chosen = [""] * len(clusters)
    for index in order:
        best, best_cost = "train", float("inf")
        for part in parts:
            counted, target = have[part], wanted[part]
            cost = 0.0
            for label, count in clusters[index].counts.items():
                # What adding `count` images does to (have - wanted)^2 / wanted.
                cost += count * (count + 2 * (counted[label] - target[label])) / target[label]
            if cost < best_cost:
                best, best_cost = part, cost
        chosen[index] = best
        for label, count in clusters[index].counts.items():
            have[best][label] += count
    missing = _spread(clusters, chosen, order, made, held_train)
    return chosen, missing


def _spread(
    clusters: Sequence[Cluster], chosen: list[str], order: Sequence[int], made: Sequence[str], held: Mapping[str, int]
) -> list[str]:
    """Move clusters until train has every class and, where there are enough groups, every made part has; in place."""
    where: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))  # {label: {part: clusters}}
    of_label: defaultdict[str, list[int]] = defaultdict(list)
    for index in reversed(order):  # smallest first: a move should disturb the shares little
        for label in clusters[index].counts:
            where[label][chosen[index]] += 1
            of_label[label].append(index)
    for label, count in held.items():
        where[label]["train"] += 1 if count else 0

    def move(index: int, part: str) -> None:
        for label in clusters[index].counts:
            where[label][chosen[index]] -= 1
            where[label][part] += 1
        chosen[index] = part

    labels = natural_order(of_label)
    for label in labels:
        if not where[label]["train"]:
            spare = [index for index in of_label[label] if where[label][chosen[index]] > 1]
            move((spare or of_label[label])[0], "train")
    notes = []
    for part in made:
        for label in labels:
            if where[label][part]:
                continue
            spare = (i for i in of_label[label] if all(where[other][chosen[i]] > 1 for other in clusters[i].counts))
            index = next(spare, None)
            if index is not None:
                move(index, part)
            else:
                groups = sum(where[label].values())
                notes.append(
                    f"The class {label!r} has only {groups} independent group{'s' * (groups != 1)}: none is in {part}."
                )
    return notes
