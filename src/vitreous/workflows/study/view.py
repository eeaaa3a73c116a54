"""A study as text for a terminal."""

from __future__ import annotations

from vitreous.workflows.study.compare import Comparison
from vitreous.workflows.study.page import PAGE
from vitreous.workflows.summary import aligned, comparison_table, number


def study_text(found: Comparison) -> str:
    """The answer, the table, every pair, the speed of the engines, and where all of it lies."""
    facts = found.facts
    lines = ["", *facts["verdict"], "", comparison_table(found.models), f"The same for all: {facts['budget']}."]
    if len(facts["seeds"]) > 1:
        lines.append(
            f"Accuracy is the mean of {len(facts['seeds'])} seeds; its interval is for other seeds and images."
        )
    if found.pairs:
        lines += ["", *(f"{pair.a} against {pair.b}: {pair.verdict} (p = {pair.holm_p:.2g})" for pair in found.pairs)]
    lines += ["", _engines(found)]
    if facts["learning"]:
        lines += ["", _learning(found)]
    prices = [
        f"{entry['name']} {entry['cost_per_million']['value']:.3g}"
        for entry in found.models
        if entry.get("cost_per_million")
    ]
    if prices:
        lines += ["", f"A million images at {facts['price_per_hour']:g} an hour: {', '.join(prices)}."]
    lines += [f"! {note}" for note in found.notes()]
    lines += ["", f"runs    {found.folder}", f"report  {found.folder / PAGE}"]
    return "\n".join(lines)


def _engines(found: Comparison) -> str:
    """Milliseconds of a batch, median and 95th percentile, a column for each model."""
    timed = [entry for entry in found.models if entry.get("latency")]
    keys = list(dict.fromkeys((row["engine"], row["batch"]) for entry in timed for row in entry["latency"]))
    rows = [["ms, median (95th percentile)", *(entry["name"] for entry in timed)]]
    for engine, batch in keys:
        cells = []
        for entry in timed:
            row = next((r for r in entry["latency"] if (r["engine"], r["batch"]) == (engine, batch)), None)
            cells.append("-" if row is None else f"{row['p50_ms']:,.2f} ({row['p95_ms']:,.2f})")
        rows.append([f"{engine}, {batch:,} image{'s' * (batch > 1)}", *cells])
    return aligned(rows)


def _learning(found: Comparison) -> str:
    rows = found.facts["learning"]
    names = list(dict.fromkeys(row["name"] for row in rows))
    table = [["training images", *names]]
    for images in sorted({row["images"] for row in rows}):
        cells = [
            next(
                (number("accuracy", r["accuracy"]) for r in rows if (r["name"], r["images"]) == (name, images)),
                "failed",
            )
            for name in names
        ]
        table.append([f"{images:,}", *cells])
    return aligned(table)
