"""Domains, and what augmentation may do in each without changing a label."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from vitreous.config.facts import DataFacts
from vitreous.config.train import AugmentConfig, Preset

NOTHING = AugmentConfig(
    horizontal_flip=False,
    vertical_flip=False,
    quarter_turns=False,
    rotate=0.0,
    translate=0.0,
    scale=0.0,
    shear=0.0,
    crop_area=1.0,
    pad_crop=0,
    rand_augment_ops=0,
    rand_augment_magnitude=0,
    three_augment=False,
    brightness=0.0,
    contrast=0.0,
    gamma=0.0,
    blur=0.0,
    noise=0.0,
    erase=0.0,
    mixup=0.0,
    cutmix=0.0,
    mix_probability=0.0,
    mix_until=0.8,
    strong_until=0.9,
    repeats=1,
    start_size=1.0,
    full_size_from=0.7,
)


def _over_nothing(**changes: object) -> AugmentConfig:
    return replace(NOTHING, **changes)  # type: ignore[arg-type]


AUGMENTATION: dict[Preset, AugmentConfig] = {
    # Photographs: mirrored, cropped and recoloured freely (DeiT's recipe, arXiv:2012.12877, table 9, toned down).
    "natural": _over_nothing(
        horizontal_flip=True,
        crop_area=0.35,
        rand_augment_ops=2,
        rand_augment_magnitude=9,
        erase=0.1,
        mixup=0.4,
        cutmix=1.0,
        mix_probability=0.5,
        mix_until=0.7,
    ),
    # X-rays and the like: never mirrored, since left and right mean something; small movements and turns, exposure and
    # the detector's curve, which clips nothing, where more brightness would turn the dense parts white. No blur: a fine
    # nodule or fracture line may be all there is.
    "medical": _over_nothing(
        rotate=10.0,
        translate=0.06,
        scale=0.12,
        shear=3.0,
        brightness=0.1,
        contrast=0.2,
        gamma=0.25,
        noise=0.02,
        mixup=0.2,
        mix_probability=0.3,
    ),
    # Seen from above there is no up: exactly the eight symmetries of the square, which lose no pixel and no ground
    # scale, and mild light. Colour is what tells a meadow from a field, and bands what tells more.
    "satellite": _over_nothing(
        horizontal_flip=True,
        vertical_flip=True,
        quarter_turns=True,
        brightness=0.2,
        contrast=0.2,
        mixup=0.4,
        cutmix=1.0,
        mix_probability=0.4,
    ),
    # Text is never mirrored or turned over: slight skew, as paper lies in a scanner; its focus, noise and contrast.
    # Brighter by much would wash thin print out of white paper; the curve darkens or thins it and leaves the paper white.
    "document": _over_nothing(
        rotate=3.0,
        translate=0.05,
        scale=0.1,
        shear=3.0,
        brightness=0.08,
        contrast=0.2,
        gamma=0.25,
        blur=0.003,
        noise=0.03,
        mixup=0.2,
        mix_probability=0.3,
    ),
    # Parts and surfaces: any orientation, exposure but no colours, no noise, no blur and nothing cut away: the defect
    # may be small, faint, and at the edge. What moves leave open is filled with the edge's own pixels.
    "inspection": _over_nothing(
        horizontal_flip=True,
        vertical_flip=True,
        quarter_turns=True,
        rotate=3.0,
        translate=0.03,
        scale=0.05,
        brightness=0.2,
        contrast=0.2,
        mixup=0.2,
        mix_probability=0.2,
    ),
}

GLYPHS = {
    "rotate": 12.0,
    "translate": 0.08,
    "scale": 0.12,
    "shear": 8.0,
    "gamma": 0.0,
    "blur": 0.0,
    "noise": 0.0,
    "brightness": 0.0,
    "contrast": 0.0,
}
"""Single characters a few pixels high move about more than whole pages do."""

FEW = 5000
"""Training images below which photographs are changed gently: strong mixing needs many images to pay."""

GENTLE = {"crop_area": 0.5, "rand_augment_ops": 1, "erase": 0.0, "mixup": 0.2, "cutmix": 0.0, "mix_probability": 0.3}
"""What replaces the strong changes of photographs in a small set."""

HURRIED: dict[str, Any] = {
    "crop_area": 1.0, "rand_augment_ops": 0, "erase": 0.0, "mixup": 0.0, "cutmix": 0.0, "mix_probability": 0.0,
    "pad_crop": 3,
}  # fmt: skip
"""What replaces the strong changes of small photographs where each is seen only a few times."""

_WORDS: dict[Preset, tuple[str, ...]] = {
    "medical": (
        "pneumonia", "tumor", "tumour", "covid", "benign", "malignant", "lesion", "finding", "cancer", "fracture",
        "healthy", "disease", "melanoma", "glioma", "retinopathy", "xray", "ct",
    ),
    "satellite": (
        "forest", "river", "lake", "field", "farmland", "residential", "resident", "industry", "industrial", "parking",
        "airport", "harbor", "highway", "grass", "pasture", "crop", "sealake", "meadow", "desert", "vegetation",
    ),
    "document": (
        "letter", "email", "invoice", "form", "memo", "report", "publication", "advertisement", "receipt", "resume",
        "news", "article", "handwritten", "page", "scientific",
    ),
    "inspection": (
        "crack", "scratch", "defect", "defective", "blowhole", "break", "fray", "uneven", "dent", "corrosion", "rust",
        "stain", "hole", "ok", "good", "faulty", "pitted", "inclusion", "patches",
    ),
}  # fmt: skip


SURE_FORMATS: tuple[tuple[tuple[str, ...], Preset, str], ...] = (
    (("DICOM",), "medical", "DICOM, the format of medical devices"),
    (("GeoTIFF",), "satellite", "GeoTIFF, the format of maps and images from above"),
)
"""(names of file formats, the one domain that uses them, what they are)."""

PAGE_ASPECT = (0.6, 0.85)
"""Width over height of upright paper: A4 0.71, letter 0.77, legal 0.61, cut margins allowed for."""


def guess_preset(facts: DataFacts) -> tuple[Preset, str]:
    """The domain these images seem to be of, and why.

    First what only one domain has (file formats, more than three bands), then class names where enough of them speak of
    one domain, then what may be found in several: depth, shape, size, brightness.
    """
    return _by_format(facts) or _by_names(facts.classes) or _by_pixels(facts)


def _by_format(facts: DataFacts) -> tuple[Preset, str] | None:
    for names, preset, words in SURE_FORMATS:
        share = facts.format_share(*names)
        if share > 0.5:
            return preset, f"{share:.0%} of the images are {words}"
    if facts.channels > 3:
        return "satellite", f"images of {facts.channels} bands, more than a camera's three colours"
    return None


def _by_names(classes: tuple[str, ...]) -> tuple[Preset, str] | None:
    names = [set(re.split(r"[\W_]+", name.lower())) for name in classes]
    hits: dict[Preset, int] = {
        preset: sum(bool(words & set(known)) for words in names) for preset, known in _WORDS.items()
    }
    best: Preset = max(hits, key=lambda preset: hits[preset])
    if hits[best] >= max(1, 0.3 * len(names)) and list(hits.values()).count(hits[best]) == 1:
        return best, f"{hits[best]} of {len(names)} class names speak of {best} images"
    return None


def _by_pixels(facts: DataFacts) -> tuple[Preset, str]:
    tall = PAGE_ASPECT[0] <= facts.aspect <= PAGE_ASPECT[1]
    shape = f"{'grey' if facts.grey_share > 0.9 else 'colour'}, of a page's shape (width {facts.aspect:.2f} of height)"
    if facts.grey_share <= 0.9:
        if tall and facts.brightness > 0.9:
            return "document", f"{shape} and nearly white (mean brightness {facts.brightness:.2f})"
        return "natural", "colour images with no sign of a special domain"
    if facts.deep_share > 0.5:
        return "medical", f"{facts.deep_share:.0%} of the images are grey with more than 8 bits, as detectors give them"
    if facts.short_side <= 32:
        return "document", f"small grey images ({facts.short_side:.0f} px) look like characters"
    if facts.brightness > 0.75:
        return "document", f"grey and mostly white (mean brightness {facts.brightness:.2f})"
    if tall and facts.brightness > 0.65:
        return "document", f"{shape} and bright (mean brightness {facts.brightness:.2f})"
    if len(set(facts.sizes)) == 1 and facts.short_side >= 128:
        return "medical", "grey images of one size; mirroring them might swap left and right"
    return "inspection", "grey images of mixed sizes"
