"""A loaded run folder in Python: predict, explain, evaluate, export."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitreous.config.audit import AuditConfig
from vitreous.config.convert import from_dict, read_settings, to_dict
from vitreous.config.input import InputSpec
from vitreous.config.reopen import reopened
from vitreous.config.train import TrainConfig
from vitreous.errors import ImageError
from vitreous.inputs import ImageSource
from vitreous.runs import Prediction, RunFolder
from vitreous.serving.predictor import Predictor
from vitreous.workflows.environment import require

if TYPE_CHECKING:
    from torch import nn

    from vitreous.explanation import Explanation
    from vitreous.export import ExportResult
    from vitreous.workflows.audit_facts import Audit


class Classifier:
    """What `vitreous.load` and `vitreous.train` return."""

    def __init__(
        self, run: RunFolder, engine: str = "auto", threads: int | None = None, point: str | None = None
    ) -> None:
        self.run = run
        self._engine_name, self._threads, self._point = engine, threads, point

    def predict(self, images: ImageSource | Iterable[ImageSource], top: int = 5) -> list[Prediction]:
        """One `Prediction` an image: paths, encoded bytes, Pillow images, arrays (h, w, c) or tensors (c, h, w).

        Raises the ImageError of the first that cannot be used, naming it.
        """
        if isinstance(images, list | tuple) or hasattr(images, "__next__"):
            sources = list(images)
        else:
            sources = [images]
        try:
            return self.predictor.predict(sources, top=top)
        except ImageError:
            for number, source in enumerate(sources):  # find the one at fault, to name it
                try:
                    self.predictor.decode(source)
                except ImageError as error:
                    name = str(source) if isinstance(source, str | Path) else f"image {number}"
                    raise type(error)(f"{name} {error.message}", error.hint) from error
            raise

    def explain(
        self, image: ImageSource, method: str = "auto", target: str | int | None = None, *, faithfulness: bool = True
    ) -> Explanation:
        """Which parts of the image speak for `target` (the likeliest class when None), and how far to believe it."""
        return self.predictor.explain(image, method, target, faithfulness=faithfulness)

    def evaluate(
        self,
        data: object = None,
        *,
        split: str | None = None,
        by: Sequence[str] = (),
        costs: str | Path | None = None,
        corrupt: int = 0,
        learning: bool = False,
    ) -> dict[str, Any]:
        """Metrics with intervals on a part of the run's own data, or on other labelled data; as `metrics.json`.

        by: columns of the data, each a table of accuracies ("subgroups"). costs: CSV of what mistakes cost ("costs"). corrupt:
        so many images made worse in every way ("robustness"). learning: what more labels would bring ("learning").
        """
        require("Evaluation", "train")
        self.run.require_classes()
        from vitreous.workflows.evaluate import evaluate

        prices = Path(costs) if costs else None
        return evaluate(
            self.run,
            data,
            split=split,
            engine=self._engine_name,
            by=by,
            costs=prices,
            corrupt=corrupt,
            learning=learning,
        ).metrics

    def export(self, format: str = "onnx", *, out: str | Path | None = None, overwrite: bool = False) -> ExportResult:
        """Write the model in another format, with the proof that it agrees; see `vitreous.export.export_run`."""
        from vitreous.export import export_run

        self.run.require_classes()
        result = export_run(self.run, format, out=Path(out) if out else None, overwrite=overwrite)
        self.run = result.run
        return result

    @cached_property
    def predictor(self) -> Predictor:
        """The run and the engine that executes it, loaded when first needed."""
        return Predictor.load(self.run, self._engine_name, self._threads, self._point)

    @cached_property
    def model(self) -> nn.Module:
        """The module with its weights, in evaluation mode."""
        require("The module of a run", "train")
        from vitreous.models.load import load_model

        return load_model(self.run)

    @property
    def spec(self) -> InputSpec:
        """How an image becomes the array the model sees."""
        return self.run.spec

    @property
    def classes(self) -> list[str]:
        """Class names in the order of the model's outputs."""
        return self.run.classes

    @property
    def path(self) -> Path:
        return self.run.path

    def __repr__(self) -> str:
        return f"Classifier({str(self.run.path)!r}, {self.run.architecture['name']}, {len(self.classes)} classes)"


