"""Cost against image size as a PNG, in the style of the evaluation's figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from vitreous.evaluation.figure import ACCENT, INK, MUTED, SECOND, new_figure, png, style


def curve_picture(name: str, curve: Sequence[Mapping[str, Any]]) -> bytes:
    """Left: multiply-accumulates, attention's quadratic part apart from the rest. Right: activation memory of one image."""
    figure = new_figure(7.2, 2.9)
    left, right = (style(axes) for axes in figure.subplots(1, 2))
    sizes = [point["image_size"] for point in curve]
    total = [point["macs"] / 1e9 for point in curve]
    if curve[0]["attention_macs"] is None:
        left.fill_between(sizes, total, color=ACCENT, alpha=0.25, linewidth=0)
    else:
        rest = [(point["macs"] - point["attention_macs"]) / 1e9 for point in curve]
        left.fill_between(sizes, rest, color=ACCENT, alpha=0.25, linewidth=0, label="linear in the tokens")
        left.fill_between(sizes, rest, total, color=SECOND, alpha=0.45, linewidth=0, label="quadratic: attention")
        left.legend(frameon=False, fontsize=7.5, labelcolor=INK, loc="upper left")
    left.plot(sizes, total, color=INK, linewidth=1.2, marker="o", markersize=2.8)
    left.set_title(f"{name}: GMACs", loc="left", fontsize=8.5, color=INK, parse_math=False)
    _line(right, sizes, [point["training_bytes"] / 1e6 for point in curve], ACCENT, "training")
    _line(right, sizes, [point["inference_bytes"] / 1e6 for point in curve], MUTED, "inference")
    if curve[0]["scores_bytes"] is not None:
        scores = [point["scores_bytes"] / 1e6 for point in curve]
        _line(right, sizes, scores, SECOND, "attention scores of all layers", dashed=True)
    right.set_yscale("log")
    right.set_title("activation memory of one image, MB", loc="left", fontsize=8.5, color=INK)
    right.legend(frameon=False, fontsize=7.5, labelcolor=INK)
    for axes in (left, right):
        axes.set_xlabel("image size, pixels")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    left.set_ylim(bottom=0)
    return png(figure)


def _line(
    axes: Axes, sizes: Sequence[int], values: Sequence[float], colour: str, label: str, dashed: bool = False
) -> None:
    style = (0, (4, 3)) if dashed else "-"
    axes.plot(sizes, values, color=colour, linewidth=1.4, linestyle=style, marker="o", markersize=2.8, label=label)
