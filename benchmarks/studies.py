"""A Vision Transformer against a CNN of the same size, from scratch, at equal cost, on every development set: docs/studies/.

    .venv/bin/python benchmarks/studies.py [--only digits rsscn7] [--render]

Each study is one `vitreous compare` of vit_micro and resnet_micro, which have as many parameters, with as many
multiply-accumulates of training for both (CIFAR-10: as much time, also with fewer labels, which are then seen more often), three
seeds, and the recipe of each family. Its comparison.json is kept in
results/studies/; from there --render writes the pages without training anything. A study that was interrupted resumes.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from record import FOLDER

from vitreous.workflows.study.page import draw
from vitreous.workflows.summary import number

RESULTS = FOLDER / "studies"
PAGES = Path(__file__).parents[1] / "docs" / "studies"
MODELS = ("vit_micro", "resnet_micro")
COMMON = ("--models", ",".join(MODELS), "--seeds", "3")
SMALL = ("--equal", "macs", "--image-size", "64", "--epochs", "60")
STUDIES: dict[str, tuple[str, ...]] = {
    "digits": ("--equal", "macs", "--epochs", "30"),
    "document_pages": SMALL,
    "rsscn7": SMALL,
    "magnetic_tile": SMALL,
    "chest_xray_nih": SMALL,
    "clothing": SMALL,
    "cifar10": ("--equal", "time", "--time", "2m", "--shares", "0.01,0.1"),
}
TITLES = {
    "digits": "Handwritten digits",
    "document_pages": "Scanned pages",
    "rsscn7": "Satellite scenes",
    "magnetic_tile": "Defects of magnetic tiles",
    "chest_xray_nih": "Chest X-rays: pneumonia or no finding",
    "clothing": "Photographs of clothes",
    "cifar10": "CIFAR-10, with 1, 10 and 100 % of the labels",
}


def study(name: str, data: Path) -> None:
    """Carry one study out, or go on with it."""
    source = name if name == "digits" else str(data / name)
    if source != name and not Path(source).is_dir():
        print(f"{name}: not in {data}, skipped")
        return
    out = f"runs/studies/{name}"
    command = [sys.executable, "-m", "vitreous", "compare", source, *COMMON, *STUDIES[name], "--out", out, "--resume"]
    subprocess.run([*command, "--json"], check=True, stdout=subprocess.DEVNULL)
    found = json.loads((Path(out) / "comparison.json").read_text(encoding="utf-8"))
    found["command"] = shlex.join(["vitreous", "compare", name, *COMMON, *STUDIES[name]])
    del found["folder"]
    for entry in found["models"]:
        del entry["run"]
        entry["runs"] = [{key: run[key] for key in ("seed", "accuracy")} for run in entry["runs"]]
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def page(name: str, found: dict[str, Any]) -> str:
    """The page of one study in Markdown; its figures lie beside it."""
    images = found["images"]
    lines = [
        f"# {TITLES[name]}",
        "",
        f"**{found['verdict'][0]}**",
        *(line for sentence in found["verdict"][1:] for line in ("", sentence)),
        "",
        "```sh",
        found["command"],
        "```",
        "",
        f"{images['train']:,} training, {images['val']:,} validation, {images['test']:,} test images; the same for both: "
        f"{found['budget']}. Seeds {', '.join(map(str, found['seeds']))}. {found['processor']}, torch "
        f"{found['versions']['torch']}.",
        "",
        "| model | test accuracy, 95 % interval | seeds | parameters | MACs | steps | memory of training | one image, eager |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *(_row(entry) for entry in found["models"]),
        "",
        *(
            f"{pair['a']} less {pair['b']}: {100 * pair['difference']['value']:+.1f} points "
            f"({100 * pair['difference']['low']:+.1f} to {100 * pair['difference']['high']:+.1f}), exact McNemar tests combined "
            f"p = {pair['mcnemar_p']:.2g}; margin {100 * found['margin']:g} points."
            for pair in found["pairs"]
        ),
        "",
        f"![accuracy against cost]({name}_pareto.png)",
    ]
    if found["learning"]:
        lines += ["", _learning(found["learning"]), "", f"![accuracy against training images]({name}_learning.png)"]
    return "\n".join(lines) + "\n"


def _row(entry: dict[str, Any]) -> str:
    seeds = ", ".join(f"{100 * run['accuracy']:.1f}" for run in entry["runs"])
    return (
        f"| {entry['name']} | {number('accuracy', entry['accuracy'])} | {seeds} | {entry['parameters'] / 1e6:.2f} M | "
        f"{entry['macs'] / 1e6:.1f} M | {entry['steps']:,} | {entry['memory']['training_bytes'] / 1e6:.0f} MB | "
        f"{entry['latency_ms']:.2f} ms |"
    )


def _learning(rows: list[dict[str, Any]]) -> str:
    lines = [f"| training images | {' | '.join(MODELS)} |", "| --- | --- | --- |"]
    for images in sorted({row["images"] for row in rows}):
        own = {row["name"]: number("accuracy", row["accuracy"]) for row in rows if row["images"] == images}
        lines.append(f"| {images:,} | {' | '.join(own.get(name, 'failed') for name in MODELS)} |")
    return "\n".join(lines)


def render() -> None:
    """Every page from what is kept, and the table of all."""
    PAGES.mkdir(parents=True, exist_ok=True)
    table = [
        "| data | training images | vit_micro | resnet_micro | what may be said |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in STUDIES:
        file = RESULTS / f"{name}.json"
        if not file.is_file():
            continue
        found = json.loads(file.read_text(encoding="utf-8"))
        (PAGES / f"{name}.md").write_text(page(name, found), encoding="utf-8")
        for drawn, image in draw(found).items():
            if drawn != "growth":
                (PAGES / f"{name}_{drawn}.png").write_bytes(image)
        accuracies = " | ".join(number("accuracy", entry["accuracy"]) for entry in found["models"])
        table.append(
            f"| [{TITLES[name]}]({name}.md) | {found['images']['train']:,} | {accuracies} | {found['pairs'][0]['verdict']} |"
        )
    text = (
        "# Studies: a Vision Transformer against a CNN, from scratch, at equal cost\n\n"
        "vit_micro and resnet_micro have as many parameters. Both get as many multiply-accumulates of training (CIFAR-10: as much time), the "
        "recipe of their family, the same split and three seeds. Accuracy on the test part, mean of the seeds; its interval is for other "
        "seeds and other images of the same kind. Made by `benchmarks/studies.py`; how to read it: "
        "[What the numbers mean](../evaluation.md).\n\n"
    )
    (PAGES / "index.md").write_text(text + "\n".join(table) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(STUDIES), choices=list(STUDIES))
    parser.add_argument("--render", action="store_true", help="write the pages from what is kept")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    options = parser.parse_args()
    if not options.render:
        for name in options.only:
            study(name, options.data)
    render()


if __name__ == "__main__":
    main()
