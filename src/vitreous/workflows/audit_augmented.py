"""`vitreous audit --show-augmented`: what training would do to the images, for people to judge whether labels stay true."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from vitreous.config.audit import AuditConfig
from vitreous.config.train import TrainConfig
from vitreous.data import PixelStore
from vitreous.data.augmentation.sheet import AugmentedSheet, augmented_sheet
from vitreous.engines.onnxruntime import available_cores
from vitreous.evaluation.fragments import bullets, card, paragraph, photograph, section, text
from vitreous.evaluation.page import page
from vitreous.recipes import resolve
from vitreous.runs.atomic import write_text
from vitreous.workflows.audit import numbered_folder
from vitreous.workflows.prepare import Material, facts_of, first_spec, fit_value_range, gather, storage_spec
from vitreous.workflows.reporter import Reporter, Silent

MOST_ROWS = 24
"""Images shown: as many of each class as fit."""


def show_augmented(data: str | Path, config: AuditConfig, reporter: Reporter | None = None) -> tuple[Path, str, str]:
    """Write augmented.html: training images of each class beside variants. Returns its path, the preset, and what is on."""
    reporter = reporter or Silent()
    settings = TrainConfig(
        preset=config.preset,
        group=config.group,
        val=config.val,
        test=config.test,
        ignore_classes=config.ignore_classes,
        decode=config.decode,
        threads=config.threads,
        seed=config.seed,
        offline=config.offline,
        max_bad=1.0,
    )
    material = gather(data, settings, reporter)
    facts = facts_of(material, settings)
    resolved = resolve(settings, facts)
    reason = next((line for line in resolved.reasons if line.startswith("preset")), f"preset {resolved.preset}")
    if resolved.config.exposure == "even":
        reason += (
            ". Every picture, the original too, is shown as the model sees it: at the same brightness and contrast"
        )
    reporter.say(reason)
    spec = first_spec(resolved, facts, None, fit_value_range(material, settings, reporter))
    rows = _some_of_each(material)
    crop_area = resolved.config.augment.crop_area or 1.0
    threads = config.threads or available_cores()
    store = PixelStore(material.source, rows, storage_spec(spec, crop_area), threads=threads, max_bytes=2**30)
    mean, std = store.mean_std()
    spec = replace(spec, mean=mean, std=std)
    store = store.with_spec(replace(store.spec, mean=mean, std=std))
    with reporter.task("drawing augmented images", "images"):
        sheet = augmented_sheet(store, np.arange(len(store)), resolved.config.augment, spec, seed=config.seed)
    folder = numbered_folder(config.out, material.source.name, config.overwrite)
    write_text(folder / "augmented.html", _page(material, rows, sheet, reason))
    return folder / "augmented.html", resolved.preset, sheet.description


def _some_of_each(material: Material) -> np.ndarray:
    train = material.rows("train")
    labels = material.labels[train]
    classes = np.unique(labels)
    each = max(1, MOST_ROWS // len(classes))
    chosen = [train[labels == number][:each] for number in classes[:MOST_ROWS]]
    return np.concatenate(chosen)


def _page(material: Material, rows: np.ndarray, sheet: AugmentedSheet, reason: str) -> str:
    name = material.source.name
    pieces = []
    for row, pictures in zip(rows, sheet.rows, strict=True):
        sample = material.source.samples[row]
        cards = [
            card([photograph(_png(picture), caption)], caption, [], "")
            for picture, caption in zip(pictures, sheet.captions, strict=True)
        ]
        pieces.append(f'<h3>{text(sample.label)}</h3><p class="small">{text(sample.path)}</p>')
        pieces.append(f'<div class="gallery">{"".join(cards)}</div>')
    head = f"""<header>
<div class="kicker">vitreous audit: what training sees</div>
<h1>{text(name)}</h1>
{paragraph("Is every picture still what its label says? If not, choose another --preset or switch a change off.")}
{bullets([reason, f"On: {sheet.description}."])}
</header>"""
    return page(f"{name}: augmentation", head, {"Images": section("images", "Images", *pieces)}, "")


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()
