"""Every development set from scratch: `vitreous train SET --time T` against timm's `train.py` defaults in the same minutes.

    .venv/bin/python benchmarks/against_timm.py [--time 2m] [--sets rsscn7,clothing] [--seeds 0,1,2]

Two cores, two places: each training is pinned to one core of its own, and both sides are always at work, so that they share
whatever else the machine does. timm's script is not in its package; what it does is put together here from the package's
own parts with the script's defaults (timm 1.0): ResNet-50, SGD with momentum at 0.05 for 128 images, cosine with five
epochs of warm-up, crops of 8 to 100 %, mirroring, colour jitter 0.4, label smoothing 0.1, fp32. Two rows:

    defaults  as it stands, 224 pixels, the learning rate falling over as many epochs as fit instead of its 300
    our size  the same with `--img-size` as vitreous chose it for the set, which on a CPU trains many times the images

It is favoured where there was a choice: its time begins at the first batch (imports, decoding of the first files and the
test are not counted), it trains on the images that vitreous holds back for validation, and packed sets are unpacked
for it beforehand. Ours counts everything, from the start of Python to the written report.

An interval is that of the mean over the seeds: variance between seeds plus that of drawing the test images.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cores import Cores
from record import FOLDER, write

from vitreous.config.train import parse_duration

SETS = ("magnetic_tile", "rsscn7", "chest_xray_nih", "clothing", "document_pages", "cifar10")
OURS, DEFAULTS, OUR_SIZE = "vitreous", "timm, defaults", "timm, our size"
BATCH, RATE, WARM_UP, SMOOTHING = 128, 0.05, 5, 0.1
"""Of timm's script: --batch-size, --lr-base 0.1 at 256, --warmup-epochs, --smoothing."""


def ours(cores: Cores, data: Path, budget: str, seed: int) -> dict[str, Any]:
    """One training as a user starts it, with nothing remembered of the data."""
    out = f"runs/benchmarks/against_timm/{data.name}_{seed}"
    command = [sys.executable, "-m", "vitreous", "train", str(data), "--time", budget, "--seed", str(seed)]
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as cache:
        printed = cores.run(
            [*command, "--init", "scratch", "--out", out, "--overwrite", "--json"], VITREOUS_CACHE=cache
        )
    wall = time.monotonic() - begin
    found = json.loads(printed)
    facts = json.loads((Path(found["run"]) / "run.json").read_text(encoding="utf-8"))
    test = found["metrics"]["test"]
    return {
        "seconds": round(wall, 1),
        "model": facts["architecture"]["name"],
        "size": json.loads((Path(found["run"]) / "config.json").read_text(encoding="utf-8"))["image_size"],
        "steps": facts["training"]["steps"],
        "accuracy": test["accuracy"]["value"],
        "balanced_accuracy": test["balanced_accuracy"]["value"],
        "test_images": test["accuracy"]["n"],
    }


