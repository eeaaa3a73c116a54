"""How every figure looks: colours, sizes, axes; PNG bytes on white, which a dark page inverts with a CSS filter.

Built on matplotlib's Figure objects, never on pyplot, so nothing global changes and threads do not meet. Names of classes and
models are shown as written: `$` starts no formula.
"""

from __future__ import annotations

import io
import warnings

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

SCALE = 2
"""Device pixels in a pixel of the page."""
PIXELS_PER_INCH = 100
LONGEST_NAME = 26

PAPER = "#ffffff"
INK = "#22262b"
MUTED = "#6a7078"
GRID = "#e4e6e9"
ACCENT = "#2b6591"
"""What is right, what is after, what is validation."""
SECOND = "#c25a3c"
"""What is wrong, what is before, what is training."""
SERIES = (ACCENT, SECOND, "#5b8c3e", "#8a5a9e", "#b08a1e", "#3f9a9a", "#a34a6f", "#6a7078")
"""One colour for each of several models, in turn."""


def new_figure(width: float, height: float) -> Figure:
    """width, height: in hundreds of page pixels."""
    layout = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06)
    made = Figure(figsize=(width, height), dpi=PIXELS_PER_INCH * SCALE, layout=layout, facecolor=PAPER)
    FigureCanvasAgg(made)
    return made


def single_axes(page: Figure, grid: bool = True) -> Axes:
    return style(page.subplots(), grid)


def style(axes: Axes, grid: bool = True) -> Axes:
    axes.set_facecolor(PAPER)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(colors=MUTED, labelcolor=INK, labelsize=8, length=3, width=0.6)
    for text in (axes.xaxis.label, axes.yaxis.label):
        text.set_color(MUTED)
        text.set_fontsize(8.5)
    if grid:
        axes.grid(color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
    return axes


def shorten(name: str) -> str:
    """A long name keeps its beginning and its end, where names tend to differ."""
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME - 9]}…{name[-8:]}"


def png(page: Figure) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A class name in a script that the bundled font lacks is drawn as boxes; no reason to stop.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        page.savefig(buffer, format="png")
    return buffer.getvalue()
