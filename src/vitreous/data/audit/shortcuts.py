"""Can the class be told without looking at what the image shows? Probes that see only a part, and what to think of it.

    border      the outermost ring, against a ring of the same width further in
    tiny        8 x 8 pixels: colours and coarse layout
    metadata    size in pixels, format, camera, hour
    file size   bytes, after what size, contrast and sharpness explain

All are held against the same quick probe on the whole thumbnail, on the same images and folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vitreous.data.audit.features import VISUAL_BLOCKS, border_features, ring_features, tiny_features, visual_features
from vitreous.data.audit.metadata import Column, column_features, file_size_columns, metadata_columns, number_column
from vitreous.data.audit.probe import Progress, assign_folds, out_of_fold
from vitreous.data.audit.recall import Score, balanced_accuracy, column_predictions
from vitreous.data.examination.finding import THUMBNAIL, Finding
from vitreous.errors import DataError

MOST_IMAGES = 10_000
"""Images the probes look at; of larger sets, units drawn by seed."""

COMPONENTS = 512
FEWEST = 10
"""Images a class needs to take part."""

INSET = 6
"""Where the ring for comparison lies, in thumbnail pixels from the edge: beyond corner marks and frames."""

MARGIN = 0.10
"""Share of the way from chance to perfect above which a probe has found something worth a warning."""

NEARLY = 0.95
"""Share of the way from chance to the whole image that counts as nearly as good."""

SIZE_MARGIN, BEYOND_MARGIN = 0.5, 0.25
"""The same for file size, whose explanation by contrast and sharpness is rough (0.38 was met where nothing was wrong): by
itself, and where it tells more than the picture does."""

EASY = 0.9
"""Share of the way from chance to perfect above which an 8 x 8 thumbnail is suspiciously enough."""


@dataclass(frozen=True, kw_only=True)
class ShortcutProbe:
    """How well one part of the evidence predicts the class."""

    name: str
    """border, tiny, metadata or file size."""
    what: str
    """What the probe saw, as the subject of a sentence."""
    balanced_accuracy: float
    """Mean over the classes of the share recognised, in [0, 1]."""
    low: float
    """95 % interval, over units."""
    high: float
    chance: float
    """One over the number of classes."""
    baseline: float
    """Balanced accuracy of the same probe on the whole thumbnail."""
    images: int
    """Images it was measured on."""
    verdict: str
    """One to three sentences: the number, and when to worry."""
    suspicious: bool


def probe_shortcuts(
    thumbnails: np.ndarray,
    findings: Sequence[Finding],
    labels: np.ndarray,
    classes: Sequence[str],
    units: np.ndarray,
    *,
    seed: int,
    progress: Progress | None = None,
) -> list[ShortcutProbe]:
    """Probe border, 8 x 8 thumbnail, metadata and file size.

    thumbnails: uint8 (n, 32, 32, 3)
    labels:     int (n,); images with a negative label take no part, nor do classes of fewer than FEWEST images
    units:      int (n,); images of one unit are in one fold

    Raises DataError where fewer than two classes have enough images, or the images form fewer than three units.
    """
    labels, units = np.asarray(labels, np.int64), np.asarray(units)
    rows = _choose(labels, units, seed)
    present, codes = np.unique(labels[rows], return_inverse=True)
    names = [str(classes[index]) for index in present]
    known = [findings[index] for index in rows]
    pictures, report = thumbnails[rows], progress or (lambda *_: None)
    trial = _Trial(codes, units[rows], names, known, seed)
    report(0, 6)
    whole = trial.score(visual_features(pictures), VISUAL_BLOCKS)
    report(1, 6)
    border = trial.score(border_features(pictures))
    report(2, 6)
    inner = trial.score(ring_features(pictures, INSET))
    report(3, 6)
    tiny = trial.score(tiny_features(pictures))
    report(4, 6)
    result = [_judge_border(trial, border, inner, whole), _judge_tiny(trial, tiny, whole)]
    result.append(_judge_metadata(trial, whole))
    report(5, 6)
    result.append(_judge_file_size(trial, whole))
    report(6, 6)
    return result


@dataclass(frozen=True)
class _Trial:
    """The images that every probe is tried on."""

    labels: np.ndarray
    units: np.ndarray
    classes: list[str]
    findings: list[Finding]
    seed: int

    @property
    def chance(self) -> float:
        return 1 / len(self.classes)

    def score(self, features: np.ndarray, blocks: Sequence[int] = ()) -> Score:
        """Balanced accuracy of a Gaussian probe."""
        probabilities = out_of_fold(
            features, self.labels, self.units, len(self.classes), seed=self.seed,
            blocks=blocks, components=COMPONENTS, balanced=True,
        )  # fmt: skip
        return self.judge(probabilities.argmax(1))

    def score_columns(self, columns: Sequence[Column]) -> Score:
        """Of a linear probe of all levels together."""
        features = column_features(columns, len(self.labels))
        probabilities = out_of_fold(
            features, self.labels, self.units, len(self.classes), seed=self.seed, kernel="linear", balanced=True
        )
        return self.judge(probabilities.argmax(1))

    def score_column(self, column: Column) -> Score:
        """Of the class that each level speaks for."""
        folds = assign_folds(self.labels, self.units, 5, self.seed)
        return self.judge(column_predictions(column.codes, self.labels, folds, len(self.classes)))

    def judge(self, predicted: np.ndarray) -> Score:
        return balanced_accuracy(predicted, self.labels, self.units, len(self.classes), self.seed)

    def above(self, value: float) -> float:
        """Share of the way from chance to perfect."""
        return (value - self.chance) / (1 - self.chance)

    def report(self, name: str, what: str, score: Score, whole: Score, verdict: str, suspicious: bool) -> ShortcutProbe:
        return ShortcutProbe(
            name=name, what=what, balanced_accuracy=score.value, low=score.low, high=score.high, chance=self.chance,
            baseline=whole.value, images=len(self.labels), verdict=verdict, suspicious=suspicious,
        )  # fmt: skip


def _judge_border(trial: _Trial, border: Score, inner: Score, whole: Score) -> ShortcutProbe:
    """A border that tells more than a ring of the same width further in bears marks; one that tells the same shows the
    scene going on, as in textures, or a background that differs between the classes.
    """
    what = "the outermost sixteenth of each side"
    fact = (
        f"The border alone tells the class in {_percent(border, trial)}, the whole image in {whole.value:.0%}, "
        f"a ring further in {inner.value:.0%}."
    )
    clear = trial.above(border.low) > MARGIN
    marked = clear and trial.above(border.low) - trial.above(inner.high) > MARGIN / 2
    enough = clear and border.value - trial.chance >= NEARLY * (whole.value - trial.chance)
    if marked:
        advice = (
            "Marks, frames or black edges differ between the classes: crop them away, or mask them, before training."
        )
    elif enough:
        advice = (
            "It does as well as the whole: where the scene fills the picture that is its texture, but where the subject "
            "is in the middle, the classes have different backgrounds."
        )
    elif clear:
        advice = "It tells no more than the rest of the picture does: no sign of marks or frames."
    else:
        advice = "No sign of a shortcut."
    return trial.report("border", what, border, whole, f"{fact} {advice}", marked or enough)


def _judge_tiny(trial: _Trial, tiny: Score, whole: Score) -> ShortcutProbe:
    side = float(np.median([min(finding.width, finding.height) for finding in trial.findings]))
    fact = (
        f"Shrunk to 8 x 8 pixels the image tells the class in {_percent(tiny, trial)}, at 32 x 32 in {whole.value:.0%}."
    )
    # Where the images themselves are hardly larger, eight pixels are what they show.
    easy = side >= THUMBNAIL and trial.above(tiny.low) > EASY
    if easy:
        advice = "Colour, light or coarse layout are enough: make sure that they are what the classes differ in."
    elif trial.above(tiny.low) > MARGIN:
        advice = "Part of the class lies in colour, light and coarse layout; expect a model to use it."
    else:
        advice = "No sign of a shortcut."
    return trial.report("tiny", "8 x 8 pixels of the whole image", tiny, whole, f"{fact} {advice}", easy)


def _judge_metadata(trial: _Trial, whole: Score) -> ShortcutProbe:
    what = "size in pixels, format, camera and hour, without any pixel"
    columns = metadata_columns(trial.findings)
    score = trial.score_columns(columns)
    single = [(column, trial.score_column(column)) for column in columns]
    best = max(single, key=lambda pair: pair[1].low, default=None)
    if best is not None and best[1].low > score.low:
        score = best[1]
    fact = f"What the files are like, without any pixel, tells the class in {_percent(score, trial)}."
    suspicious = trial.above(score.low) > MARGIN
    if not columns:
        fact, advice = "All files are alike in size, format and origin.", "No sign of a shortcut."
    elif suspicious and best is not None:
        advice = (
            f"{best[0].name[0].upper()}{best[0].name[1:]} alone: {best[1].value:.0%}{_example(best[0], trial)}. Unless "
            "that is in the nature of the classes, they were collected or saved differently: bring all images to one "
            "size and format, or collect anew."
        )
    else:
        advice = "No sign of a shortcut."
    return trial.report("metadata", what, score, whole, f"{fact} {advice}", suspicious)


def _judge_file_size(trial: _Trial, whole: Score) -> ShortcutProbe:
    """Busy pictures make large files whatever the class, so the warning rests on what busyness does not explain."""
    columns = file_size_columns(trial.findings)
    score = trial.score_columns(columns)
    rest = trial.score_column(number_column("unexplained", _unexplained(trial)))
    fact = (
        f"The size of the file tells the class in {_percent(score, trial)}; beyond what size in pixels, contrast and "
        f"sharpness explain, in {rest.value:.0%}."
    )
    more = rest.low > whole.high and trial.above(rest.low) > BEYOND_MARGIN
    suspicious = more or trial.above(rest.low) > SIZE_MARGIN
    advice = "No sign of a shortcut."
    if suspicious:
        advice = "The classes seem to be saved at different qualities: save all images alike, from the originals."
    elif trial.above(rest.low) > MARGIN:
        advice = "The rest may be fine texture or noise, or different saving; if in doubt, save all images alike and compare."
    elif trial.above(score.low) > MARGIN:
        advice = "Busy pictures make large files: no sign of different saving."
    return trial.report("file size", "how many bytes the file takes", score, whole, f"{fact} {advice}", suspicious)


def _unexplained(trial: _Trial) -> np.ndarray:
    """Logarithm of bytes a pixel less what size, contrast and sharpness predict, by slopes within the classes: float (n,).

    Slopes within the classes leave a difference between the classes in what is returned, which slopes over all images
    would take for the effect of busyness.
    """
    found = trial.findings
    pixels = np.asarray([finding.width * finding.height for finding in found], np.float64)
    size = np.log(np.maximum(1, [finding.bytes for finding in found]) / np.maximum(1, pixels))
    contrast = np.log(np.asarray([finding.contrast for finding in found]) + 1e-3)
    sharpness = np.log(np.asarray([finding.sharpness for finding in found]) + 1e-6)
    causes = np.stack([np.log(np.maximum(1, pixels)), contrast, sharpness, contrast * sharpness, sharpness**2], 1)
    both = np.column_stack([causes, size])
    counts = np.bincount(trial.labels)[:, None]
    sums = np.zeros((len(counts), both.shape[1]))
    np.add.at(sums, trial.labels, both)
    within = both - (sums / counts)[trial.labels]
    slopes = np.linalg.lstsq(within[:, :-1], within[:, -1], rcond=None)[0]
    return size - causes @ slopes


def _choose(labels: np.ndarray, units: np.ndarray, seed: int) -> np.ndarray:
    """Positions of the images to look at, in order: whole units, drawn by seed, of classes that have enough images."""
    counts = np.bincount(labels[labels >= 0], minlength=1)
    enough = np.flatnonzero(counts >= FEWEST)
    if len(enough) < 2:
        raise DataError(
            f"Shortcuts are looked for where two classes have {FEWEST} images or more; {len(enough)} has.",
            "Pass more images.",
        )
    rows = np.flatnonzero(np.isin(labels, enough))
    _, unit_of = np.unique(units[rows], return_inverse=True)
    order = np.random.default_rng([seed, 4]).permutation(int(unit_of.max()) + 1)
    sizes = np.bincount(unit_of)[order]
    taken = np.zeros(len(order), bool)
    taken[order[: max(3, int(np.searchsorted(np.cumsum(sizes), MOST_IMAGES, "right")))]] = True
    return rows[taken[unit_of.ravel()]]


def _percent(score: Score, trial: _Trial) -> str:
    return f"{score.value:.0%} of images (95 % interval {score.low:.0%} to {score.high:.0%}, chance {trial.chance:.0%})"


def _example(column: Column, trial: _Trial) -> str:
    """The class that one level marks most clearly, as ", every 'a' is PNG and nothing else is"; or empty."""
    counts = np.zeros((len(column.levels), len(trial.classes)))
    np.add.at(counts, (column.codes, trial.labels), 1)
    recall = counts / np.maximum(1, counts.sum(0))
    precision = counts / np.maximum(1, counts.sum(1, keepdims=True))
    level, label = divmod(int((recall * precision).argmax()), len(trial.classes))
    if recall[level, label] * precision[level, label] < 0.5:
        return ""
    return (
        f" ({column.levels[level]}: {recall[level, label]:.0%} of {trial.classes[label]!r}, "
        f"{_others(counts, level, label):.0%} of the rest)"
    )


def _others(counts: np.ndarray, level: int, label: int) -> float:
    rest = np.delete(counts, label, axis=1)
    return float(rest[level].sum() / max(1, rest.sum()))
