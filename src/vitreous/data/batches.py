"""Batches by number: any step of training can be made at once, without the steps before it.

So a resumed run needs no state of a loader: step 1,000 is the same batch whether the process has just started or not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from vitreous.data.augmentation.augment import Augment
from vitreous.data.store import PixelStore
from vitreous.errors import DataError
from vitreous.inputs import normalise

AHEAD = 2
"""Batches made before they are asked for."""
_ORDER, _AUGMENT = 0, 1  # what a random stream is for, as part of its seed


class TrainBatches:
    """Training batches of constant size.

    The images form one endless stream, a fresh permutation each epoch; a batch that begins near the end of an epoch is
    filled up from the next.

    With `repeats` R each image stands R times in its batch, changed differently each time (repeated augmentation, Hoffer
    et al. 2020, arXiv:1901.09335; Berman et al. 2019, arXiv:1902.05509). An epoch stays as long as without, so many
    batches as the data fill once, and so shows each R-th image (as DeiT, arXiv:2012.12877); the permutation goes on where
    it was, so that R epochs show every image R times. A batch size that is no multiple of R gives some images of a batch
    one copy less.

    Weights of images act through the targets: every loss is linear in them, so that a row multiplied by a weight gives
    that image's loss multiplied by it, with smoothed labels, class weights, adjusted logits and mixed images alike.
    """

    def __init__(
        self,
        store: PixelStore,
        labels: np.ndarray,
        *,
        batch_size: int,
        seed: int,
        augment: Augment,
        mix_until_step: int,
        weights: np.ndarray | None = None,
        order: Callable[[int], np.ndarray] | None = None,
        size: Callable[[int], tuple[int, int]] | None = None,
        strong_until_step: int | None = None,
    ) -> None:
        """labels: class numbers (n,), aligned with the rows of the store; or (n, k), 1 where a label is there. mix_until_step: first step without mixing.
        weights: what each image counts (n,), at least 0; divided by their mean, so that the learning rate keeps its
        meaning. order: the n rows that an epoch shows, in their order: a permutation of 0 to n - 1, or with some more
        often than others (`data.sampling`); the same each time it is asked for an epoch. Shuffled by `seed` where None.
        size: (height, width) of the images of a step, at most the spec's; the spec's where None. strong_until_step: first step
        without RandAugment, 3-Augment, erasing and repeats; there is none where None.

        Raises DataError for weights that are negative, not finite, or all 0.
        """
        assert len(labels) == len(store) > 0
        self.store = store
        self.labels: np.ndarray = np.asarray(labels, np.float32 if np.ndim(labels) == 2 else np.int64)
        self.batch_size = batch_size
        self.seed = seed
        self.augment = augment
        self.mix_until_step = mix_until_step
        self.strong_until_step = strong_until_step
        self.weights = None if weights is None else relative_weights(weights, len(store))
        self._draw_order = order or self._shuffled
        self._size = size
        self._orders: dict[int, np.ndarray] = {}

    @property
    def steps_per_epoch(self) -> int:
        """Batches that hold as many images as there are; each is seen once, or each R-th R times."""
        return -(-len(self.store) // self.batch_size)

    def rows(self, step: int) -> np.ndarray:
        """int64 (batch_size,): the rows of the store in this step's batch."""
        repeats = self.augment.config.repeats or 1
        different = -(-self.batch_size // repeats)
        turn = self.strong_until_step
        if turn is None or step < turn:
            begin = step * different
        else:  # without copies the stream goes on where it was, by whole batches
            begin = turn * different + (step - turn) * self.batch_size
            repeats, different = 1, self.batch_size
        stream = np.arange(begin, begin + different)
        epochs, places = np.divmod(stream, len(self.store))
        rows = np.concatenate([self._order(int(epoch))[places[epochs == epoch]] for epoch in np.unique(epochs)])
        # Copies stand apart, because mixing joins neighbours.
        return np.tile(rows, repeats)[: self.batch_size]

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """float32 images (b, c, h, w) and soft targets (b, k) of one step; the same each time it is asked for."""
        rows = self.rows(step)
        pixels = torch.from_numpy(self._pixels(rows)).permute(0, 3, 1, 2)
        generator = torch.Generator().manual_seed(self._seed(_AUGMENT, step))
        labels = torch.from_numpy(self.labels[rows])
        weights = None if self.weights is None else torch.from_numpy(self.weights[rows])
        size = None if self._size is None else self._size(step)
        return self.augment(
            pixels,
            labels,
            generator,
            mix=step < self.mix_until_step,
            weights=weights,
            size=size,
            strong=self.strong_until_step is None or step < self.strong_until_step,
        )

    def _pixels(self, rows: np.ndarray) -> np.ndarray:
        """uint8 or uint16 (b, h, w, c) of the rows, each different one fetched once."""
        if (self.augment.config.repeats or 1) == 1:
            return self.store.get(rows, beside_training=True)
        different, places = np.unique(rows, return_inverse=True)
        return self.store.get(different, beside_training=True)[places]

    def prefetch(self, start: int, stop: int, every: int = 1) -> Iterator[tuple[int, Tensor, Tensor]]:
        """(step, images, targets) for steps start to stop - 1, made in one background thread up to two batches ahead.

        every: only each so many-th of them, the first included: what is one process's share among several.

        An exception in the thread reaches the caller at the step it belongs to. The thread ends with the iterator,
        however that ends: exhausted, closed, or left by an exception such as KeyboardInterrupt.
        """
        pool = ThreadPoolExecutor(1, thread_name_prefix="vitreous-batches")
        waiting: deque[tuple[int, Future[tuple[Tensor, Tensor]]]] = deque()
        # Each thread that calls torch gets helpers of its own, as many as there are cores: those of this one would only be in
        # the way of training's. torch keeps the number for the thread that sets it and for threads to come, which is put back.
        threads = torch.get_num_threads()
        try:
            pool.submit(_compute_alone).result()
            torch.set_num_threads(threads)
            for step in range(start, stop + AHEAD * every, every):
                if step < stop:
                    waiting.append((step, pool.submit(self.batch, step)))
                if waiting and step >= start + AHEAD * every:
                    ready, future = waiting.popleft()
                    yield ready, *future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _order(self, epoch: int) -> np.ndarray:
        order = self._orders.get(epoch)
        if order is None:
            order = np.asarray(self._draw_order(epoch), np.int64)
            assert len(order) == len(self.store), "an epoch is as long as the data"
            assert order.min() >= 0 and order.max() < len(self.store), "an epoch shows rows of the store"
            # The last two epochs suffice for a stream; replacing the dictionary keeps other threads' reads whole.
            self._orders = {**{key: kept for key, kept in self._orders.items() if key == epoch - 1}, epoch: order}
        return order

    def _shuffled(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, _ORDER, epoch]).permutation(len(self.store))

    def _seed(self, purpose: int, step: int) -> int:
        return int(np.random.SeedSequence([self.seed, purpose, step]).generate_state(1, np.uint64)[0] >> 1)


