from __future__ import annotations

from collections import Counter

import pytest

from vitreous.data.splitting.share import share_of_training
from vitreous.data.splitting.stored import Split


@pytest.fixture
def split() -> Split:
    """300 training images of two classes, 3 to 1, in pairs; 60 of other parts."""
    rows = range(360)
    return Split(
        paths=[f"{row}.png" for row in rows],
        labels=["cat" if row % 8 < 6 else "dog" for row in rows],
        groups=[f"pair {row // 2}" for row in rows],
        parts=["train" if row < 300 else "val" if row < 330 else "test" for row in rows],
        hashes=[str(row) for row in rows],
    )


def one_each(split: Split) -> list[tuple[str, ...]]:
    return [(label,) for label in split.labels]


@pytest.mark.parametrize("share", [0.1, 0.33, 0.5, 1.0])
def test_every_class_keeps_its_share_in_whole_groups(split: Split, share: float) -> None:
    kept = share_of_training(split, one_each(split), share, seed=0)
    assert {split.parts[row] for row in kept} == {"train"}
    whole = Counter(split.labels[row] for row in split.indices("train"))
    assert all(
        abs(Counter(split.labels[row] for row in kept)[name] - share * count) <= 2 for name, count in whole.items()
    )
    assert all(count == 2 for count in Counter(split.groups[row] for row in kept).values())


def test_a_larger_share_holds_every_smaller_one_and_the_seed_decides(split: Split) -> None:
    small, large = (set(share_of_training(split, one_each(split), share, seed=0).tolist()) for share in (0.1, 0.3))
    assert small < large
    assert set(share_of_training(split, one_each(split), 0.1, seed=1).tolist()) != small


def test_the_smallest_share_keeps_a_group_of_every_class(split: Split) -> None:
    assert {split.labels[row] for row in share_of_training(split, one_each(split), 1e-6, seed=0)} == {"cat", "dog"}


def test_images_with_several_labels_are_shared_by_the_rarest_of_them(split: Split) -> None:
    several = [tuple(name for n, name in enumerate("abcdef") if row % (n + 2) == 0) for row in range(360)]
    kept = share_of_training(split, several, 0.2, seed=0)
    assert len(kept) == pytest.approx(60, abs=14)
    assert {name for row in kept for name in several[row]} == set("abcdef")
    assert set(kept.tolist()) < set(share_of_training(split, several, 0.5, seed=0).tolist())
