"""The order in which training meets samples that lie in shards: shuffled, and yet nearly front to back in each shard."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vitreous.errors import UsageError

_SHARDS = 2  # what the random stream is for, as part of its seed; training uses 0 and 1 for its own
BUFFER = 1000


def shard_order(sizes: Sequence[int], *, seed: int, epoch: int, buffer: int = BUFFER) -> np.ndarray:
    """int64 (sum(sizes),): every sample once. The shards are shuffled, laid end to end, and passed through a shuffle
    buffer of `buffer` samples: it is filled, then each new sample replaces a random one, which goes out; what remains
    at the end goes out shuffled. So a sample leaves at most `buffer` places early, and a reader needs few shards at once.

    sizes: samples of each shard, in order; samples are numbered through all shards. A pure function of its arguments:
    any step can be resumed without the steps before it. Raises UsageError for a buffer below 1.
    """
    if buffer < 1:
        raise UsageError(f"A shuffle buffer holds at least 1 sample, not {buffer}.", "Pass a buffer of about 1000.")
    generator = np.random.default_rng([seed, _SHARDS, epoch])
    starts = np.cumsum([0, *sizes]).tolist()
    runs = [np.arange(starts[i], starts[i + 1]) for i in generator.permutation(len(sizes)).tolist()]
    arriving = np.concatenate([np.empty(0, np.int64), *runs])
    held = arriving[:buffer].tolist()
    slots = generator.integers(0, buffer, size=len(arriving) - len(held)).tolist()
    leaving = np.empty_like(arriving)
    for place, (slot, sample) in enumerate(zip(slots, arriving[len(held) :].tolist(), strict=True)):
        leaving[place] = held[slot]
        held[slot] = sample
    leaving[len(slots) :] = generator.permutation(np.array(held, np.int64))
    return leaving
