"""The pixels of one part, decoded once and kept where memory allows, decoded anew each time where it does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from vitreous.config.input import InputSpec
from vitreous.data.parallel import parallel
from vitreous.data.sources.source import Source
from vitreous.errors import DataError, ImageError
from vitreous.inputs import open_image, to_pixels

STATISTICS_IMAGES = 2000
"""Images that mean and deviation are estimated from; more change neither by a thousandth."""


class PixelStore:
    """Images of a source as whole numbers, in the size and depth of an `InputSpec`."""

    def __init__(
        self,
        source: Source,
        indices: Sequence[int] | np.ndarray,
        spec: InputSpec,
        *,
        threads: int,
        max_bytes: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Decode the samples at `indices` into one array if it takes at most `max_bytes`; only note them otherwise.

        progress: called with (images done, all images) while the array is filled.
        Raises DataError naming the first image that cannot be read; `scan` finds these beforehand.
        """
        self.source = source
        self.indices = np.asarray(indices, np.int64)
        self.spec = spec
        self.threads = threads
        self._pool: ThreadPoolExecutor | None = None
        self._pixels: np.ndarray | None = None
        if len(self.indices) * self.image_bytes <= max_bytes:
            self._pixels = self._decode(np.arange(len(self.indices)), progress)

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def dtype(self) -> type[np.unsignedinteger]:
        return np.uint8 if self.spec.bit_depth == 8 else np.uint16

    @property
    def image_bytes(self) -> int:
        """Memory that one image takes."""
        return self.spec.height * self.spec.width * self.spec.channels * self.spec.bit_depth // 8

    @property
    def in_memory(self) -> bool:
        return self._pixels is not None

    def get(self, rows: np.ndarray) -> np.ndarray:
        """rows (b,), positions in `indices` -> uint8 or uint16 (b, height, width, channels)."""
        if self._pixels is not None:
            return self._pixels[rows]
        return self._decode(rows)

    def mean_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation per channel of values in [0, 1], over up to 2,000 images spread evenly.

        A channel that never varies gets a deviation of one grey level, so that it can be divided by.
        """
        rows = np.unique(np.linspace(0, len(self) - 1, min(len(self), STATISTICS_IMAGES)).astype(np.int64))
        total = np.zeros(self.spec.channels)
        squares = np.zeros(self.spec.channels)
        for start in range(0, len(rows), 64):
            values = self.get(rows[start : start + 64]).astype(np.float64) / self.spec.max_value
            total += values.sum((0, 1, 2))
            squares += (values**2).sum((0, 1, 2))
        count = len(rows) * self.spec.height * self.spec.width
        mean = total / count
        std = np.sqrt(np.maximum(squares / count - mean**2, 0))
        return tuple(mean.tolist()), tuple(np.maximum(std, 1 / self.spec.max_value).tolist())

    def with_spec(self, spec: InputSpec) -> PixelStore:
        """The same pixels under a spec that differs in mean, std and class names only; shares the array."""
        assert replace(spec, mean=self.spec.mean, std=self.spec.std, classes=self.spec.classes) == self.spec
        twin = object.__new__(PixelStore)
        twin.__dict__.update(self.__dict__, spec=spec)
        return twin

    def _decode(self, rows: np.ndarray, progress: Callable[[int, int], None] | None = None) -> np.ndarray:
        pixels = np.empty((len(rows), self.spec.height, self.spec.width, self.spec.channels), self.dtype)

        def fill(position: int) -> None:
            pixels[position] = self._one(int(self.indices[rows[position]]))

        if progress is not None or len(rows) > 1000:
            for _ in parallel(fill, range(len(rows)), threads=self.threads, progress=progress):
                pass
        elif self.threads <= 1:
            for position in range(len(rows)):
                fill(position)
        else:  # a batch: keep the threads between calls
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="vitreous-decode")
            list(self._pool.map(fill, range(len(rows))))
        return pixels

    def _one(self, index: int) -> np.ndarray:
        target = max(self.spec.height, self.spec.width)
        try:
            return to_pixels(open_image(self.source.open(index), target=target), self.spec)
        except ImageError as error:
            raise DataError(
                f"{self.source.samples[index].path!r} {error.message}.",
                "Repair or remove it, and run the command again.",
            ) from error
