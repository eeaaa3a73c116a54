"""What a report and a model card are written from. Absent facts leave their section out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class DataSummary:
    """The data set, as it was split."""

    source: str
    """Where it came from, as the user named it."""
    counts: Mapping[str, Mapping[str, int]]
    """{part: {class: images}}."""
    groups: Mapping[str, int] = field(default_factory=dict)
    """{part: groups}, where images have groups."""
    sizes: str = ""
    """Sizes of the images, in words."""
    modes: Mapping[str, int] = field(default_factory=dict)
    """{mode: images}, such as {"RGB": 300, "L": 12}."""
    bad_files: Sequence[tuple[str, str]] = ()
    """(path, reason) of files that were left out."""


@dataclass(frozen=True, kw_only=True)
class ModelSummary:
    """The model and where its weights come from."""

    name: str
    parameters: int
    macs: int | None = None
    """Multiply-accumulate operations for one image."""
    image_size: int | None = None
    """Side of the square the model sees, pixels."""
    initial_weights: str = ""
    """Where training started, in words."""
    licence: str = ""
    """Licence of the initial weights."""


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """A training image beside another image."""

    image: bytes
    """PNG or JPEG."""
    label: str


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """An image the model got wrong while sure of itself."""

    image: bytes
    """PNG or JPEG."""
    true: str
    predicted: str
    score: float
    path: str = ""
    neighbours: Sequence[Neighbour] = ()
    """The training images that the model finds most alike, the nearest first."""


@dataclass(frozen=True, kw_only=True)
class HeatMap:
    """An example of what the model looks at."""

    image: bytes
    """The image as the model sees it, PNG or JPEG."""
    overlay: bytes
    """The same with the heat map over it."""
    true: str
    predicted: str
    score: float
    method: str
    path: str = ""


@dataclass(frozen=True, kw_only=True)
class ReportFacts:
    """Everything a report says. Only a title and the metrics are needed."""

    title: str
    metrics: Mapping[str, Any]
    """The content of `metrics.json` (see `vitreous.evaluation.evaluate.metrics_document`)."""
    headline_part: str = "test"
    """The part whose accuracy heads the report; the first of the metrics where there is no such part."""
    chosen_on: Sequence[str] = ("val",)
    """Parts that training or a choice has seen: their numbers are marked "used for choosing"."""
    warnings: Sequence[str] = ()
    """Sentences that a reader must not miss: leaks, bad files, a test part scored often."""
    data: DataSummary | None = None
    model: ModelSummary | None = None
    decisions: Sequence[str] = ()
    """What was chosen automatically and why, a sentence each."""
    abstention: Mapping[str, Any] | None = None
    """`Abstention.to_dict()`."""
    several_labels: bool = False
    """Whether an image may have several labels or none."""
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    """PNG by name, as `vitreous.evaluation.plots.draw_pictures` makes them for the headline part."""
    mistakes: Sequence[Mistake] = ()
    heat_maps: Sequence[HeatMap] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    """Versions and hardware, {name: value}."""
    command: str = ""
    """What reproduces the run."""
    next_commands: Sequence[tuple[str, str]] = ()
    """(command, what it is for)."""
    kept_in: str = "metrics.json, predictions.parquet, run.json"
    """Where programs find the same facts."""

    @property
    def parts(self) -> list[str]:
        """The parts that have metrics, the headline's first."""
        found = list(self.metrics["per_class"])
        return sorted(found, key=lambda part: part != self.headline_part)

    @property
    def headline(self) -> Mapping[str, Any]:
        """The accuracy of the headline part: {"value", "low", "high", "n", "method"}."""
        return self.metrics[self.parts[0]]["accuracy"]

    def confused_pairs(self, most: int = 10) -> list[tuple[str, str, int, int]]:
        """(label, prediction, images, images with that label) of the commonest mistakes in the headline part."""
        part = self.parts[0]
        classes, matrix = list(self.metrics["per_class"][part]), self.metrics["confusion"][part]
        pairs = [
            (classes[row], classes[column], count, sum(counts))
            for row, counts in enumerate(matrix)
            for column, count in enumerate(counts)
            if count and row != column
        ]
        return sorted(pairs, key=lambda pair: -pair[2])[:most]
