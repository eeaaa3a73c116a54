"""The figures of a study: accuracy against cost, growth with the size of images, growth with the number of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from vitreous.evaluation.figure import GRID, INK, MUTED, SERIES, new_figure, png, shorten, style

COSTS = (
    ("latency_ms", "one image, ms", 1.0),
    ("macs", "MACs of an image, millions", 1e6),
    ("training_bytes", "memory of training, MB", 1e6),
)
"""(key, label, unit) of what accuracy is set against."""

Entry = Mapping[str, Any]


def pareto(models: Sequence[Entry]) -> bytes:
    """Accuracy with its interval against three costs; the line joins the models that none beats in both."""
    page = new_figure(7.2, 2.9)
    for number, (axes, (key, label, unit)) in enumerate(zip(page.subplots(1, 3, sharey=True), COSTS, strict=True)):
        style(axes)
        points = [(cost / unit, entry) for entry in models if (cost := _cost(entry, key))]
        if not points:
            continue
        front = _front([(cost, entry["accuracy"]["value"]) for cost, entry in points])
        axes.plot(*zip(*front, strict=True), color=GRID, linewidth=5, solid_capstyle="round", zorder=1)
        for index, (cost, entry) in enumerate(points):
            found, colour = entry["accuracy"], SERIES[index % len(SERIES)]
            axes.plot([cost, cost], [found["low"], found["high"]], color=colour, linewidth=1.6, alpha=0.55, zorder=2)
            axes.scatter(
                [cost], [found["value"]], s=30, color=colour, linewidths=0, zorder=3, label=shorten(entry["name"])
            )
        _log(axes, [cost for cost, _ in points])
        axes.set_xlabel(label)
        if number == 0:
            axes.set_ylabel("accuracy, 95 % interval")
            axes.yaxis.set_major_formatter(PercentFormatter(1))
            axes.yaxis.set_major_locator(MaxNLocator(6))
    handles, labels = page.axes[0].get_legend_handles_labels()
    page.legend(
        handles, labels, loc="outside upper left", ncols=4, frameon=False, fontsize=8, labelcolor=INK, handletextpad=0.2
    )
    return png(page)


def growth(curves: Mapping[str, Sequence[Entry]]) -> bytes:
    """Multiply-accumulates, time and memory of one image against its side; dashed, the quadratic part of attention."""
    page = new_figure(7.2, 2.9)
    left, middle, right = (style(axes) for axes in page.subplots(1, 3))
    for index, (name, curve) in enumerate(curves.items()):
        colour, sizes = SERIES[index % len(SERIES)], [point["image_size"] for point in curve]
        left.plot(sizes, [p["macs"] / 1e6 for p in curve], color=colour, **_LINE, label=shorten(name))
        if curve and curve[0]["attention_macs"] is not None:
            quadratic = [p["attention_macs"] / 1e6 for p in curve]
            left.plot(sizes, quadratic, color=colour, linewidth=1.2, linestyle=(0, (3, 2)))
        timed = [(p["image_size"], p["milliseconds"]) for p in curve if p["milliseconds"] is not None]
        if timed:
            middle.plot(*zip(*timed, strict=True), color=colour, **_LINE)
        right.plot(sizes, [p["training_bytes"] / 1e6 for p in curve], color=colour, **_LINE)
    for axes, title in ((left, "MACs, millions"), (middle, "one image, ms"), (right, "activations of training, MB")):
        axes.set_title(title, loc="left", fontsize=8.5, color=INK)
        axes.set_xlabel("image size, pixels")
        axes.set_yscale("log")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    page.legend(loc="outside upper left", ncols=4, frameon=False, fontsize=8, labelcolor=INK)
    return png(page)


def learning(rows: Sequence[Entry]) -> bytes:
    """Accuracy with its interval against the number of training images."""
    page = new_figure(5.2, 3.0)
    axes = style(page.subplots())
    for index, name in enumerate(dict.fromkeys(row["name"] for row in rows)):
        own, colour = [row for row in rows if row["name"] == name], SERIES[index % len(SERIES)]
        images = np.array([row["images"] for row in own]) * 1.02**index
        values = [[row["accuracy"][key] for row in own] for key in ("value", "low", "high")]
        axes.fill_between(images, values[1], values[2], color=colour, alpha=0.13, linewidth=0)
        axes.plot(images, values[0], color=colour, **_LINE, label=shorten(name))
    _log(axes, [row["images"] for row in rows])
    axes.set_xlabel("training images")
    axes.set_ylabel("accuracy, 95 % interval")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.legend(frameon=False, fontsize=8, labelcolor=INK, loc="lower right")
    return png(page)


_LINE: dict[str, Any] = {"linewidth": 1.5, "marker": "o", "markersize": 3}


def _cost(entry: Entry, key: str) -> float | None:
    return entry["memory"][key] if key in entry["memory"] else entry[key]


def _front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other beats in both: cheaper first, each more accurate than all cheaper ones."""
    front: list[tuple[float, float]] = []
    for cost, value in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or value > front[-1][1]:
            front.append((cost, value))
    return front


def _log(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis with numbers on it, also where all values lie within one power of ten."""
    axes.set_xscale("log")
    low, high = min(values), max(values)
    axes.set_xlim(low / 1.6, high * 1.6)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 60 * low else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(which="minor", length=0)
    axes.tick_params(axis="x", colors=MUTED, labelcolor=INK)
