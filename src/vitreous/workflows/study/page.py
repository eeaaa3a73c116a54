"""`comparison.html`: the answer, the table, the figures, every test, and how it was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vitreous.data.sources.locate import short_name
from vitreous.evaluation.fragments import (
    bullets,
    cell,
    definitions,
    drawing,
    interval_bar,
    paragraph,
    section,
    table,
    text,
)
from vitreous.evaluation.page import page, warnings
from vitreous.evaluation.words import counted, duration, percent
from vitreous.runs.atomic import write_bytes, write_text
from vitreous.workflows.study import pictures

PAGE = "comparison.html"
PLOTS = "plots"

Facts = Mapping[str, Any]
SAME = {
    "images": "images seen in training",
    "time": "wall time of each training",
    "macs": "multiply-accumulates of training",
    "steps": "optimiser steps",
}


def write_page(facts: Facts, data: str, folder: Path) -> None:
    """Write the page and its figures. facts: the content of `comparison.json`. Raises RunError."""
    drawn = draw(facts)
    (folder / PLOTS).mkdir(exist_ok=True)
    for name, image in drawn.items():
        write_bytes(folder / PLOTS / f"{name}.png", image)
    write_text(folder / PAGE, render(facts, data, drawn))


def draw(facts: Facts) -> dict[str, bytes]:
    """The figures by name: "pareto", "growth", "learning", as far as there is something to show."""
    finished = [entry for entry in facts["models"] if entry["accuracy"]["value"] is not None]
    found = {"pareto": pictures.pareto(finished)}
    if facts["growth"]:
        found["growth"] = pictures.growth(facts["growth"])
    if facts["learning"]:
        found["learning"] = pictures.learning(facts["learning"])
    return found


def render(facts: Facts, data: str, drawn: Mapping[str, bytes]) -> str:
    """The page as one string of HTML."""
    answer, *rest = facts["verdict"]
    times = len(facts["seeds"])
    kinds = f"{counted(len(facts['models']), 'model')}, each trained " + (
        f"{times} times from other initial weights (seeds)" if times > 1 else "once"
    )
    head = f"""<header>
