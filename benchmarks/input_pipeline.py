"""From a JPEG file to a normalised float32 array (3, 224, 224): ours against torchvision's, timm's and plain Pillow.

    .venv/bin/python benchmarks/input_pipeline.py
    .venv/bin/python benchmarks/input_pipeline.py --sizes 500x375 3000x2000 --images 4 --rounds 3

Every candidate takes the shorter side to 256 pixels and cuts 224 x 224 from the centre with a bilinear filter. They take
turns in one process with one thread; processor time is counted. Each size has a process of its own, in which no other image
was decoded. The photographs are those that come with scikit-learn, matplotlib and, where it is installed, scikit-image,
enlarged, with detail at the scales that enlarging leaves empty.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from record import write
from timing import interleaved
from timm.data import create_dataset, create_loader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from vitreous.config.input import InputSpec
from vitreous.inputs import open_image, prepare
from vitreous.inputs.reduced import reduction

SIDE, SHORTER = 224, 256
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SPEC = InputSpec(height=SIDE, width=SIDE, crop_fraction=SIDE / SHORTER, mean=MEAN, std=STD)
SIZES = ("500x375", "1280x960", "2000x1500", "2000x1500+4000x3000", "3000x2000", "4000x3000")
"""`2000x1500+4000x3000`: after an image of 4000 x 3000 in the same process. glibc's malloc then keeps memory that it otherwise
gives back and asks for again with each image, and whoever decodes in full is a third faster."""
QUALITY = 90
BUNDLED = {
    "sklearn": ("datasets/images", ("china.jpg", "flower.jpg")),
    "matplotlib": ("mpl-data/sample_data", ("grace_hopper.jpg",)),
    "skimage": (
        "data",
        ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "hubble_deep_field.jpg", "motorcycle_left.png",
         "retina.jpg", "ihc.png"),
    ),
}  # fmt: skip
"""{package: (folder in it, files)}; scikit-image is optional."""


def photographs() -> list[Path]:
    """Those that are here."""
    found: list[Path] = []
    for package, (folder, names) in BUNDLED.items():
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            found += [path for name in names if (path := Path(spec.origin).parent / folder / name).is_file()]
    return found


def enlarge(path: Path, width: int, height: int, seed: int) -> Image.Image:
    """The photograph's largest centred part of this shape, with detail by octaves, strongest at its own edges, and noise."""
    rng = np.random.default_rng(seed)
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    scale = min(picture.width / width, picture.height / height)
    half_width, half_height = width * scale / 2, height * scale / 2
    x, y = picture.width / 2, picture.height / 2
    box = (max(0, x - half_width), max(0, y - half_height),
           min(picture.width, x + half_width), min(picture.height, y + half_height))  # fmt: skip
    pixels = np.asarray(picture.resize((width, height), Image.Resampling.LANCZOS, box=box)).astype(np.float32)
    small = Image.fromarray(pixels.mean(2)).resize((width // 8, height // 8), Image.Resampling.BOX)
    slope = np.hypot(*np.gradient(np.asarray(small))).astype(np.float32)
    local = np.asarray(Image.fromarray(slope).resize((width, height), Image.Resampling.BILINEAR))
    strength, octave = np.clip(local / 6, 0.15, 2), 1
    while octave * scale <= 1:
        coarse = rng.standard_normal((-(-height // octave), -(-width // octave)), np.float32)
        detail = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
        pixels += (3 * octave**0.5 * strength * detail)[..., None]
        octave *= 2
    pixels += 1.2 * rng.standard_normal(pixels.shape, np.float32)
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def make(folder: Path, width: int, height: int, images: int) -> list[Path]:
    """Write the images of one size below FOLDER/photograph."""
    (folder / "photograph").mkdir(parents=True)
    known, paths = photographs(), []
    for number in range(images):
        path = folder / "photograph" / f"{number:03}.jpg"
        enlarge(known[number % len(known)], width, height, number).save(path, quality=QUALITY)
        paths.append(path)
    return paths


def pillow_and_numpy(path: Path) -> np.ndarray:
    """What one writes without a library."""
    image = Image.open(path).convert("RGB")
    scale = SHORTER / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    left, top = (image.width - SIDE) // 2, (image.height - SIDE) // 2
    pixels = np.asarray(image.crop((left, top, left + SIDE, top + SIDE)), np.float32) / 255
    return np.ascontiguousarray(((pixels - np.array(MEAN, np.float32)) / np.array(STD, np.float32)).transpose(2, 0, 1))


def candidates(folder: Path, paths: list[Path]) -> dict[str, Callable[[], np.ndarray]]:
    """Each gives all images, float32 (n, 3, 224, 224), in one order."""
    steps = [transforms.Resize(SHORTER), transforms.CenterCrop(SIDE), transforms.ToTensor()]
    theirs: Any = ImageFolder(str(folder), transforms.Compose([*steps, transforms.Normalize(MEAN, STD)]))
    dataset: Any = create_dataset("", str(folder))
    loader: Any = create_loader(
        dataset,
        input_size=(3, SIDE, SIDE),
        batch_size=len(paths),
        is_training=False,
        use_prefetcher=False,
        interpolation="bilinear",
        mean=MEAN,
        std=STD,
        crop_pct=SIDE / SHORTER,
        num_workers=0,
        persistent_workers=False,
    )
    return {
        "torchvision": lambda: np.stack([theirs[number][0].numpy() for number in range(len(theirs))]),
        "timm": lambda: next(iter(loader))[0].numpy(),
        "Pillow + NumPy": lambda: np.stack([pillow_and_numpy(path) for path in paths]),
        "vitreous, decoded in full": lambda: np.stack([prepare(open_image(path), SPEC) for path in paths]),
        "vitreous": lambda: np.stack([prepare(path, SPEC) for path in paths]),
    }


def difference(arrays: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Between normalised arrays, in grey levels of 255: mean, mean of the worst image, largest."""
    levels = np.abs(arrays - reference) * 255 * np.array(STD, np.float32)[:, None, None]
    return {
        "mean": float(levels.mean()),
        "worst_image": float(levels.mean((1, 2, 3)).max()),
        "max": float(levels.max()),
    }


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    """All candidates on the images of one folder."""
    paths = sorted(folder.glob("*/*.jpg"))
    works = candidates(folder, paths)
    results = {each: work() for each, work in works.items()}
    times = interleaved(dict(works), rounds)
    full, theirs = results["vitreous, decoded in full"], results["torchvision"]
    return {
        each: {
            "ms_per_image": {key: value / len(paths) for key, value in found.items()},
            "times_torchvision": times["torchvision"]["median"] / found["median"],
            "from_torchvision": difference(results[each], theirs),
            "from_full": difference(results[each], full),
        }
        for each, found in times.items()
    }


def measure_apart(size: str, images: int, rounds: int) -> dict[str, Any]:
    """The same in a fresh process, on images made here."""
    (width, height), *larger = (tuple(int(side) for side in each.split("x")) for each in size.split("+"))
    with tempfile.TemporaryDirectory() as name:
        paths = make(Path(name) / "set", width, height, images)
        command = [sys.executable, __file__, "--measure", str(Path(name) / "set"), "--rounds", str(rounds)]
        if larger:
            command += ["--after", str(make(Path(name) / "larger", *larger[0], images=1)[0])]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        kilobytes = sum(path.stat().st_size for path in paths) / len(paths) / 1000
    return {
        "images": images,
        "kilobytes": kilobytes,
        "reduced_by": reduction(width, height, SPEC),
        "candidates": json.loads(output),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="JPEG files to arrays, side by side.")
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), help="such as 500x375")
    parser.add_argument("--images", type=int, default=11)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--measure", type=Path, help="one folder of images, in this process; prints JSON")
    parser.add_argument("--after", type=Path, help="an image to decode before")
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    if wanted.measure is not None:
        if wanted.after is not None:
            pillow_and_numpy(wanted.after)
        print(json.dumps(measure(wanted.measure, wanted.rounds)))
        return
    facts: dict[str, Any] = {"threads": 1, "photographs": len(photographs()), "sizes": {}}
    for size in wanted.sizes:
        facts["sizes"][size] = found = measure_apart(size, wanted.images, wanted.rounds)
        for each, value in found["candidates"].items():
            at = value["ms_per_image"]
            print(
                f"{size} ({found['kilobytes']:.0f} kB, reduced by {found['reduced_by']}), {each}: {at['median']:.2f} ms "
                f"({at['min']:.2f} to {at['max']:.2f}), {value['times_torchvision']:.2f} x torchvision, grey levels from "
                f"full decoding {value['from_full']['mean']:.2f} (worst image {value['from_full']['worst_image']:.2f}, "
                f"largest {value['from_full']['max']:.0f}), from torchvision {value['from_torchvision']['mean']:.2f}",
                flush=True,
            )
    print(write("input_pipeline", facts))


if __name__ == "__main__":
    main()
