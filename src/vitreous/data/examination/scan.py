"""Look at every image once: what is readable, what is not, and what each shows in brief.

An unreadable image is named, counted and left out. It is never replaced by another one. Files are decoded in processes of
their own (see `crew`), so that no file can stop, crash or exhaust the one that calls.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from vitreous.config.decode import DecodeConfig
from vitreous.data.examination.cache import Cache, cache_folder
from vitreous.data.examination.crew import MEMORY, SECONDS, Answer, Crew, Item
from vitreous.data.examination.finding import THUMBNAIL, Bad, Finding, one_line
from vitreous.data.examination.look import look
from vitreous.data.sources.source import BadFile, Source, natural_order
from vitreous.errors import DataError, ImageError
from vitreous.inputs.decode import MAX_PIXELS
from vitreous.runs.atomic import write_text

CHUNK = 16
"""Images handed over at a time."""
_AS_IT_IS = DecodeConfig()
SMALL_SET = 32
"""Up to so many images one worker is as fast as several, which have to be started."""


@dataclass(frozen=True)
class Scan:
    """What looking found. `findings`, and what is derived from it, is aligned with `good`."""

    good: list[int]
    """Indices into `source.samples` of the readable images, ascending."""
    findings: list[Finding]
    bad: list[BadFile]
    cached: int = 0
    """Images, good and bad, that were not decoded because the cache knew them."""
    notes: list[str] = field(default_factory=list)
    """Sentences about the scan itself, such as a cache that cannot be written."""

    @cached_property
    def sizes(self) -> list[tuple[int, int]]:
        """(width, height) in pixels, upright."""
        return [(finding.width, finding.height) for finding in self.findings]

    @cached_property
    def modes(self) -> list[str]:
        """Pillow's name of the stored pixel format: L, RGB, P, CMYK, I;16 ..."""
        return [finding.mode for finding in self.findings]

    @cached_property
    def bits(self) -> list[int]:
        """8, 16 or 32 bits a sample."""
        return [finding.bits for finding in self.findings]

    @cached_property
    def hashes(self) -> list[str]:
        """sha256 of mode, size and upright pixels: equal exactly where two images are."""
        return [finding.digest for finding in self.findings]

    @property
    def thumbnails(self) -> np.ndarray:
        """uint8 (n, 32, 32, 3). Made anew at each call: 3 KB an image are not kept twice."""
        joined = b"".join(finding.thumbnail for finding in self.findings)
        return np.frombuffer(joined, np.uint8).reshape(len(self.findings), THUMBNAIL, THUMBNAIL, 3)

    @cached_property
    def duplicates(self) -> list[list[int]]:
        """Sets of positions in `good` whose pixels are identical, each of two or more."""
        positions: defaultdict[str, list[int]] = defaultdict(list)
        for position, finding in enumerate(self.findings):
            positions[finding.digest].append(position)
        return [group for group in positions.values() if len(group) > 1]

    def write_bad_files(self, path: Path) -> None:
        """CSV with the columns path, reason."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("path", "reason"))
        writer.writerows((bad.path, bad.reason) for bad in self.bad)
        write_text(path, text.getvalue().encode(errors="backslashreplace").decode())


def scan(
    source: Source,
    *,
    max_pixels: int = MAX_PIXELS,
    threads: int,
    progress: Callable[[int, int], None] | None = None,
    decode: DecodeConfig = _AS_IT_IS,
    cache: bool | Path | None = None,
    seconds: float = SECONDS,
) -> Scan:
    """Look at every sample of the source. Raises nothing for a bad image; see `check`.

    threads: processes that decode at the same time.
    progress: called in this thread with (images done, all images).
    cache: True for the one in the user's cache folder, or the folder it shall lie in; None to decode everything.
    seconds: after which the decoder of one image is stopped and the image is bad.
    Raises VitreousError where no process can be started. When interrupted, what was found is in the cache.
    """
    total = len(source.samples)
    keeper, notes = _open_cache(cache)
    good: list[int] = []
    findings: list[Finding] = []
    bad = list(source.unusable)
    known = 0
    size = 1 if total <= SMALL_SET else max(1, threads)
    try:
        file = keeper.file if keeper is not None and keeper.usable else None
        memory = max(MEMORY, 32 * max_pixels)  # a deep image is held as several arrays of four bytes a sample
        crew = Crew(size, decode=decode, max_pixels=max_pixels, cache=file, seconds=seconds, memory=memory)
        with crew, closing(_answers(source, crew, size, decode, max_pixels, progress)) as answers:
            for index, answer in enumerate(answers):
                if keeper is not None and answer.key:
                    _remember(keeper, answer)
                known += answer.used is not None
                if isinstance(answer.entry, Bad):
                    bad.append(BadFile(source.samples[index].path, answer.entry.reason))
                else:
                    good.append(index)
                    findings.append(answer.entry)
    finally:
        if keeper is not None:
            keeper.close()
    return Scan(good, findings, bad, known, notes + (keeper.notes if keeper is not None else []))


def check(scan: Scan, source: Source, max_bad: float) -> None:
    """Raise DataError where too little is readable: nothing, less than 1 - max_bad, or a class left too small.

    Training needs two images of a class outside the test part (one to learn from, one to validate on), and one more
    where a test part has yet to be made.
    """
    total = len(source.samples) + len(source.unusable)
    if not scan.good:
        first = "; ".join(f"{bad.path} {bad.reason}" for bad in scan.bad[:3])
        raise DataError(f"None of the {total:,} images in {source.name!r} can be used: {first}.")
    if len(scan.bad) > max_bad * total:
        first = "; ".join(f"{bad.path} {bad.reason}" for bad in scan.bad[:3])
        raise DataError(
            f"{len(scan.bad):,} of {total:,} images cannot be used, more than --max-bad {max_bad:g} allows: {first}.",
            "Repair or remove them, or raise --max-bad.",
        )
    parts = [source.samples[index].part for index in scan.good]
    has_test = "test" in parts
    needed = 2 if has_test else 3
    counts = Counter(
        name
        for index, part in zip(scan.good, parts, strict=True)
        if part != "test"
        for name in source.samples[index].label_names
    )
    short = natural_order(name for name in source.classes if counts[name] < needed)
    if short:
        named = ", ".join(f"{name!r} ({counts[name]})" for name in short[:5])
        named += f" and {len(short) - 5} more" if len(short) > 5 else ""
        outside = " outside the test part" if has_test else ""
        raise DataError(
            f"A class needs at least {needed} readable images{outside}; these have fewer: {named}.",
            f"Add images, or leave the classes out: --ignore-classes {' '.join(short[:5])}",
        )


def _answers(
    source: Source,
    crew: Crew,
    size: int,
    decode: DecodeConfig,
    max_pixels: int,
    progress: Callable[[int, int], None] | None,
) -> Generator[Answer, None, None]:
    """One for each sample, in order; no more than a few chunks are under way at a time."""
    total, done = len(source.samples), 0
    waiting: deque[Future[list[Answer]]] = deque()
    pool = ThreadPoolExecutor(size, thread_name_prefix="vitreous-scan")
    try:
        starts = iter(range(0, total, CHUNK))
        while True:
            for start in starts:
                indices = range(start, min(start + CHUNK, total))
                waiting.append(pool.submit(_look_at, source, indices, crew, decode, max_pixels))
                if len(waiting) > 2 * size:
                    break
            if not waiting:
                return
            answers = waiting.popleft().result()
            yield from answers
            done += len(answers)
            if progress is not None:
                progress(done, total)
    finally:
        crew.close()  # first, so that no thread waits for a decoder
        pool.shutdown(wait=True, cancel_futures=True)


def _look_at(source: Source, indices: Sequence[int], crew: Crew, decode: DecodeConfig, max_pixels: int) -> list[Answer]:
    """Files and encoded bytes go to a worker; arrays and Pillow images, which need no decoder, are looked at here."""
    answers: dict[int, Answer] = {}
    items: dict[int, Item] = {}
    for index in indices:
        try:
            opened = source.open(index)
        except ImageError as error:
            answers[index] = Answer(Bad(one_line(error.message), lasting=False))
            continue
        if isinstance(opened, str | os.PathLike):
            items[index] = Item(os.fspath(opened), os.fspath(opened))
        elif isinstance(opened, bytes | bytearray | memoryview):
            items[index] = Item(bytes(opened), source.samples[index].path)
        else:
            answers[index] = Answer(look(opened, decode, max_pixels))
    answers.update(zip(items, crew.examine(list(items.values())), strict=True))
    return [answers[index] for index in indices]


def _open_cache(cache: bool | Path | None) -> tuple[Cache | None, list[str]]:
    if cache is None or cache is False:
        return None, []
    try:
        return Cache(cache_folder() if cache is True else Path(cache)), []
    except RuntimeError as error:
        return None, [
            f"There is no folder for a cache ({error}), so every image is decoded; name one in VITREOUS_CACHE."
        ]


def _remember(cache: Cache, answer: Answer) -> None:
    if answer.used is None:
        cache.put(answer.key, answer.entry)
    else:
        cache.touch(answer.key, answer.used)