def theirs(cores: Cores, folder: Path, size: int, seconds: float, seed: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--peer", str(folder), "--size", str(size)]
    return json.loads(cores.run([*command, "--seconds", str(seconds), "--seed", str(seed)]))


def peer(folder: Path, size: int, seconds: float, seed: int) -> dict[str, Any]:
    """timm's training loop with its script's defaults, for so many seconds; then the test."""
    import timm
    import torch
    from timm.data import ImageDataset, create_loader, resolve_data_config
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2
    from timm.utils import random_seed

    torch.set_num_threads(1)
    random_seed(seed)
    device = torch.device("cpu")
    train, test = ImageDataset(str(folder / "train")), ImageDataset(str(folder / "test"))
    classes = sum(place.is_dir() for place in (folder / "train").iterdir())
    model = timm.create_model("resnet50", num_classes=classes)
    settings = resolve_data_config({"img_size": size}, model=model)
    shape, mean, std = settings["input_size"], settings["mean"], settings["std"]
    loader = create_loader(
        train, shape, min(BATCH, len(train)), is_training=True, interpolation="random", mean=mean, std=std,
        num_workers=0, device=device, use_prefetcher=False, persistent_workers=False,
    )  # fmt: skip
    optimizer = create_optimizer_v2(model, opt="sgd", lr=RATE, weight_decay=2e-5, momentum=0.9)
    loss_of = LabelSmoothingCrossEntropy(SMOOTHING)
    model.train()
    scheduler, passes, steps, epoch, began = None, 1, 0, 0, time.monotonic()
    while time.monotonic() - began < seconds:
        for images, labels in loader:
            loss = loss_of(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
            if scheduler is None and (steps == 3 or steps == len(loader)):
                passes = max(1, math.floor(seconds * steps / (time.monotonic() - began) / len(loader)))
                scheduler, _ = create_scheduler_v2(
                    optimizer, num_epochs=passes, warmup_epochs=min(WARM_UP, passes // 4), updates_per_epoch=len(loader)
                )
            if time.monotonic() - began >= seconds:
                break
        epoch += 1
        if scheduler is not None:
            scheduler.step(epoch)
            if epoch >= passes:
                break
    spent = time.monotonic() - began
    evaluation = create_loader(
        test, shape, BATCH, interpolation=settings["interpolation"], mean=mean, std=std, crop_pct=settings["crop_pct"],
        num_workers=0, device=device, use_prefetcher=False, persistent_workers=False,
    )  # fmt: skip
    hits, totals = torch.zeros(classes), torch.zeros(classes)
    model.eval()
    with torch.inference_mode():
        for images, labels in evaluation:
            right = model(images).argmax(1) == labels
            hits += torch.bincount(labels[right], minlength=classes)
            totals += torch.bincount(labels, minlength=classes)
    return {
        "seconds": round(spent, 1),
        "model": "resnet50",
        "size": size,
        "steps": steps,
        "epochs": epoch,
        "accuracy": float(hits.sum() / totals.sum()),
        "balanced_accuracy": float((hits / totals.clamp(min=1)).mean()),
        "test_images": int(totals.sum()),
    }


def unpacked(data: Path, place: Path) -> Path:
    """The folder itself where it holds folders of images, otherwise one made from its tables."""
    if not (data / "train.parquet").is_file():
        return data
    import pyarrow.parquet as parquet

    for part in ("train", "test"):
        for number, row in enumerate(parquet.read_table(data / f"{part}.parquet").to_pylist()):
            folder = place / part / row["label_name"]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}.jpg").write_bytes(row["image"])
    return place


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean over seeds and its standard error, for accuracy and balanced accuracy."""
    found: dict[str, Any] = {}
    for name in ("accuracy", "balanced_accuracy"):
        values = [row[name] for row in rows]
        mean = statistics.mean(values)
        between = statistics.variance(values) / len(values) if len(values) > 1 else 0.0
        found[name] = {"mean": mean, "error": math.sqrt(between + mean * (1 - mean) / rows[0]["test_images"])}
    return found


def study(data: Path, budget: str, seconds: float, seeds: list[int]) -> dict[str, Any]:
    """Both sides over all seeds, two trainings at a time. The set at 224 pixels needs one seed only: it hardly begins."""
    cores = Cores()
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(2) as pool:
        folder = unpacked(data, Path(place))
        size: Future[int] = Future()

        def first() -> dict[str, Any]:
            row = ours(cores, data, budget, seeds[0])
            size.set_result(row["size"])
            return row

        jobs = {OURS: [pool.submit(first)], DEFAULTS: [], OUR_SIZE: []}
        jobs[DEFAULTS].append(pool.submit(theirs, cores, folder, 224, seconds, seeds[0]))
        for seed in seeds[1:]:
            jobs[OURS].append(pool.submit(ours, cores, data, budget, seed))
        jobs[OUR_SIZE] += [
            pool.submit(lambda seed=seed: theirs(cores, folder, size.result(), seconds, seed)) for seed in seeds
        ]
        rows = {name: [job.result() for job in started] for name, started in jobs.items()}
    return {name: {"mean": summary(found), "seeds": found} for name, found in rows.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--time", default="2m", help="as vitreous takes it")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--peer", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        print(json.dumps(peer(options.peer, options.size, options.seconds, options.seed)))
        return
    earlier = FOLDER / "against_timm.json"
    sets: dict[str, Any] = json.loads(earlier.read_text(encoding="utf-8"))["sets"] if earlier.is_file() else {}
    seconds = parse_duration(options.time)
    for name in options.sets.split(","):
        if not (options.data / name).is_dir():
            print(f"{name}: not in {options.data}, skipped")
            continue
        found = study(options.data / name, options.time, seconds, [int(seed) for seed in options.seeds.split(",")])
        sets[name] = {"budget": options.time, **found}
        for side, row in found.items():
            accuracy, balanced = row["mean"]["accuracy"], row["mean"]["balanced_accuracy"]
            print(
                f"{name:16} {side:16} accuracy {100 * accuracy['mean']:.1f} ± {196 * accuracy['error']:.1f} %, "
                f"balanced {100 * balanced['mean']:.1f} ± {196 * balanced['error']:.1f} %",
                flush=True,
            )
        write("against_timm", {"sets": sets})


if __name__ == "__main__":
    main()
