"""What a frozen model makes of images: computed once, kept in the user's cache folder.

A file is named by all that its numbers depend on: the weights below the head, how images become tensors, the images
themselves, and what computes. So it never goes stale; see `data.disk`, which also bounds the folder and writes atomically.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import nn

from vitreous.data import PixelStore, disk
from vitreous.data.batches import eval_batches
from vitreous.data.examination.cache import cache_folder
from vitreous.engines import Engine
from vitreous.models.head import head_of

FOLDER = "features"
"""Where the files lie, inside the cache folder."""
MOST_BYTES = 4 * 10**9
"""What all files together may take; the least recently used ones make room."""
VERSION = 1
"""Raised when the same key stands for other numbers."""
BATCH = 64
OF_THE_HEAD = ("num_classes", "dropout", "head_hidden")
"""Arguments of a model that features do not depend on."""


def features_of(
    model: nn.Module,
    architecture: Mapping[str, Any],
    engine: Engine,
    store: PixelStore,
    digests: Sequence[str],
    *,
    progress: Callable[[int, int], None] | None = None,
    folder: Path | None = None,
) -> np.ndarray:
    """float32 (n, d): what the model's head would read, for every image of the store in its order.

    architecture: keyword arguments the model was built with. engine: computes the features with the model. digests: of the pixels of every sample of the store's source. progress: called with
    (images done, all images). folder: the cache folder; the user's own when None. Where nothing can be kept there, the
    features are computed all the same.
    """
    n, width = len(store), _width(engine, store)
    key = _key(model, architecture, engine, store, digests)
    try:
        place = (cache_folder() if folder is None else folder) / FOLDER
    except RuntimeError:  # no home folder
        return _computed(engine, store, progress)
    shape, kind = (n, width), np.dtype(np.float32)
    kept = disk.find(place, key, shape, kind)
    if kept is not None:
        if progress is not None:
            progress(n, n)
        return np.array(kept)
    try:
        return np.array(disk.fill(place, key, shape, kind, _rows(engine, store, progress), MOST_BYTES))
    except disk.NoRoomError:
        return _computed(engine, store, progress)


def _rows(engine: Engine, store: PixelStore, progress: Callable[[int, int], None] | None) -> Iterator[np.ndarray]:
    done = 0
    for batch in eval_batches(store, BATCH):
        yield from engine.predict(batch).features
        done += len(batch)
        if progress is not None:
            progress(done, len(store))


def _computed(engine: Engine, store: PixelStore, progress: Callable[[int, int], None] | None) -> np.ndarray:
    return np.stack(list(_rows(engine, store, progress)))


def _width(engine: Engine, store: PixelStore) -> int:
    return engine.predict(np.zeros((1, *store.spec.shape), np.float32)).features.shape[1]


def _key(
    model: nn.Module, architecture: Mapping[str, Any], engine: Engine, store: PixelStore, digests: Sequence[str]
) -> str:
    """sha256 of everything that the features depend on, to the last bit."""
    computing = {
        "version": VERSION,
        "engine": engine.name,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),  # they decide the order of sums
        "processor": f"{platform.machine()} {platform.processor()} {torch.backends.cpu.get_cpu_capability()}",
        "input": replace(store.spec, classes=()).digest(),
        "decoding": disk.key_of(store.spec, ()),
        "architecture": {name: value for name, value in architecture.items() if name not in OF_THE_HEAD},
        "body": body_digest(model),
    }
    digest = hashlib.sha256(json.dumps(computing, sort_keys=True).encode())
    for index in store.indices:
        digest.update(f"\n{digests[index]} {PurePosixPath(store.source.samples[index].path).suffix}".encode())
    return digest.hexdigest()


def body_digest(model: nn.Module) -> str:
    """sha256 of names and values of all weights and buffers but those of the head."""
    digest = hashlib.sha256()
    head = {id(parameter) for parameter in head_of(model).parameters()}
    for name, value in sorted(model.state_dict(keep_vars=True).items()):
        if id(value) not in head:
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
