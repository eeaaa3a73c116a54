"""One image explained: the map, the picture, and how far to trust them. No torch until a gradient method is asked for."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import Image

from vitreous.engines.protocol import Engine
from vitreous.errors import MissingExtraError, UsageError, unknown_name
from vitreous.explanation.draw import display, overlay, place, side_by_side, unit_range
from vitreous.explanation.faithfulness import Faithfulness, measure
from vitreous.explanation.masking import predict_with
from vitreous.explanation.occlusion import occlusion_map
from vitreous.inputs import ImageSource, open_image, prepare
from vitreous.runs.folder import RunFolder

if TYPE_CHECKING:
    from vitreous.models.vit import VisionTransformer

Method: TypeAlias = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Prepared images float32 (b, c, h, w) and class indices (b,) to heat maps float32 (b, gh, gw)."""

UNFAITHFUL = (
    "This map ranks the parts of the image no better than chance does, in deletion and in insertion: do not rely on it."
)


@dataclass(frozen=True)
class Explanation:
    """Why the model says `target` of one image."""

    heatmap: np.ndarray
    """float32 (h, w) in [0, 1] at the size of the original, upright image; 0 outside what the model saw."""
    overlay: Image.Image
    """The map over the image, RGB, the longer side 224 to 1024 pixels (tiny images in whole multiples)."""
    picture: Image.Image
    """The image without the map, at the overlay's size."""
    grid: np.ndarray
    """float32 (gh, gw): the method's own values, before stretching and smoothing."""
    target: str
    """The class that is explained."""
    score: float
    """Its calibrated probability, in [0, 1]."""
    method: str
    """relevance, rollout or occlusion."""
    faithfulness: Faithfulness | None
    """Deletion and insertion scores next to chance; None where they were not asked for."""
    warning: str | None
    """A sentence where the map cannot be trusted."""

    def side_by_side(self) -> Image.Image:
        """Picture and overlay next to each other, with a caption."""
        text = f"{self.target} ({self.score:.1%}), {self.method}"
        if self.faithfulness:
            found = self.faithfulness
            text += (
                f": deletion {found.deletion:.3f} (chance {found.random_deletion:.3f}), "
                f"insertion {found.insertion:.3f} (chance {found.random_insertion:.3f})"
            )
        return side_by_side(self.picture, self.overlay, text if self.warning is None else f"{text}. {self.warning}")

    def to_dict(self) -> dict[str, Any]:
        """The facts without the pictures, ready for JSON."""
        return {
            "target": self.target,
            "score": self.score,
            "method": self.method,
            "faithfulness": self.faithfulness.to_dict() if self.faithfulness else None,
            "warning": self.warning,
        }