def _compute_alone() -> None:
    """Let the calling thread use one core. A thread takes over the process's number when it first asks, so it asks before."""
    torch.get_num_threads()
    torch.set_num_threads(1)


def relative_weights(weights: np.ndarray, count: int) -> np.ndarray:
    """float32 (count,): weights divided by their mean. Raises DataError for negative or infinite ones, or only zeros."""
    given = np.asarray(weights, np.float64)
    assert given.shape == (count,)
    wrong = np.flatnonzero(~(np.isfinite(given) & (given >= 0)))
    if len(wrong):
        raise DataError(
            f"{len(wrong):,} of {count:,} training images have a weight that is not a number of at least 0; "
            f"the first is {given[wrong[0]]:g}.",
            "Correct the weight column of the manifest.",
        )
    if not given.any():
        raise DataError(
            f"All {count:,} training images have the weight 0, so nothing can be learned.",
            "Give at least one image a positive weight.",
        )
    return (given / given.mean()).astype(np.float32)


def eval_batches(store: PixelStore, batch_size: int, first: int = 0, every: int = 1) -> Iterator[np.ndarray]:
    """float32 (b, c, h, w) for the rows of the store in order, by the very path that prediction takes; the last batch
    may be smaller.

    first, every: only batch number `first`, counted from 0, and each `every`-th after it.
    """
    for start in range(first * batch_size, len(store), every * batch_size):
        rows = np.arange(start, min(start + batch_size, len(store)))
        yield normalise(store.get(rows), store.spec)
