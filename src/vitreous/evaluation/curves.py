"""Curves of accuracy as PNG bytes: against how much worse images get, and against how many labels there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator, PercentFormatter

from vitreous.evaluation.figure import ACCENT, INK, MUTED, SECOND, SERIES, new_figure, png, single_axes, style

WIDE = 7.2


def robustness(found: Mapping[str, Any]) -> bytes:
    """A panel for each kind of corruption: accuracy with its interval by severity, 0 being the images as they are.

    found: as `workflows.robustness` gives it.
    """
    kinds = list(dict.fromkeys(row["kind"] for row in found["corruptions"].values()))
    page = new_figure(WIDE, 2.4 * -(-len(kinds) // 3))
    panels = page.subplots(-(-len(kinds) // 3), min(3, len(kinds)), sharex=True, sharey=True, squeeze=False).ravel()
    for axes, kind in zip(panels, kinds, strict=False):
        style(axes)
        own = {name: row for name, row in found["corruptions"].items() if row["kind"] == kind}
        for index, (name, row) in enumerate(own.items()):
            points = [found["clean"], *row["severities"]]
            places, colour = range(len(points)), SERIES[index % len(SERIES)]
            if points[0]["low"] is not None:
                low, high = ([each[bound] for each in points] for bound in ("low", "high"))
                axes.fill_between(places, low, high, color=colour, alpha=0.1, linewidth=0)
            axes.plot(
                places,
                [each["value"] for each in points],
                color=colour,
                linewidth=1.4,
                marker="o",
                markersize=2.5,
                label=name,
            )
        axes.axhline(found["clean"]["value"], color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.set_title(kind, loc="left", fontsize=8.5, color=INK)
        axes.set_ylim(0, 1.02)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.legend(frameon=False, fontsize=7, labelcolor=INK, loc="lower left", handlelength=1.4)
    for axes in panels[len(kinds) :]:
        axes.set_visible(False)
    page.supxlabel("severity", fontsize=8.5, color=MUTED)
    return png(page)


def learning(found: Mapping[str, Any]) -> bytes:
    """Accuracy with its interval against the number of labelled images, and the curve carried on beyond them.

    found: as `evaluation.learning.learning_curve` gives it.
    """
    page = new_figure(5.2, 3.0)
    axes = single_axes(page)
    points, further = found["points"], [found["points"][-1], *found["further"]]
    for rows, colour, pattern, name in (
        (points, ACCENT, "-", "measured"),
        (further, SECOND, (0, (4, 3)), "foretold"),
    ):
        images = [row["images"] for row in rows]
        values = [row["accuracy"] for row in rows]
        if values[0]["low"] is not None:
            low, high = ([each[bound] for each in values] for bound in ("low", "high"))
            axes.fill_between(images, low, high, color=colour, alpha=0.12, linewidth=0)
        line = [each["value"] for each in values]
        axes.plot(images, line, color=colour, linewidth=1.5, linestyle=pattern, marker="o", markersize=3, label=name)
    ticks = [row["images"] for row in [*points, *found["further"]]]
    axes.set_xscale("log")
    # Every other number where they stand close.
    axes.xaxis.set_major_locator(FixedLocator(ticks[(len(ticks) - 1) % 2 :: 2] if len(ticks) > 6 else ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("labelled training images")
    axes.set_ylabel(f"{found['measure'].replace('_', ' ')}, 95 % interval")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.legend(frameon=False, fontsize=8, labelcolor=INK, loc="upper left")
    return png(page)
