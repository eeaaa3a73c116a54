"""How fast every image of a folder is looked at, how much memory that takes, and what the cache saves.

    .venv/bin/python benchmarks/examination.py [--images 20000] [--size 256] [--threads 2]

The images are made first: crops of scikit-learn's two photographs with noise, as JPEG of quality 85, each with pixels of
its own. Three scans follow in processes of their own: without a cache, filling one, and from it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from record import write
from sklearn.datasets import load_sample_images

from vitreous.engines.onnxruntime import available_cores

SCAN = """
import json, re, sys, time
from pathlib import Path
from vitreous.data import load_source
from vitreous.data.examination.scan import scan

peaks, calls = {}, 0

def note_peaks(done, total):
    # Peak of this process and of its children, in megabytes, as Linux tells it: what getrusage tells includes the
    # process that started them.
    global calls
    calls += 1
    if calls % 50 and done < total - 64:
        return
    for task in Path("/proc/self/task").iterdir():
        for number in ["self", *(task / "children").read_text().split()]:
            found = re.search(r"VmHWM:\\s+(\\d+)", Path(f"/proc/{number}/status").read_text())
            if found:
                peaks[number] = int(found[1]) // 1024

source = load_source(sys.argv[1])
cache = Path(sys.argv[3]) if sys.argv[3] else None
begin = time.perf_counter()
found = scan(source, threads=int(sys.argv[2]), cache=cache, progress=note_peaks if sys.platform == "linux" else None)
seconds = time.perf_counter() - begin
print(json.dumps({
    "seconds": round(seconds, 2),
    "images_per_second": round(len(source.samples) / seconds),
    "readable": len(found.good),
    "from_cache": found.cached,
    "peak_mb": peaks.pop("self", None),
    "worker_peaks_mb": sorted(peaks.values()),
    "notes": found.notes,
}))
"""
"""Arguments: folder, threads, folder of the cache or nothing. Prints one JSON object."""


def make(folder: Path, count: int, size: int) -> int:
    """Write the images, 1,000 to a class, and return their bytes."""
    photographs: list[np.ndarray] = load_sample_images()["images"]
    generator = np.random.default_rng(0)
    noise = generator.normal(0, 4, (2 * size, 2 * size, 3))
    total = 0
    for number in range(count):
        photograph = photographs[number % len(photographs)]
        top, left = (int(generator.integers(side - size + 1)) for side in photograph.shape[:2])
        down, across = generator.integers(size, size=2)
        pixels = photograph[top : top + size, left : left + size] + noise[down : down + size, across : across + size]
        path = folder / f"class-{number // 1000:03d}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path, quality=85)
        total += path.stat().st_size
    return total


def measure(folder: Path, threads: int, cache: Path | None) -> dict[str, Any]:
    command = [sys.executable, "-c", SCAN, str(folder), str(threads), str(cache or "")]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--threads", type=int, default=available_cores())
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vitreous-benchmark-") as place:
        folder, cache = Path(place) / "images", Path(place) / "cache"
        begin = time.perf_counter()
        total = make(folder, options.images, options.size)
        print(
            f"made {options.images:,} images of {total / options.images:,.0f} bytes in {time.perf_counter() - begin:.0f} s"
        )
        rows: dict[str, Any] = {}
        for name, place_of_cache in (("no cache", None), ("filling the cache", cache), ("from the cache", cache)):
            rows[name] = measure(folder, options.threads, place_of_cache)
            print(f"{name}: {rows[name]}", flush=True)
        kept = sum(path.stat().st_size for path in cache.iterdir())
    facts = {"images": options.images, "size": options.size, "threads": options.threads, "seed": 0}
    write(
        "examination", {**facts, "bytes_per_image": round(total / options.images), "cache_bytes": kept, "scans": rows}
    )


if __name__ == "__main__":
    main()
