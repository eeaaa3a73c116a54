"""What the search for near-duplicates finds on the six development sets, and how many planted copies it misses.

    .venv/bin/python benchmarks/near_duplicates.py [--sets rsscn7,clothing] [--planted 40] [--limit 10000]

For each set: the pairs that are there (look at them: every one is listed in results/near_duplicates.json), the largest
cluster, the share of magnetic_tile's groups kept whole, and the share found of copies made in sixteen ways. Needs the
sets in ../shared/data (or --data FOLDER); says so where they are absent. The thresholds in
src/vitreous/data/examination/{candidates,alignment,similar}.py come from these numbers.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance
from record import FOLDER, write

from vitreous.data import Source, load_source
from vitreous.data.examination.similar import Similar, find_similar
from vitreous.engines.onnxruntime import available_cores
from vitreous.inputs import as_picture, open_image

SETS = ("magnetic_tile", "rsscn7", "chest_xray_nih", "clothing", "document_pages", "cifar10")
TURN = Image.Transpose


def encoded(image: Image.Image, form: str, quality: int) -> Image.Image:
    data = io.BytesIO()
    image.save(data, form, quality=quality)
    return Image.open(io.BytesIO(data.getvalue()))


def cropped(image: Image.Image) -> Image.Image:
    """A twentieth less each way, most of it at the top left."""
    width, height = image.size
    return image.crop((width // 30, height // 30, width - width // 60, height - height // 60))


KINDS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "jpeg 30": lambda image: encoded(image, "JPEG", 30),
    "jpeg 60": lambda image: encoded(image, "JPEG", 60),
    "webp 80": lambda image: encoded(image, "WEBP", 80),
    "half": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS),
    "double": lambda image: image.resize((image.width * 2, image.height * 2), Image.Resampling.BICUBIC),
    "crop": cropped,
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.85),
    "grey": lambda image: image.convert("L"),
    "crop, jpeg 60": lambda image: encoded(cropped(image), "JPEG", 60),
    "mirrored": lambda image: image.transpose(TURN.FLIP_LEFT_RIGHT),
    "flipped": lambda image: image.transpose(TURN.FLIP_TOP_BOTTOM),
    "turned 90": lambda image: image.transpose(TURN.ROTATE_90),
    "turned 180": lambda image: image.transpose(TURN.ROTATE_180),
    "turned 270": lambda image: image.transpose(TURN.ROTATE_270),
    "mirrored, jpeg 60": lambda image: encoded(image.transpose(TURN.FLIP_LEFT_RIGHT), "JPEG", 60),
}


def thumbnail(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB").resize((32, 32), Image.Resampling.BOX))


def search(thumbnails: list[np.ndarray], load: Callable[[int], Image.Image]) -> tuple[Similar, float]:
    digests = [str(index) for index in range(len(thumbnails))]
    begin = time.monotonic()
    found = find_similar(np.stack(thumbnails), digests, load, threads=available_cores())
    return found, time.monotonic() - begin


def examine(folder: Path, limit: int, planted: int) -> dict[str, Any]:
    source = load_source(folder)
    kept = np.unique(np.linspace(0, len(source.samples) - 1, min(limit, len(source.samples))).astype(int)).tolist()

    def load(index: int) -> Image.Image:
        return as_picture(open_image(source.open(kept[index])))

    thumbnails = [thumbnail(load(index)) for index in range(len(kept))]
    found, seconds = search(thumbnails, load)
    paths = [source.samples[index].path for index in kept]
    sizes = Counter(Counter(found.clusters).values())
    return {
        "images": len(kept),
        "seconds": round(seconds, 1),
        "pairs": [[paths[p.first], paths[p.second], p.how, p.similarity] for p in found.pairs],
        "cluster_sizes": {str(size): sizes[size] for size in sorted(sizes)},
        "found": plant(thumbnails, load, planted),
        **groups_kept(folder, source, kept, found),
    }


def plant(thumbnails: list[np.ndarray], load: Callable[[int], Image.Image], count: int) -> dict[str, float]:
    """Share of copies of `count` images that are reported as pairs, by kind."""
    chosen = np.random.default_rng(0).choice(len(thumbnails), min(count, len(thumbnails)), replace=False).tolist()
    originals = [load(index).convert("RGB") for index in chosen]
    shares = {}
    for kind, change in KINDS.items():
        copies = [change(image) for image in originals]
        images = originals + copies
        rest = [index for index in range(len(thumbnails)) if index not in chosen][:300]
        small = [thumbnail(image) for image in images] + [thumbnails[index] for index in rest]
        found, _ = search(
            small, lambda i, images=images, rest=rest: images[i] if i < len(images) else load(rest[i - len(images)])
        )
        pairs = {(pair.first, pair.second) for pair in found.pairs}
        shares[kind] = round(sum((k, k + len(copies)) in pairs for k in range(len(copies))) / len(copies), 3)
    return shares


def groups_kept(folder: Path, source: Source, kept: list[int], found: Similar) -> dict[str, Any]:
    """For magnetic_tile: how many of its groups (of which some hold several tiles) lie in one cluster."""
    if folder.name != "magnetic_tile":
        return {}
    with (folder / "groups.csv").open(newline="") as file:
        groups = {row["file"]: row["group"] for row in csv.DictReader(file)}
    clusters: defaultdict[str, set[int]] = defaultdict(set)
    for place, index in enumerate(kept):
        clusters[groups[source.samples[index].path]].add(found.clusters[place])
    divided = sorted(group for group, numbers in clusters.items() if len(numbers) > 1)
    return {"groups": len(clusters), "groups_whole": len(clusters) - len(divided), "groups_divided": divided}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--limit", type=int, default=10_000)
    parser.add_argument("--planted", type=int, default=40)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    options = parser.parse_args()
    earlier = FOLDER / "near_duplicates.json"
    rows: dict[str, Any] = json.loads(earlier.read_text(encoding="utf-8"))["sets"] if earlier.is_file() else {}
    for name in options.sets.split(","):
        if not (options.data / name).is_dir():
            print(f"{name}: not in {options.data}, skipped")
            continue
        rows[name] = row = examine(options.data / name, options.limit, options.planted)
        print(f"{name}: {len(row['pairs'])} pairs, clusters {row['cluster_sizes']}, {row['seconds']} s")
        print("   found:", ", ".join(f"{kind} {share:.0%}" for kind, share in row["found"].items()), flush=True)
        write("near_duplicates", {"sets": rows})


if __name__ == "__main__":
    main()
