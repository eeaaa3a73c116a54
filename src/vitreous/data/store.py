"""The pixels of one part: decoded once and kept in memory or on disk, decoded anew each time where neither has room."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from vitreous.config.input import InputSpec
from vitreous.data import disk
from vitreous.data.parallel import parallel
from vitreous.data.sources.source import Source
from vitreous.errors import DataError, ImageError
from vitreous.inputs import open_image, to_pixels

STATISTICS_IMAGES = 2000
"""Images that mean and deviation are estimated from; more change neither by a thousandth."""


class PixelStore:
    """Images of a source as whole numbers, in the size and depth of an `InputSpec`; the same wherever they are kept."""

    where: Literal["memory", "disk", "decoded each time"]
    note: str | None
    """Why the images are decoded each time, where they are: one sentence."""

    def __init__(
        self,
        source: Source,
        indices: Sequence[int] | np.ndarray,
        spec: InputSpec,
        *,
        threads: int,
        max_bytes: int,
        progress: Callable[[int, int], None] | None = None,
        digests: Sequence[str] | None = None,
        cache: Path | None = None,
        max_disk_bytes: int = disk.MOST_BYTES,
    ) -> None:
        """Decode the samples at `indices` into one array if it takes at most `max_bytes`; otherwise into a file of the
        cache folder, or take what an earlier process wrote there; only note them where that cannot be either.

        threads: that decode at once. progress: called with (images done, all images) while the array is filled.
        digests: of the pixels of every sample of `source`, in its order; nothing is kept on disk without them.
        cache: the cache folder; the user's own when None. max_disk_bytes: that all sets there may take.

        Raises DataError naming the first image that cannot be read; `scan` finds these beforehand.
        """
        self.source = source
        self.indices = np.asarray(indices, np.int64)
        self.spec = spec
        self.threads = threads
        self.where, self.note = "decoded each time", None
        self._pool: ThreadPoolExecutor | None = None
        self._pixels: np.ndarray | None = None
        if len(self.indices) * self.image_bytes <= max_bytes:
            self._pixels, self.where = self._decode(np.arange(len(self.indices)), progress), "memory"
        elif digests is None:
            self.note = f"{self._too_large()} and are decoded anew for each use, because no digests say what they are."
        else:
            self._keep_on_disk(digests, cache, max_disk_bytes, progress)

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

    def get(self, rows: np.ndarray, *, beside_training: bool = False) -> np.ndarray:
        """rows (b,), positions in `indices` -> uint8 or uint16 (b, height, width, channels).

        beside_training: the caller works while a model trains on the same cores, so that images that are decoded anew
        leave one of the threads to it.
        """
        if self._pixels is not None:
            return self._pixels[rows]
        return self._decode_batch(np.asarray(rows), max(1, self.threads - 1) if beside_training else self.threads)

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

    def _keep_on_disk(
        self,
        digests: Sequence[str],
        cache: Path | None,
        most_bytes: int,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        """Map the file of an earlier fill, or write it; set `where` and, if that fails, `note`."""
        assert len(digests) == len(self.source.samples)
        # The suffix too: a JPEG decoded at reduced size differs by a hair from a PNG of the same pixels.
        named = [f"{digests[i]} {PurePosixPath(self.source.samples[i].path).suffix}" for i in self.indices]
        shape = (len(self), self.spec.height, self.spec.width, self.spec.channels)
        key, kind = disk.key_of(self.spec, named), np.dtype(self.dtype)
        try:
            folder = _cache_folder() if cache is None else cache / disk.FOLDER
            self._pixels = disk.find(folder, key, shape, kind)
            if self._pixels is None:
                images = parallel(self._one, self.indices.tolist(), threads=self.threads, progress=progress)
                self._pixels = disk.fill(folder, key, shape, kind, images, most_bytes)
            elif progress is not None:
                progress(len(self), len(self))
            self.where = "disk"
        except disk.NoRoomError as error:
            self.note = f"{self._too_large()} and are decoded anew for each use: {error}."

    def _too_large(self) -> str:
        size = disk.in_words(len(self) * self.image_bytes)
        return f"{len(self):,} images take {size} when decoded, more than memory allows,"

    def _decode(self, rows: np.ndarray, progress: Callable[[int, int], None] | None) -> np.ndarray:
        pixels, fill = self._empty(rows)
        for _ in parallel(fill, range(len(rows)), threads=self.threads, progress=progress):
            pass
        return pixels

    def _decode_batch(self, rows: np.ndarray, threads: int) -> np.ndarray:
        """The same, with threads that are kept between calls."""
        pixels, fill = self._empty(rows)
        if threads <= 1:
            for position in range(len(rows)):
                fill(position)
            return pixels
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="vitreous-decode")
        # As many tasks as may run at once, each with every n-th image.
        tasks = [
            self._pool.submit(lambda part: [fill(i) for i in part], range(k, len(rows), threads))
            for k in range(threads)
        ]
        for task in tasks:
            task.result()
        return pixels

    def _empty(self, rows: np.ndarray) -> tuple[np.ndarray, Callable[[int], None]]:
        """An array for the images of these rows, and what fills in the one at a position."""
        pixels = np.empty((len(rows), self.spec.height, self.spec.width, self.spec.channels), self.dtype)

        def fill(position: int) -> None:
            pixels[position] = self._one(int(self.indices[rows[position]]))

        return pixels, fill

    def _one(self, index: int) -> np.ndarray:
        try:
            return to_pixels(open_image(self.source.open(index), target=self.spec), self.spec)
        except ImageError as error:
            raise DataError(
                f"{self.source.samples[index].path!r} {error.message}.",
                "Repair or remove it, and run the command again.",
            ) from error


def _cache_folder() -> Path:
    from vitreous.data.examination.cache import cache_folder

    try:
        return cache_folder() / disk.FOLDER
    except RuntimeError as error:
        raise disk.NoRoomError("there is no home folder for a cache; VITREOUS_CACHE may name one") from error