@dataclass(frozen=True)
class Explainer:
    """Explains images of one run, loading at most once what its methods need."""

    run: RunFolder
    engine: Engine

    def explain(
        self,
        source: ImageSource,
        *,
        method: str = "auto",
        target: str | int | None = None,
        faithfulness: bool = True,
    ) -> Explanation:
        """See `explain_image`."""
        name = self.choose(method)
        explainer = METHODS[name](self)
        spec, predict = self.run.spec, predict_with(self.engine, self.run.scores)
        wanted = None if target is None else class_index(target, self.run.classes)

        images = prepare(source, spec)[None]
        scores = predict(images)[0]
        index = int(scores.argmax()) if wanted is None else wanted
        grid = explainer(images, np.array([index]))[0]
        found = measure(predict, images[0], grid, index) if faithfulness else None

        original = open_image(source, decode=spec.decode)
        picture, unit = display(original, spec), unit_range(grid)
        return Explanation(
            heatmap=place(unit, spec, original.size),
            overlay=overlay(picture, place(unit, spec, original.size, picture.size)),
            picture=picture,
            grid=grid,
            target=self.run.classes[index],
            score=float(scores[index]),
            method=name,
            faithfulness=found,
            warning=UNFAITHFUL if found is not None and not found.beats_random else None,
        )

    def choose(self, method: str) -> str:
        """The method a name stands for: `auto` is relevance for a Vision Transformer where torch is installed, whatever
        engine answers, else occlusion.

        Raises UsageError for an unknown name.
        """
        if method == "auto":
            return "relevance" if self._is_vision_transformer and _has_torch() else "occlusion"
        if method not in METHODS:
            raise unknown_name("explanation method", method, ["auto", *METHODS])
        return method

    def transformer(self, method: str) -> VisionTransformer:
        """The run's model for a method that reads attention.

        Raises UsageError for a model without attention, MissingExtraError where torch is absent.
        """
        if not self._is_vision_transformer:
            raise UsageError(
                f"The method {method!r} reads attention, and the model {self.run.architecture['name']!r} has none.",
                "Use the method 'occlusion', which works with every model.",
            )
        if not _has_torch():
            raise MissingExtraError(f"The explanation method {method!r} (unlike 'occlusion')", "train", "torch")
        return self._model

    @property
    def _is_vision_transformer(self) -> bool:
        return self.run.architecture["family"] == "vit"

    @cached_property
    def _model(self) -> VisionTransformer:
        """The eager engine's own module, or the run's weights loaded for this purpose."""
        from vitreous.engines.eager import EagerEngine
        from vitreous.models.load import load_model
        from vitreous.models.vit import VisionTransformer

        model = self.engine.model if isinstance(self.engine, EagerEngine) else load_model(self.run)
        assert isinstance(model, VisionTransformer)  # what family "vit" means
        return model


def explain_image(
    run: RunFolder,
    engine: Engine,
    source: ImageSource,
    *,
    method: str = "auto",
    target: str | int | None = None,
    faithfulness: bool = True,
) -> Explanation:
    """Explain one image; for many, an `Explainer` keeps what it has loaded.

    method: auto, relevance (gradients and attention), rollout (attention, the same for all classes), occlusion (any model).
    target: class name, or index in the order of the model's outputs; the predicted class when None.
    faithfulness: measure deletion and insertion too, some 160 forward passes of one image.

    Raises the errors of `open_image`; UsageError for an unknown method or class, or a method the model does not allow;
    MissingExtraError for gradient methods where torch is absent.
    """
    return Explainer(run, engine).explain(source, method=method, target=target, faithfulness=faithfulness)


def class_index(target: str | int, classes: list[str]) -> int:
    """The output a class name or index stands for. Raises UsageError naming the nearest classes, or the range."""
    if isinstance(target, str):
        if target not in classes:
            raise unknown_name("class", target, classes)
        return classes.index(target)
    if not 0 <= target < len(classes):
        raise UsageError(
            f"There is no class number {target}: the model has {len(classes)} classes, 0 to {len(classes) - 1}.",
            "Pass the class by its name.",
        )
    return int(target)


def _has_torch() -> bool:
    return importlib.util.find_spec("torch") is not None


def _relevance(explainer: Explainer) -> Method:
    model = explainer.transformer("relevance")
    import torch

    from vitreous.explanation.relevance import relevance_map

    return lambda images, target: (
        relevance_map(model, torch.from_numpy(images), torch.from_numpy(target)).float().cpu().numpy()
    )


def _rollout(explainer: Explainer) -> Method:
    model = explainer.transformer("rollout")
    import torch

    from vitreous.explanation.rollout import rollout_map

    return lambda images, target: rollout_map(model, torch.from_numpy(images)).float().cpu().numpy()


def _occlusion(explainer: Explainer) -> Method:
    engine, scores = explainer.engine, explainer.run.scores
    return lambda images, target: occlusion_map(engine, images, target, scores=scores)


METHODS: dict[str, Callable[[Explainer], Method]] = {
    "relevance": _relevance,
    "rollout": _rollout,
    "occlusion": _occlusion,
}
