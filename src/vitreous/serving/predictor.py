"""A finished run, ready to answer: images in, predictions out. No HTTP and no torch here.

The same object stands behind the server, batch prediction and any script, so that all of them give one answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from vitreous.config.input import InputSpec
from vitreous.engines import Engine, load_engine
from vitreous.errors import UsageError, VitreousError
from vitreous.inputs import ImageSource, Raster, normalise, open_image, prepare
from vitreous.inputs.decode import FILE_FORMATS, MAX_PIXELS
from vitreous.inputs.looks import looks
from vitreous.runs import Prediction, RunFolder, decide

if TYPE_CHECKING:
    from vitreous.explanation import Explainer, Explanation


@dataclass(frozen=True)
class Predictor:
    """One run folder and the engine that executes it. Safe to call from one thread at a time, decoding from any."""

    run: RunFolder
    engine: Engine
    point: tuple[int, float] | None = None
    """The class that is looked for and its threshold; None to name the likeliest class."""

    @classmethod
    def load(
        cls, run: str | Path | RunFolder, engine: str = "auto", threads: int | None = None, point: str | None = None
    ) -> Predictor:
        """Open a run folder and start an engine for it.

        engine: auto, packed, packed-bf16, eager or onnxruntime. threads: cores inside one forward pass; all this process may use when None.
        point: an operating point of the run, such as "pneumonia:recall". Raises RunError for a folder that cannot be used,
        UsageError for an unknown engine or point, MissingExtraError.
        """
        folder = run if isinstance(run, RunFolder) else RunFolder.open(run)
        folder.require_classes()
        chosen = None if point is None else folder.point(point)
        return cls(folder, load_engine(folder, engine, threads), chosen)

    @property
    def spec(self) -> InputSpec:
        """The preprocessing contract of the model."""
        return self.run.spec

    @property
    def classes(self) -> list[str]:
        """Class names in the order of the model's outputs."""
        return self.run.classes

    def decode(
        self, source: ImageSource, *, formats: tuple[str, ...] = FILE_FORMATS, max_pixels: int = MAX_PIXELS
    ) -> np.ndarray:
        """One image as the model takes it: float32 (c, h, w). Raises the ImageErrors of `inputs.open_image`."""
        return prepare(source, self.spec, formats=formats, max_pixels=max_pixels)

    def open(
        self, source: ImageSource, *, formats: tuple[str, ...] = FILE_FORMATS, max_pixels: int = MAX_PIXELS
    ) -> Image.Image | Raster:
        """The decoded picture that `decode` would go on to prepare; what `explain` should be given by a server.

        With all its bands: the model's are chosen when it is prepared.
        """
        every_band = replace(self.spec.decode, bands=())
        return open_image(source, formats=formats, max_pixels=max_pixels, target=self.spec, decode=every_band)

    def predict_arrays(
        self, batch: np.ndarray, top: int = 5, paths: Sequence[str | None] | None = None
    ) -> list[Prediction]:
        """Prepared images (b, c, h, w) to one prediction each.

        Raises UsageError for `top` below 1, VitreousError where the model's outputs have the wrong shape or are not
        finite: no such number is ever passed on.
        """
        check_top(top)
        outputs = self.engine.predict(batch)
        if outputs.logits.shape != (len(batch), len(self.classes)):
            raise VitreousError(
                f"The model gave outputs of shape {outputs.logits.shape} for {len(batch)} images and "
                f"{len(self.classes)} classes."
            )
        if not np.isfinite(outputs.logits).all():
            raise VitreousError("The model gave outputs that are not finite numbers.")
        strangeness = self.run.strangeness
        strange = np.zeros(len(batch))
        if strangeness is not None:
            strange = strangeness.strange(outputs.features, outputs.logits, looks(batch, self.spec))
        return decide(
            self.run.scores(outputs.logits),
            strange,
            self.classes,
            self.run.abstain_below,
            top=top,
            paths=paths,
            thresholds=self.run.thresholds,
            point=self.point,
            set_from=self.run.set_from,
        )

    def predict(self, sources: Iterable[ImageSource], top: int = 5, batch_size: int = 32) -> list[Prediction]:
        """Paths, encoded bytes, Pillow images or arrays to one prediction each, in their order.

        Only `batch_size` decoded images are held at a time. Raises the ImageError of the first that cannot be used,
        UsageError for `top` below 1.
        """
        check_top(top)
        if isinstance(sources, str | Path | bytes | bytearray | Image.Image):
            sources = [sources]
        answers: list[Prediction] = []
        for chunk in _chunks(sources, batch_size):
            paths = [str(source) if isinstance(source, str | Path) else None for source in chunk]
            batch = np.stack([self.decode(source) for source in chunk])
            answers += self.predict_arrays(batch, top, paths)
        return answers

    def explain(
        self,
        source: ImageSource,
        method: str = "auto",
        target: str | int | None = None,
        *,
        faithfulness: bool = False,
    ) -> Explanation:
        """Which parts of the image speak for a class (the likeliest when `target` is None).

        "auto" takes relevance for a ViT where torch is installed, whatever the engine; else occlusion, which needs no
        torch.
        Raises UsageError for an unknown method or class, MissingExtraError where a gradient method lacks torch.
        """
        return self._explainer.explain(source, method=method, target=target, faithfulness=faithfulness)

    def explain_methods(self) -> tuple[str, ...]:
        """Names that `explain` takes besides "auto"."""
        from vitreous.explanation import METHODS

        return tuple(METHODS)

    @cached_property
    def _explainer(self) -> Explainer:
        """Made when first asked for, and kept, since it keeps the weights that gradient methods load."""
        from vitreous.explanation import Explainer

        return Explainer(self.run, self.engine)

    def self_test(self) -> None:
        """Run one synthetic image through the model, which also warms it up.

        Raises VitreousError where the answer has the wrong width or is not finite.
        """
        # Stored pixels, not a picture: that would have to hold the bands that the model takes.
        channels, height, width = self.spec.shape
        levels = np.linspace(0, self.spec.max_value, height * width).reshape(height, width, 1)
        self.predict_arrays(normalise(np.repeat(levels, channels, axis=-1), self.spec)[None])


def check_top(top: int) -> None:
    """Raises UsageError where not even one class is asked for."""
    if top < 1:
        raise UsageError(f"--top must be at least 1, got {top}.")


def _chunks(sources: Iterable[ImageSource], size: int) -> Iterator[list[ImageSource]]:
    remaining = iter(sources)
    while chunk := list(islice(remaining, size)):
        yield chunk
