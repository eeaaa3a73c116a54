"""The gallery of a report: images that a model got wrong while surest of itself."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from vitreous.config.input import InputSpec
from vitreous.evaluation.facts import Mistake, Neighbour
from vitreous.explanation.draw import display
from vitreous.inputs import ImageSource, open_image
from vitreous.runs.folder import RunFolder

MOST_MISTAKES = 12
GALLERY_SIDE = 224
"""Pixels of the longer side of a picture in the report."""
NEIGHBOURS, NEIGHBOUR_SIDE = 3, 96
"""Training images shown beside a mistake, and the pixels of their longer side."""


@dataclass(frozen=True)
class Answers:
    """What a run says of labelled images, in words."""

    run: RunFolder
    labels: np.ndarray
    """Class numbers (n,), or (n, k), 1 where a label is there."""
    scores: np.ndarray
    """Calibrated, (n, k)."""

    def true(self, row: int) -> str:
        """The label of an image, or all of its labels."""
        return self._named(self._there[row])

    def predicted(self, row: int) -> str:
        """What the run takes it for."""
        return self._named(self.given[row])

    @cached_property
    def right(self) -> np.ndarray:
        """Whether each image is answered rightly, with all of its labels and no other: bool (n,)."""
        return (self.given == self._there).all(axis=1)

    @cached_property
    def wrong(self) -> np.ndarray:
        """Rows of the images that are not answered rightly, those where the model is surest first."""
        rows = np.flatnonzero(~self.right)
        return rows[np.argsort(-self.sureness[rows], kind="stable")]

    @cached_property
    def sureness(self) -> np.ndarray:
        """How sure the model is of each image (n,); where there may be several labels, of the wrong one that it is surest to
        give or not to give."""
        if not self.run.several_labels:
            return self.scores.max(axis=1)
        sure = np.where(self.given, self.scores, 1 - self.scores)
        return (sure * (self.given != self._there)).max(axis=1)

    @cached_property
    def given(self) -> np.ndarray:
        """Which labels are answered, bool (n, k): the likeliest class, or all from their thresholds on."""
        thresholds = self.run.thresholds
        if thresholds is not None:
            return self.scores >= thresholds
        return np.eye(self.scores.shape[1], dtype=bool)[self.scores.argmax(axis=1)]

    @cached_property
    def _there(self) -> np.ndarray:
        return self.labels > 0 if self.labels.ndim == 2 else np.eye(self.scores.shape[1], dtype=bool)[self.labels]

    def _named(self, flags: np.ndarray) -> str:
        return ", ".join(self.run.classes[k] for k in np.flatnonzero(flags)) or "no label"


def mistakes(
    answers: Answers,
    picture: Callable[[int], bytes],
    path: Callable[[int], str],
    resembling: Callable[[int], Sequence[Neighbour]] = lambda row: (),
) -> list[Mistake]:
    """The worst of them. picture, path, resembling: of the image of a row, `resembling` the training images nearest to it."""
    return [
        Mistake(
            image=picture(row),
            true=answers.true(row),
            predicted=answers.predicted(row),
            score=float(answers.sureness[row]),
            path=path(row),
            neighbours=resembling(row),
        )
        for row in answers.wrong[:MOST_MISTAKES].tolist()
    ]


def thumbnail(image: ImageSource, spec: InputSpec, side: int = GALLERY_SIDE) -> bytes:
    """PNG of an image as it is shown to people, its longer side at most `side` pixels."""
    return png(display(open_image(image, target=side, decode=spec.decode), spec), side)


def png(image: Image.Image, side: int = GALLERY_SIDE) -> bytes:
    image = image.convert("RGB")
    if max(image.size) > side:
        image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
