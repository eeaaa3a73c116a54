"""timm's published models as timm builds them, classifier included: teachers of any architecture, taken as they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from vitreous.errors import WeightsError
from vitreous.models.fetch import download, published, read_tensors


@dataclass(frozen=True)
class PublishedModel:
    """A model with its weights, and the input it was trained with."""

    module: nn.Module
    """(b, c, h, w) -> logits (b, k)."""
    source: str
    licence: str
    channels: int
    size: tuple[int, int]
    """(height, width) in pixels."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    """Of the resize filter, in timm's words."""


def published_classes(name: str) -> int:
    """How many classes the checkpoint of a timm name answers for. Asks nobody.

    Raises WeightsError for a name that timm does not know or publishes no weights for, and for one without a classifier.
    """
    import timm

    config = timm.get_pretrained_cfg(published(name).name)
    if config is None or not config.num_classes:
        raise WeightsError(
            f"The published weights {name!r} have no classifier, so they cannot teach.",
            "Name a checkpoint that was fine-tuned for classes, such as resnet18.a1_in1k.",
        )
    return config.num_classes


def fetch_published(name: str, *, offline: bool, say: Callable[[str], None] | None = None) -> PublishedModel:
    """A published timm model of any architecture, from the local cache or the Hugging Face hub.

    say: called before anything is downloaded, as in `fetch_timm`. Raises WeightsError where the weights cannot be had, or
    do not fit the model that timm builds under their name.
    """
    import timm

    found, classes = published(name), published_classes(name)
    file, licence, source = download(found, offline=offline, say=say)
    config = timm.get_pretrained_cfg(found.name)
    assert config is not None
    module = timm.create_model(found.name, pretrained=False, num_classes=classes)
    try:
        module.load_state_dict(read_tensors(file))
    except RuntimeError as error:
        raise WeightsError(
            f"The published weights {found.name!r} do not fit the model that this timm builds.",
            "Update timm, or choose another checkpoint.",
        ) from error
    channels, height, width = config.input_size
    return PublishedModel(
        module.eval(),
        source,
        licence,
        channels,
        (height, width),
        tuple(config.mean),
        tuple(config.std),
        config.interpolation,
    )