<div class="kicker">vitreous comparison{text(f" on {data}" if data != short_name(data) else "")}</div>
<h1>{text(short_name(data))}</h1>
<p class="answer">{text(answer)}</p>
{"".join(paragraph(sentence) for sentence in rest)}
<p class="small">{text(kinds)}; {text(counted(facts["images"]["test"], "test image"))}; the same for all: {text(facts["budget"])}.</p>
</header>"""
    sections = {
        "Accuracy": _accuracy(facts),
        "Accuracy and cost": _against_cost(facts, drawn),
        "Differences": _differences(facts),
        "Speed": _speed(facts),
        "Growth": _growth(facts, drawn),
        "More images": _learning(facts, drawn),
        "Conditions": _conditions(facts),
    }
    return page(
        f"{data}: models compared",
        head + "\n" + warnings("Before you trust these numbers", facts["notes"]),
        sections,
        "The same facts, for programs: comparison.json; every training is a run folder beside this page.",
    )


def _accuracy(facts: Facts) -> str:
    header = [
        cell("Model", head=True),
        '<th class="num">Test accuracy</th>',
        "<th></th>",
        '<th class="num">Balanced accuracy</th>',
        '<th class="num">Calibration error</th>',
    ]
    rows = []
    for entry in facts["models"]:
        found = entry["accuracy"]
        if found["value"] is None:
            rows.append([cell(entry["name"]), f'<td colspan="4">{text(found["method"])}</td>'])
            continue
        rows.append(
            [
                cell(entry["name"], note=_seeds(entry)),
                _percent_cell(found),
                interval_bar(found["value"], found["low"], found["high"]),
                cell(_mean(entry, "balanced_accuracy"), number=True),
                cell(_mean(entry, "ece"), number=True),
            ]
        )
    several = len(facts["seeds"]) > 1
    meaning = (
        "Mean over the seeds. The interval is for another seed and other images of the same kind; the other columns are means."
        if several
        else "One training of each model: how much another seed would change is not known. `--seeds 3` tells."
    )
    return section("accuracy", "Accuracy", table(header, rows), paragraph(meaning))


def _seeds(entry: Facts) -> str:
    runs = entry["runs"]
    return "seeds " + ", ".join(f"{100 * run['accuracy']:.1f}" for run in runs) if len(runs) > 1 else ""


def _mean(entry: Facts, name: str) -> str:
    return percent(entry["spread"].get(name, {}).get("mean"))


def _against_cost(facts: Facts, drawn: Mapping[str, bytes]) -> str:
    names = ("Parameters", "MACs", "Training", "Its memory", "One image", "Its memory")
    header = [cell("Model", head=True), *(f'<th class="num">{name}</th>' for name in names)]
    rows = [
        [
            cell(entry["name"]),
            cell(_millions(entry["parameters"]), number=True),
            cell(_millions(entry["macs"]), number=True),
            cell(duration(entry["train_seconds"]), number=True, note=f"{entry['steps']:,} steps"),
            cell(
                _megabytes(entry["memory"]["training_bytes"]),
                number=True,
                note=f"{entry['memory']['training_batch']} at once",
            ),
            cell("–" if entry["latency_ms"] is None else f"{entry['latency_ms']:.2f} ms", number=True),
            cell(_megabytes(entry["memory"]["inference_bytes"]), number=True),
        ]
        for entry in facts["models"]
        if entry["accuracy"]["value"] is not None
    ]
    return section(
        "accuracy-and-cost",
        "Accuracy and cost",
        drawing(
            drawn["pareto"],
            "accuracy of every model against latency, multiply-accumulates and memory",
            "The grey line joins the models that no other beats in accuracy and cost at once.",
        ),
        table(header, rows),
        paragraph(
            "MACs are multiply-accumulates, the arithmetic of one image. The memory of training, at its peak, is a forecast for the batch "
            "that was used. Time for one image is that of plain PyTorch, measured here; other engines are below."
        ),
    )


def _differences(facts: Facts) -> str:
    header = [
        cell("Pair", head=True),
        '<th class="num">Difference</th>',
        '<th class="num">McNemar p</th>',
        '<th class="num">corrected</th>',
        cell("What may be said", head=True),
    ]
    rows = []
    for pair in facts["pairs"]:
        found = pair["difference"]
        span = "" if found["low"] is None else f"{100 * found['low']:+.1f} to {100 * found['high']:+.1f}"
        rows.append(
            [
                cell(f"{pair['a']} − {pair['b']}"),
                cell(f"{100 * found['value']:+.1f} points", number=True, note=span),
                cell(f"{pair['mcnemar_p']:.2g}", number=True),
                cell(f"{pair['holm_p']:.2g}", number=True),
                f'<td class="words">{text(pair["verdict"])}</td>',
            ]
        )
    if not rows:
        return ""
    return section(
        "differences",
        "Differences",
        table(header, rows),
        paragraph(
            "All models answered the same test images, so they are compared image by image: an exact McNemar test"
            + (" for each seed, combined" if len(facts["seeds"]) > 1 else "")
            + ", corrected for the number of pairs (Holm), and a paired bootstrap for the interval.",
            f"Differences of at most {100 * facts['margin']:g} points count as none: where the whole interval lies within that, the "
            "models are called as good as each other; a large p value alone never says so.",
        ),
    )


def _speed(facts: Facts) -> str:
    timed = [entry for entry in facts["models"] if entry.get("latency")]
    header = [
        cell("Milliseconds", head=True, note="median, 95th percentile"),
        *(f'<th class="num">{text(entry["name"])}</th>' for entry in timed),
    ]
    keys = dict.fromkeys((row["engine"], row["batch"]) for entry in timed for row in entry["latency"])
    rows = []
    for engine, batch in keys:
        cells = [cell(engine, note=counted(batch, "image"))]
        for entry in timed:
            row = next((r for r in entry["latency"] if (r["engine"], r["batch"]) == (engine, batch)), None)
            cells.append(
                cell("–", number=True)
                if row is None
                else cell(f"{row['p50_ms']:,.2f}", number=True, note=f"{row['p95_ms']:,.2f}")
            )
        rows.append(cells)
    skipped = [
        f"{entry['name']} without {each['engine']}: {each['reason']}"
        for entry in facts["models"]
        for each in entry.get("skipped", ())
    ]
    prices = [
        f"{entry['name']}: {entry['cost_per_million']['value']:.3g} for a million images ({entry['cost_per_million']['engine']}, "
        f"{entry['cost_per_million']['batch']} at once)"
        for entry in facts["models"]
        if entry.get("cost_per_million")
    ]
    return section(
        "speed",
        "Speed",
        table(header, rows),
        paragraph("Images in memory, answers back in memory; all models and engines took turns on this machine."),
        f"<h3>At a price of {facts['price_per_hour']:g} an hour</h3>" + bullets(prices) if prices else "",
        bullets(skipped) if skipped else "",
    )


def _growth(facts: Facts, drawn: Mapping[str, bytes]) -> str:
    if "growth" not in drawn:
        return ""
    return section(
        "growth",
        "Growth",
        drawing(
            drawn["growth"],
            "multiply-accumulates, time and memory against image size",
            "One image, logarithmic scales. Dashed: the part of a Vision Transformer's arithmetic that grows with the square of the "
            "number of patches. Twice the side is four times the patches; a CNN's arithmetic grows in step with them.",
        ),
        bullets(_doubling(name, curve) for name, curve in facts["growth"].items() if len(curve) > 1),
    )


def _doubling(name: str, curve: Sequence[Facts]) -> str:
    """What twice the side costs, from the largest pair of sizes of which one is twice the other."""
    by_size = {point["image_size"]: point for point in curve}
    pairs = [(point, by_size[2 * size]) for size, point in by_size.items() if 2 * size in by_size]
    if not pairs:
        return f"{name}: no two sizes of which one is twice the other"
    small, large = max(pairs, key=lambda pair: pair[0]["image_size"])
    said = f"{name}, {small['image_size']} to {large['image_size']} px: MACs × {large['macs'] / small['macs']:.1f}"
    if large["attention_macs"]:
        said += f" (attention's products × {large['attention_macs'] / small['attention_macs']:.1f}, {large['attention_share']:.0%} of all at the end)"
    if large["milliseconds"] and small["milliseconds"]:
        said += f", time × {large['milliseconds'] / small['milliseconds']:.1f}"
    return f"{said}, memory of training × {large['training_bytes'] / small['training_bytes']:.1f}"


def _learning(facts: Facts, drawn: Mapping[str, bytes]) -> str:
    if "learning" not in drawn:
        return ""
    names = list(dict.fromkeys(row["name"] for row in facts["learning"]))
    by_share = {(row["name"], row["images"]): row["accuracy"] for row in facts["learning"]}
    counts = sorted({row["images"] for row in facts["learning"]})
    header = [cell("Training images", head=True), *(f'<th class="num">{text(name)}</th>' for name in names)]
    rows = [
        [cell(f"{images:,}"), *(_percent_cell(by_share.get((name, images))) for name in names)] for images in counts
    ]
    return section(
        "more-images",
        "More images",
        drawing(drawn["learning"], "accuracy against the number of training images", "Bands are 95 % intervals."),
        table(header, rows),
    )


def _percent_cell(found: Facts | None) -> str:
    if found is None:
        return cell("failed", number=True)
    return cell(
        percent(found["value"]), number=True, note=f"{100 * found['low']:.1f} to {100 * found['high']:.1f}\u00a0%"
    )


def _conditions(facts: Facts) -> str:
    images = facts["images"]
    sizes = sorted({entry["image_size"] for entry in facts["models"] if entry.get("image_size")})
    return section(
        "conditions",
        "Conditions",
        definitions(
            [
                ("The same for all", f"{SAME[facts['equal']]}: {facts['budget']}"),
                ("Images", ", ".join(f"{images[part]:,} {part}" for part in ("train", "val", "test"))),
                ("Image size", ", ".join(f"{size} px" for size in sizes)),
                (
                    "Seeds",
                    ", ".join(map(str, facts["seeds"])) + "; each decides initial weights, order and augmentation",
                ),
                (
                    "Recipe",
                    "that of each family, as `vitreous train --model NAME` chooses it (config.json in each run)",
                ),
                ("Margin", f"{100 * facts['margin']:g} points"),
                ("Machine", facts["processor"]),
                ("Versions", ", ".join(f"{name} {version}" for name, version in facts["versions"].items())),
            ]
        ),
    )


def _millions(count: int) -> str:
    return f"{count / 1e9:,.2f} G" if count >= 1e9 else f"{count / 1e6:,.2f} M"


def _megabytes(count: int) -> str:
    return f"{count / 1e9:,.2f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
