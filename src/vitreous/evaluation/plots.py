"""Figures of an evaluation as PNG bytes, in the style of `figure`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from vitreous.evaluation import curves
from vitreous.evaluation.figure import (
    ACCENT,
    GRID,
    INK,
    MUTED,
    PAPER,
    PIXELS_PER_INCH,
    SECOND,
    new_figure,
    png,
    shorten,
    single_axes,
    style,
)  # fmt: skip

MOST_CLASSES = 50
"""Larger confusion matrices and recall charts show the classes with most mistakes."""


def draw_pictures(document: Mapping[str, Any], history: Sequence[Mapping[str, Any]], part: str) -> dict[str, bytes]:
    """Every figure of a report about one part of `metrics.json`, by name: "recall", "reliability", "confusion" and
    "coverage_risk" where images have one label each, "robustness" and "learning" where they were asked for, and "curves"
    where there is a history."""
    per_class = document["per_class"][part]
    pictures = {"recall": class_recall(per_class), "reliability": reliability(document["calibration"][part])}
    if document["confusion"][part]:
        pictures["confusion"] = confusion(document["confusion"][part], list(per_class))
    if document["risk_coverage"][part]:
        threshold = document.get("abstention", {}).get("threshold")
        pictures["coverage_risk"] = coverage_risk(document["risk_coverage"][part], threshold)
    for name, draw in (("robustness", curves.robustness), ("learning", curves.learning)):
        if part in document.get(name, {}):
            pictures[name] = draw(document[name][part])
    return {**pictures, "curves": training_curves(history)} if history else pictures


def confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> bytes:
    """Rows are labels, columns predictions. Right answers in one colour, mistakes in the other, by share of the row."""
    counts = np.asarray(matrix)
    kept = _most_mistaken(counts)
    counts, names = counts[np.ix_(kept, kept)], [shorten(classes[int(index)]) for index in kept]
    size = len(kept)
    shares = counts / np.maximum(np.asarray(matrix)[kept].sum(axis=1, keepdims=True), 1)
    cell = float(np.clip(5.2 / size, 0.155, 0.62 if size > 4 else 0.95))
    margin = 0.075 * max(map(len, names)) + 0.5
    figure = new_figure(cell * size + margin, cell * size + margin)
    axes = single_axes(figure, grid=False)
    axes.imshow(_tint(shares), aspect="equal", interpolation="nearest")
    font = 8 if cell > 0.3 else 7 if cell > 0.2 else 6
    upright = cell * PIXELS_PER_INCH < 6.2 * max(map(len, names))
    axes.set_xticks(range(size), names, rotation=90 if upright else 0, fontsize=font, parse_math=False)
    axes.set_yticks(range(size), names, fontsize=font, parse_math=False)
    axes.set_xticks(np.arange(size + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(size + 1) - 0.5, minor=True)
    axes.grid(which="minor", color=GRID, linewidth=0.6)
    axes.tick_params(which="both", length=0)
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    axes.spines[:].set_visible(False)
    if size <= 25:
        for row, column in zip(*np.nonzero(counts), strict=True):
            strong = shares[row, column] > 0.45
            colour = PAPER if strong else INK
            axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", color=colour, fontsize=font)
    return png(figure)


def reliability(calibration: Mapping[str, Any]) -> bytes:
    """Share that is right against score, in bins, before and after temperature scaling; below, how many images."""
    figure = new_figure(7.2, 3.9)
    grid = figure.subplots(2, 2, height_ratios=[4, 1], sharex=True, sharey="row")
    for column, (when, colour) in enumerate((("before", SECOND), ("after", ACCENT))):
        bins = [found for found in calibration[f"bins_{when}"] if found["count"]]
        top, bottom = style(grid[0, column]), style(grid[1, column], grid=False)
        confidence = [found["confidence"] for found in bins]
        accuracy = [found["accuracy"] for found in bins]
        total = sum(found["count"] for found in bins)
        top.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
        bounds = np.array([[found["accuracy_low"], found["accuracy_high"]] for found in bins])
        top.vlines(confidence, bounds[:, 0], bounds[:, 1], color=colour, linewidth=1.2, alpha=0.5)
        areas = [14 + 130 * found["count"] / total for found in bins]
        top.scatter(confidence, accuracy, s=areas, color=colour, linewidths=0, zorder=3)
        heading = f"{when} scaling" if when == "before" else f"after, temperature {calibration['temperature']:.2f}"
        top.set_title(
            f"{heading}: calibration error {calibration[f'ece_{when}']:.1%}", loc="left", fontsize=8.5, color=INK
        )
        top.set_xlim(0, 1.02)
        top.set_ylim(0, 1.05)
        middles = [(found["low"] + found["high"]) / 2 for found in bins]
        width = 0.86 * (bins[0]["high"] - bins[0]["low"])
        bottom.bar(middles, [found["count"] for found in bins], width=width, color=colour, alpha=0.75)
        bottom.yaxis.set_major_locator(MaxNLocator(2, integer=True))
        bottom.set_xlabel("score of the likeliest class")
        for axes in (top, bottom):
            axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        top.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    grid[0, 0].set_ylabel("share that is right")
    grid[1, 0].set_ylabel("images")
    return png(figure)


def training_curves(history: Sequence[Mapping[str, Any]]) -> bytes:
    """Loss, validation accuracy and learning rate by step. history: rows of `history.jsonl`; any key but `step` may be
    absent from a row."""
    figure = new_figure(7.2, 2.5)
    loss, accuracy, rate = (style(axes) for axes in figure.subplots(1, 3))
    _line(loss, history, "loss", SECOND, "training")
    _line(loss, history, "val_loss", ACCENT, "validation")
    _line(accuracy, history, "val_accuracy", ACCENT, "validation")
    _line(rate, history, "lr", MUTED, "learning rate")
    if len(loss.lines) > 1:
        loss.legend(frameon=False, fontsize=7.5, labelcolor=INK)
    accuracy.yaxis.set_major_formatter(PercentFormatter(1))
    rate.yaxis.set_major_locator(MaxNLocator(4))
    rate.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    for axes, title in ((loss, "loss"), (accuracy, "validation accuracy"), (rate, "learning rate")):
        axes.set_title(title, loc="left", fontsize=8.5, color=INK)
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    return png(figure)


def coverage_risk(curve: Mapping[str, Sequence[float]], threshold: float | None = None) -> bytes:
    """Error rate among answered images against the share answered; a dot where the run's threshold lies."""
    figure = new_figure(5.2, 2.9)
    axes = single_axes(figure)
    coverage, risk = np.asarray(curve["coverage"]), np.asarray(curve["risk"])
    axes.plot(coverage, risk, color=ACCENT, linewidth=1.6)
    axes.fill_between(coverage, risk, color=ACCENT, alpha=0.12, linewidth=0)
    if threshold:
        nearest = min(int(np.searchsorted(curve["threshold"], threshold)), len(coverage) - 1)
        axes.scatter(coverage[nearest], risk[nearest], s=38, color=SECOND, zorder=3)
        axes.annotate(
            f"threshold {threshold:.2f}",
            (coverage[nearest], risk[nearest]),
            textcoords="offset points",
            xytext=(-8, 8),
            ha="right",
            color=SECOND,
            fontsize=8,
        )
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, max(0.01, float(risk.max()) * 1.25))
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel("share of images answered")
    axes.set_ylabel("error rate among them")
    return png(figure)