def load(path: str | Path, engine: str = "auto", threads: int | None = None, point: str | None = None) -> Classifier:
    """Open a run folder. point: an operating point to answer by, such as "pneumonia:recall". Raises RunError when the folder is
    absent, unfinished or damaged, UsageError for a point that it does not have."""
    run = RunFolder.open(path)
    if point is not None:
        run.point(point)
    return Classifier(run, engine, threads, point)


def train(data: object, *, config: TrainConfig | str | Path | None = None, **settings: Any) -> Classifier:
    """Train on whatever the command takes, or on a `datasets.Dataset` or `DatasetDict`; settings are the flags of `vitreous train` with underscores.

    Nested ones are dictionaries: `optim={"lr": 3e-4}`. config: settings to start from, as `--config` takes them (the
    config.json of a run or a TOML file), or a `TrainConfig`; those given beside it win, and what followed from what they
    change is chosen anew. With several seeds or folds the classifier is the one of the run that validates best.
    Raises UsageError for unknown names, and what training raises.
    """
    require("Training", "train")
    from vitreous.workflows.repeat import train_all

    paths = {
        name: Path(settings[name])
        for name in ("out", "val", "test", "split", "fixes")
        if settings.get(name) is not None
    }
    return Classifier(train_all(data, _laid_over(config, {**settings, **paths})).run)


def _laid_over(config: TrainConfig | str | Path | None, settings: dict[str, Any]) -> TrainConfig:
    """The settings of a configuration with others in their place."""
    if config is None:
        return from_dict(TrainConfig, settings)
    if not isinstance(config, TrainConfig):
        # A run folder is never written into by repeating its settings.
        config = replace(from_dict(TrainConfig, read_settings(Path(config))), out=None)
    nested = {name: value for name, value in settings.items() if isinstance(value, dict)}
    changed = {name for name in settings if name not in nested}
    changed |= {f"{name}.{inner}" for name, values in nested.items() for inner in values}
    base = to_dict(reopened(config, changed))
    base |= {name: {**base[name], **value} for name, value in nested.items() if isinstance(base.get(name), dict)}
    return from_dict(TrainConfig, {**base, **{name: value for name, value in settings.items() if name in changed}})


def audit(data: object, **settings: Any) -> Audit:
    """What is wrong with a data set; settings are the flags of `vitreous audit` with underscores.

    data: what the command takes, or a `datasets.Dataset` or `DatasetDict`.

    Writes the page and the tables as the command does. Raises UsageError for unknown names, and what auditing raises.
    """
    from vitreous.workflows.audit import audit as audit_data

    paths = {name: Path(settings[name]) for name in ("out", "val", "test", "model") if settings.get(name) is not None}
    return audit_data(data, from_dict(AuditConfig, {**settings, **paths}))[0]


def create_model(
    name: str,
    num_classes: int | None = None,
    init: str = "scratch",
    *,
    image_size: int | tuple[int, int] = 0,
    in_chans: int | None = None,
    offline: bool = False,
    **net: Any,
) -> nn.Module:
    """A module by name: ours for Vision Transformers, timm's for convolutional models.

    name: of a family (vit_small, vit_small_dinov3), one of timm's, or the path of a run folder, of a Hugging Face folder or
    of a Google .npz file, whose model and weights are then taken, adapted to the sizes asked for.
    num_classes, in_chans: the source's own where the name is a path, else 1,000 and 3, when None.

    init: scratch, auto (published weights where they can be had, else scratch), timm:NAME, a file or a run folder.
    image_size: pixels of a square's side, or (height, width); 0 takes the one in the name, or 224. net: fields of `NetConfig`.
    Raises UsageError for unknown names and sizes that do not fit, WeightsError for a named source that cannot be had.
    """
    require("Building a model", "train")
    from vitreous.workflows.initial import create

    return create(name, num_classes, init, image_size=image_size, in_chans=in_chans, offline=offline, **net)
