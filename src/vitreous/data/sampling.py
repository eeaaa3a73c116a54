"""Balanced sampling: every class is shown equally often, whatever its number of images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_BALANCED, _MIXED = 3, 4  # what a random stream is for, as part of its seed; batches use 0 and 1, shards 2


def balanced_order(labels: np.ndarray, seed: int) -> Callable[[int], np.ndarray]:
    """epoch -> int64 (n,): the rows that an epoch shows, in their order, for training labels (n,).

    An epoch stays as long as the data have rows. Each class with images gets an equal share of it; of the rows that do not
    divide, other classes get one more in each epoch. The images of a class form an endless stream of permutations, of which
    an epoch takes the next piece: a large class is seen without repetition until all of it was shown, a small one goes
    round several times in an epoch, each image as often as the next or once more.

    A pure function of labels, seed and epoch, so that a resumed run continues with the very same rows.
    """
    labels = np.asarray(labels, np.int64)
    members = [np.flatnonzero(labels == name) for name in np.unique(labels)]
    share, rest = divmod(len(labels), len(members))

    def before(place: int, epoch: int) -> int:
        """How many rows the class at a place got in all epochs before this one."""
        # The odd rows go round the classes: epoch e gives one more to the places e * rest to e * rest + rest - 1.
        turns, extra = divmod(epoch * rest, len(members))
        return epoch * share + turns + (place < extra)

    def order(epoch: int) -> np.ndarray:
        pieces = []
        for place, rows in enumerate(members):
            stream = np.arange(before(place, epoch), before(place, epoch + 1))
            rounds, places = np.divmod(stream, len(rows))
            for number in np.unique(rounds):
                shuffled = np.random.default_rng([seed, _BALANCED, place, int(number)]).permutation(rows)
                pieces.append(shuffled[places[rounds == number]])
        return np.random.default_rng([seed, _MIXED, epoch]).permutation(np.concatenate(pieces))

    return order
