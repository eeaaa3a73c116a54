"""Processor time of making training batches, a stage at a time, in microseconds an image.

    .venv/bin/python benchmarks/augmentation.py
    .venv/bin/python benchmarks/augmentation.py --batch 512 --rounds 30

Batches are made in one thread beside training, on the same cores: what they cost is taken from it. The images are noise kept
in memory, 32 x 32 x 3 (photographs), 16 x 16 x 1 (digits) and 64 x 64 x 1 (radiographs) bytes; one thread, processor time,
all cases in turn, `TrainBatches.batch` as training calls it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import torch
from record import write
from timing import interleaved

from vitreous.config.input import InputSpec
from vitreous.config.train import AugmentConfig
from vitreous.data.augmentation.augment import Augment
from vitreous.data.augmentation.size import plan_sizes
from vitreous.data.batches import TrainBatches
from vitreous.recipes import AUGMENTATION
from vitreous.recipes.presets import GLYPHS

IMAGES = 5000


class Kept:
    """A store of pixels that no file need hold."""

    where = "memory"

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def get(self, rows: np.ndarray, *, beside_training: bool = False) -> np.ndarray:
        return self.pixels[rows]


def cases() -> dict[str, tuple[int, int, AugmentConfig]]:
    """{name: (side, channels, augmentation)}."""
    natural = replace(AUGMENTATION["natural"], crop_area=0.6)
    plain = replace(
        natural, horizontal_flip=False, crop_area=1.0, rand_augment_ops=0, erase=0.0, mix_probability=0.0, repeats=1
    )
    flipped = replace(plain, horizontal_flip=True)
    return {
        "nothing": (32, 3, plain),
        "mirrored": (32, 3, flipped),
        "mirrored, padded crop": (32, 3, replace(flipped, pad_crop=4)),
        "mirrored, resized crop": (32, 3, replace(flipped, crop_area=0.6)),
        "mirrored, resized crop, 3-Augment": (32, 3, replace(flipped, crop_area=0.6, three_augment=True)),
        "mirrored, padded crop, RandAugment": (32, 3, replace(natural, crop_area=1.0, pad_crop=4, erase=0.0)),
        "natural": (32, 3, natural),
        "natural at half the side": (32, 3, replace(natural, start_size=0.5, full_size_from=0.7)),
        "satellite": (32, 3, AUGMENTATION["satellite"]),
        "digits": (16, 1, replace(AUGMENTATION["document"], **GLYPHS)),
        "medical": (64, 1, AUGMENTATION["medical"]),
    }


def maker(side: int, channels: int, config: AugmentConfig, batch: int) -> Callable[[], object]:
    """What makes the next batch each time it is called."""
    shape: dict[str, Any] = {"height": side, "width": side, "channels": channels}
    spec = InputSpec(**shape, mean=(0.5,) * channels, std=(0.25,) * channels)
    rng = np.random.default_rng(0)
    store: Any = Kept(rng.integers(0, 256, (IMAGES, side, side, channels)).astype(np.uint8))
    plan = plan_sizes(config, (side, side), (4, 4), held=0)
    batches = TrainBatches(
        store,
        rng.integers(0, 10, IMAGES),
        batch_size=batch,
        seed=0,
        augment=Augment(config, spec, 10, 0.1),
        mix_until_step=10**9,
        size=None if plan is None else lambda _: plan.sizes[0],
    )
    numbers = count()
    return lambda: batches.batch(next(numbers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="*", default=[128, 512])
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, dict[str, float]] = {}
    for batch in given.batch:
        work = {name: maker(*case, batch) for name, case in cases().items()}
        times = interleaved({name: partial(make) for name, make in work.items()}, given.rounds)
        for name, spread in times.items():
            microseconds = {key: round(1000 * value / batch, 1) for key, value in spread.items()}
            results[f"{name}, batch {batch}"] = microseconds
            print(f"{batch:5} {name:36} {microseconds['median']:7.1f} us an image (least {microseconds['min']:.1f})")
    write("augmentation", {"unit": "microseconds of processor time an image, one thread", "results": results})


if __name__ == "__main__":
    main()
