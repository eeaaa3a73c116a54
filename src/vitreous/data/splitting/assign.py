"""Dealing independent units (an image, a group, a cluster of look-alikes) out to train, val and test.

Each unit's own content, hashed with the seed, gives a number u in [0, 1), and u alone says the part:

    [0, test)                                 test
    [test, test + (1 - test) * val)           val
    the rest                                  train

so a unit is where it is whatever else the data hold: adding files moves no file that was there. The price is chance: a
part's share of a class is binomial, not exact. Where chance was unkind (a class absent from a part, or its share further
off than `tolerance` allows), the units whose u lies nearest the boundary are moved, as few as possible. These few are
the only ones that more data may move again; with an earlier split at hand (`make_split(previous=...)`) not even they.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from vitreous.data.sources.source import PARTS, natural_order

Counts = Mapping[str | None, int]
"""{label: images}; under None all images, whatever their labels."""

_SEARCH = ("train", "test", "val")
"""Order in which a class that is too rare for all parts gets into them."""


@dataclass(frozen=True)
class Unit:
    """Images that must stay together and have no part yet."""

    key: str
    """Names the content: equal for equal content wherever and in whatever order the files lie."""
    counts: Counts
    members: Sequence[int]

    def draw(self, seed: int) -> float:
        """u in [0, 1): uniform, and independent between units and between seeds."""
        digest = hashlib.sha256(f"{seed}\0{self.key}".encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:6], "big") / 2**48


@dataclass(frozen=True)
class Assignment:
    """What `assign` decided. Both lists are aligned with its units."""

    parts: list[str]
    drawn: list[str]
    """Where u alone would have put them."""
    absent: dict[tuple[str, str], int] = field(default_factory=dict)
    """{(label, part): independent units the class has} for classes that a part had to go without."""

    @property
    def moved(self) -> int:
        """Units that are not where they were drawn."""
        return sum(part != drawn for part, drawn in zip(self.parts, self.drawn, strict=True))


def intervals(made: Sequence[str], val_fraction: float, test_fraction: float) -> dict[str, tuple[float, float]]:
    """{part: (from, to)}: the values of u that belong to train and to each part that has to be made."""
    test = test_fraction if "test" in made else 0.0
    val = test + (1 - test) * val_fraction if "val" in made else test
    found = {"test": (0.0, test), "val": (test, val), "train": (val, 1.0)}
    return {part: found[part] for part in PARTS if part == "train" or part in made}


def tolerance(share: float, sizes: Sequence[int]) -> float:
    """By how many images a class's count in a part may miss `share` of them all without being corrected.

    sizes: images of the class in each unit. Two standard deviations of chance, sqrt(p (1 - p) sum(size^2)), but no more
    than a fifth of the wanted count, and no less than one unit of average size: a class of 20 images is dealt out as
    exactly as can be, one of 2,000 is left to chance.
    """
    total = sum(sizes)
    chance = 2 * math.sqrt(share * (1 - share) * sum(size * size for size in sizes))
    return max(total / len(sizes), min(chance, 0.2 * share * total))


def assign(
    units: Sequence[Unit],
    held: Sequence[tuple[str, Counts]],
    spans: Mapping[str, tuple[float, float]],
    seed: int,
) -> Assignment:
    """The part of each unit.

    held: (part, counts) of units that have a part already and share the wanted totals.
    spans: as `intervals` gives them.
    """
    draws = [unit.draw(seed) for unit in units]
    drawn = [next(part for part, (low, high) in spans.items() if low <= u < high) for u in draws]
    table = _Table(units, draws, drawn, held, spans)
    table.correct()
    return Assignment(table.parts, drawn, table.absent())


class _Table:
    """How many images of each label are in each part, what that should be, and the moves that bring it there."""

    def __init__(
        self,
        units: Sequence[Unit],
        draws: Sequence[float],
        drawn: Sequence[str],
        held: Sequence[tuple[str, Counts]],
        spans: Mapping[str, tuple[float, float]],
    ) -> None:
        self.units, self.draws, self.drawn, self.spans = units, draws, drawn, spans
        self.parts = list(drawn)
        self.have: dict[str, defaultdict[str | None, int]] = {part: defaultdict(int) for part in spans}
        self.of_label: defaultdict[str | None, list[int]] = defaultdict(list)
        sizes: defaultdict[str | None, list[int]] = defaultdict(list)
        for index, unit in enumerate(units):
            for label, count in unit.counts.items():
                self.have[drawn[index]][label] += count
                self.of_label[label].append(index)
                sizes[label].append(count)
        for part, counts in held:
            for label, count in counts.items():
                self.have[part][label] += count
                sizes[label].append(count)
        self.labels = sorted(sizes, key=lambda label: (len(sizes[label]), label is None, label or ""))  # rarest first
        self.sizes = sizes
        self.allowed: dict[tuple[str, str | None], tuple[float, float, float]] = {}
        """{(part, label): (fewest, most, tolerance)} for made parts."""
        for part, (low, high) in spans.items():
            if part != "train":
                for label, found in sizes.items():
                    wanted, spread = (high - low) * sum(found), tolerance(high - low, found)
                    self.allowed[part, label] = (wanted - spread, wanted + spread, spread)

    def correct(self) -> None:
        """Move units until no single move improves anything, then take back every move that proved needless."""
        improved = True
        while improved:
            improved = False
            for label in self.labels:
                for part in self.spans:
                    improved |= self._mend(part, label)
        moved = [index for index in range(len(self.units)) if self.parts[index] != self.drawn[index]]
        moved.sort(key=lambda index: self.units[index].key)
        while any(self._take_back(index) for index in moved):
            pass

    def _take_back(self, index: int) -> bool:
        """Return a moved unit to where it was drawn, if nothing gets worse by it."""
        drawn = self.drawn[index]
        if self.parts[index] == drawn or self._change(index, drawn) > (0, 0, 0, 1e-9):
            return False
        self._move(index, drawn)
        return True

    def absent(self) -> dict[tuple[str, str], int]:
        return {
            (label, part): len(self.sizes[label])
            for part in _SEARCH
            if part in self.spans
            for label in natural_order(label for label in self.labels if label is not None)
            if not self.have[part][label]
        }

    def _mend(self, part: str, label: str | None) -> bool:
        """Bring one label's count in one part towards what is allowed; whether anything moved."""
        moved = False
        if self._lacks(part, label):
            for index, _ in self._candidates(label, part, into=True):
                if not self._lacks(part, label):
                    break
                moved |= self._try(index, part)
        elif self._exceeds(part, label):
            for index, target in self._candidates(label, part, into=False):
                if not self._exceeds(part, label):
                    break
                moved |= self.parts[index] == part and self._try(index, target)
        return moved

    def _lacks(self, part: str, label: str | None) -> bool:
        count = self.have[part][label]
        return not count or (part != "train" and count < self.allowed[part, label][0])

    def _exceeds(self, part: str, label: str | None) -> bool:
        return part != "train" and self.have[part][label] > self.allowed[part, label][1]

    def _candidates(self, label: str | None, part: str, *, into: bool) -> Iterator[tuple[int, str]]:
        """(unit, where it might go), those first whose u lies nearest to where it would go."""
        found: list[tuple[float, str, int, str]] = []
        for index in self.of_label[label]:
            if (self.parts[index] != part) == into:
                for target in (part,) if into else (name for name in self.spans if name != part):
                    low, high = self.spans[target]
                    u = self.draws[index]
                    found.append((max(low - u, u - high, 0.0), self.units[index].key, index, target))
        for _, _, index, target in sorted(found):
            yield index, target

    def _try(self, index: int, part: str) -> bool:
        if self._change(index, part) < (0, 0, 0, -1e-9):
            self._move(index, part)
            return True
        return False

    def _change(self, index: int, part: str) -> tuple[int, int, int, float]:
        """What a move does: to the classes absent from train, test and val, and to the sum of what is out of bounds."""
        absent: dict[str, int] = dict.fromkeys(_SEARCH, 0)
        excess = 0.0
        for label, count in self.units[index].counts.items():
            for name, step in ((self.parts[index], -count), (part, count)):
                before = self.have[name][label]
                absent[name] += (not before + step) - (not before)
                if name != "train":
                    excess += self._excess(name, label, before + step) - self._excess(name, label, before)
        return absent["train"], absent["test"], absent["val"], excess

    def _excess(self, part: str, label: str | None, count: int) -> float:
        fewest, most, spread = self.allowed[part, label]
        return max(fewest - count, count - most, 0.0) / spread

    def _move(self, index: int, part: str) -> None:
        for label, count in self.units[index].counts.items():
            self.have[self.parts[index]][label] -= count
            self.have[part][label] += count
        self.parts[index] = part
