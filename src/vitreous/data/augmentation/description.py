"""What an augmentation does, in words that someone who looks at the pictures can check."""

from __future__ import annotations

from vitreous.config.train import AugmentConfig
from vitreous.data.augmentation.three import choices

_THREE_WORDS = {"grey": "grey", "solarise": "with its bright half inverted", "blur": "blurred"}


def describe_augmentation(config: AugmentConfig, channels: int = 3) -> str:
    """Everything that is on, with its reach, as one line; fields left open (None) count as off. channels: of the images."""
    parts = [*_places(config), *_values(config, channels), *_joins(config), *_batches(config)]
    return ", ".join(parts) if parts else "nothing: the images stay as they are"


def _places(config: AugmentConfig) -> list[str]:
    symmetries = (config.horizontal_flip, config.vertical_flip, config.quarter_turns)
    if all(symmetries):
        parts = ["the eight symmetries of the square"]
    else:
        words = ("mirrored left to right", "mirrored top to bottom", "turned by quarters")
        parts = [word for word, on in zip(words, symmetries, strict=True) if on]
    if config.rotate:
        parts.append(f"turned up to {config.rotate:g} degrees")
    if config.translate:
        parts.append(f"shifted up to {_percent(config.translate)} of the side")
    if config.scale:
        parts.append(f"scaled by {1 - config.scale:g} to {1 + config.scale:g}")
    if config.shear:
        parts.append(f"slanted up to {config.shear:g} degrees")
    if config.crop_area is not None and config.crop_area < 1:
        parts.append(f"cropped to no less than {_percent(config.crop_area)} of the area")
    if config.pad_crop:
        parts.append(f"shifted up to {config.pad_crop:g} pixels, the gap filled with the mirrored image")
    return parts


def _values(config: AugmentConfig, channels: int) -> list[str]:
    parts = []
    if config.rand_augment_ops:
        operations = "operation" if config.rand_augment_ops == 1 else "operations"
        parts.append(
            f"RandAugment ({config.rand_augment_ops} {operations} of strength {config.rand_augment_magnitude or 0} of 30)"
        )
    if config.three_augment:
        *rest, last = (_THREE_WORDS[choice] for choice in choices(channels))
        parts.append(f"either {', '.join(rest)} or {last} (3-Augment)" if rest else f"{last} (3-Augment)")
    for name, reach in (("brightness", config.brightness), ("contrast", config.contrast)):
        parts += [f"{name} by up to {_percent(reach)} either way"] if reach else []
    if config.gamma:
        parts.append(f"gamma {1 / (1 + config.gamma):.2g} to {1 + config.gamma:.3g}")
    if config.blur:
        parts.append(f"blurred by up to {_percent(config.blur)} of the side")
    if config.noise:
        parts.append(f"noise of up to {_percent(config.noise)} of full brightness")
    if config.erase:
        parts.append(f"a rectangle blanked in {_percent(config.erase)} of the images")
    strong = config.rand_augment_ops or config.three_augment or config.erase
    if strong and config.strong_until is not None and config.strong_until < 1:
        names = (
            ("RandAugment", config.rand_augment_ops),
            ("3-Augment", config.three_augment),
            ("blanking", config.erase),
        )
        parts.append(
            f"{' and '.join(name for name, on in names if on)} until {_percent(config.strong_until)} of training"
        )
    return parts


def _joins(config: AugmentConfig) -> list[str]:
    kinds = [word for word, on in (("mixup", config.mixup), ("CutMix", config.cutmix)) if on]
    if not kinds or not config.mix_probability:
        return []
    parts = [f"{' or '.join(kinds)} of two images in {_percent(config.mix_probability)} of the batches"]
    if config.mix_until is not None and config.mix_until < 1:
        parts[0] += f" until {_percent(config.mix_until)} of training"
    return parts


def _batches(config: AugmentConfig) -> list[str]:
    parts = []
    if config.repeats is not None and config.repeats > 1:
        parts.append(f"each image {config.repeats:g} times in a batch, each time changed anew")
    if config.start_size is not None and config.start_size < 1:
        until = "" if config.full_size_from is None else f" in the first {_percent(config.full_size_from)} of training"
        parts.append(f"images from {_percent(config.start_size)} of the side upwards{until} (shown here at full size)")
    return parts


def _percent(share: float) -> str:
    return f"{100 * share:g} %"