def class_recall(per_class: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Recall of each class with its interval, the best on top. Classes without images are left out."""
    rows = [(name, facts["recall_interval"]) for name, facts in per_class.items() if facts["recall_interval"]]
    rows = sorted(rows, key=lambda row: row[1]["value"])[:MOST_CLASSES]
    figure = new_figure(7.2, 0.75 + 0.21 * max(len(rows), 3))
    axes = single_axes(figure)
    places = np.arange(len(rows))
    axes.hlines(
        places, [found["low"] for _, found in rows], [found["high"] for _, found in rows], color=ACCENT,
        linewidth=2.2, alpha=0.4,
    )  # fmt: skip
    axes.scatter([found["value"] for _, found in rows], places, s=24, color=ACCENT, linewidths=0, zorder=3)
    axes.set_yticks(places, [shorten(name) for name, _ in rows], fontsize=8, parse_math=False)
    axes.set_ylim(-0.8, len(rows) - 0.2)
    axes.set_xlim(max(0.0, min((found["low"] for _, found in rows), default=0.0) - 0.05), 1.01)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("recall, with 95 % interval")
    return png(figure)


def _most_mistaken(counts: np.ndarray) -> np.ndarray:
    """Indices of the classes to show, in their own order."""
    right = np.diag(counts)
    mistakes = counts.sum(axis=1) + counts.sum(axis=0) - 2 * right
    return np.sort(np.argsort(-mistakes, kind="stable")[:MOST_CLASSES])


def _tint(shares: np.ndarray) -> np.ndarray:
    """Shares (k, k) to colours (k, k, 3). The root makes a rare mistake visible."""
    paper, right, wrong = (np.array(to_rgb(name)) for name in (PAPER, ACCENT, SECOND))
    strength = np.sqrt(shares)[..., None]
    strongest = np.where(np.eye(len(shares), dtype=bool)[..., None], right, wrong)
    return paper + (strongest - paper) * strength


def _line(axes: Axes, history: Sequence[Mapping[str, Any]], key: str, colour: str, label: str) -> None:
    points = [(row["step"], row[key]) for row in history if row.get(key) is not None]
    if points:
        marker = "o" if len(points) <= 30 else None
        axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.4, label=label, marker=marker, markersize=2.8)
