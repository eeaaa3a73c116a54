"""Shortcuts that were planted are found; where none was, none is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vitreous.data.audit.metadata import column_features, metadata_columns, metadata_features
from vitreous.data.audit.recall import balanced_accuracy, column_predictions
from vitreous.data.audit.shortcuts import ShortcutProbe, probe_shortcuts
from vitreous.data.examination.finding import Finding
from vitreous.errors import DataError

CLASSES = ["cat", "dog", "fox"]
PLAIN = Finding(
    width=640, height=480, mode="RGB", bits=8, channels=3, frames=1, format="JPEG", bytes=60_000, digest="",
    brightness=0.5, contrast=0.2, sharpness=0.01, low=0, high=255, thumbnail=b"",
)  # fmt: skip


def _pictures(count: int, seed: int, signal: int = 50) -> tuple[np.ndarray, np.ndarray, list[Finding]]:
    """Noise with a patch of lying, standing or checkered stripes in the middle, at a random brightness: no shortcut."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    images = generator.integers(0, 90, (count, 32, 32, 3)) + generator.integers(20, 60, (count, 1, 1, 1))
    down, across = np.mgrid[0:16, 0:16] // 2 % 2
    stripes = np.stack([down, across, down ^ across]) * signal
    images[:, 8:24, 8:24] += stripes[labels][..., None]
    sharpness = np.exp(generator.normal(-4.5, 0.5, count))
    size = 60_000 * np.sqrt(sharpness / 0.01) * np.exp(generator.normal(0, 0.1, count))
    findings = [
        replace(PLAIN, width=width, sharpness=float(sharp), bytes=int(most))
        for width, sharp, most in zip(generator.choice([640, 800], count).tolist(), sharpness, size, strict=True)
    ]
    return images.astype(np.uint8), labels, findings


def _probe(
    images: np.ndarray, labels: np.ndarray, findings: list[Finding], units: np.ndarray | None = None
) -> dict[str, ShortcutProbe]:
    units = np.arange(len(labels)) if units is None else units
    found = probe_shortcuts(images, findings, labels, CLASSES, units, seed=0)
    return {probe.name: probe for probe in found}


@pytest.mark.parametrize("seed", [0, 1])
def test_where_no_shortcut_was_planted_none_is_found(seed: int) -> None:
    probes = _probe(*_pictures(300, seed))
    assert list(probes) == ["border", "tiny", "metadata", "file size"]
    assert [probe.name for probe in probes.values() if probe.suspicious] == []
    for name in ("border", "metadata", "file size"):
        assert probes[name].low < 1 / 3 < probes[name].high + 0.03
        assert "No sign of a shortcut" in probes[name].verdict
    assert probes["border"].baseline > 0.8
    assert probes["border"].chance == pytest.approx(1 / 3)


@pytest.mark.parametrize("seed", range(3))
def test_shuffled_labels_raise_no_alarm(seed: int) -> None:
    images, labels, findings = _pictures(240, seed)
    labels = np.random.default_rng(seed).permutation(labels)
    assert [probe.name for probe in _probe(images, labels, findings).values() if probe.suspicious] == []


def test_a_coloured_corner_in_each_class_is_found() -> None:
    images, labels, findings = _pictures(300, 0)
    for index, label in enumerate(labels):
        images[index, :3, :3] = 0
        images[index, :3, :3, label] = 255
    probes = _probe(images, labels, findings)
    assert probes["border"].suspicious
    assert probes["border"].low > 0.9
    assert "Marks, frames or black edges differ between the classes" in probes["border"].verdict
    assert not probes["metadata"].suspicious


def test_the_same_texture_all_over_is_no_mark() -> None:
    """Classes that differ in the colour of the whole picture: the border tells them, and so does every other ring."""
    images, labels, findings = _pictures(300, 0, signal=0)
    images = images.astype(np.int64)
    images[..., 0] += (labels * 8)[:, None, None]
    probes = _probe(images.astype(np.uint8), labels, findings)
    assert probes["border"].low > 0.5
    assert "Marks" not in probes["border"].verdict


def test_classes_that_colour_alone_tells_apart_are_too_easy() -> None:
    images, labels, findings = _pictures(300, 0, signal=0)
    images[:, 12:20, 12:20] = 0
    images[np.arange(300), 12:20, 12:20, labels] = 255
    probe = _probe(images, labels, findings)["tiny"]
    assert probe.suspicious
    assert "Colour, light or coarse layout are enough" in probe.verdict
    small = [replace(finding, width=16, height=16) for finding in findings]
    assert not _probe(images, labels, small)["tiny"].suspicious


def test_sizes_that_differ_between_the_classes_are_found_and_the_column_is_named() -> None:
    images, labels, findings = _pictures(300, 0)
    generator = np.random.default_rng(1)
    right = generator.random(300) < 0.9
    findings = [
        replace(finding, width=1024 if label == 2 and hit else finding.width)
        for finding, label, hit in zip(findings, labels, right, strict=True)
    ]
    probe = _probe(images, labels, findings)["metadata"]
    assert probe.suspicious
    assert "Image width alone" in probe.verdict
    assert "(1024: 8" in probe.verdict or "(1024: 9" in probe.verdict
    assert "of 'fox', 0% of the rest" in probe.verdict


def test_a_format_that_marks_one_class_is_found() -> None:
    images, labels, findings = _pictures(300, 0)
    findings = [
        replace(finding, format="PNG" if label == 1 else "JPEG")
        for finding, label in zip(findings, labels, strict=True)
    ]
    probe = _probe(images, labels, findings)["metadata"]
    assert probe.suspicious
    assert "File format alone" in probe.verdict
    assert "100% of" in probe.verdict


def test_qualities_that_differ_between_the_classes_are_found() -> None:
    images, labels, findings = _pictures(300, 0)
    factors = (1.0, 0.55, 0.3)
    saved = [
        replace(finding, bytes=int(finding.bytes * factors[label]))
        for finding, label in zip(findings, labels, strict=True)
    ]
    probe = _probe(images, labels, saved)["file size"]
    assert probe.suspicious
    assert "different qualities" in probe.verdict


def test_busy_classes_make_large_files_and_that_is_no_shortcut() -> None:
    images, labels, findings = _pictures(300, 0)
    busy = [
        replace(finding, sharpness=finding.sharpness * 6.0**label, bytes=int(finding.bytes * 6.0 ** (label / 2)))
        for finding, label in zip(findings, labels, strict=True)
    ]
    probe = _probe(images, labels, busy)["file size"]
    assert probe.balanced_accuracy > 0.6
    assert not probe.suspicious
    assert "Busy pictures make large files" in probe.verdict


def test_an_interval_knows_that_copies_are_not_evidence() -> None:
    generator = np.random.default_rng(0)
    labels, predicted = np.arange(40) % 2, generator.integers(0, 2, 40)
    one = balanced_accuracy(predicted, labels, np.arange(40), 2, 0)
    copies = balanced_accuracy(predicted.repeat(20), labels.repeat(20), np.arange(40).repeat(20), 2, 0)
    assert copies.value == pytest.approx(one.value)
    assert copies.high - copies.low > 0.9 * (one.high - one.low)
    perfect = balanced_accuracy(labels, labels, np.arange(40), 2, 0)
    assert perfect.value == perfect.high == 1
    assert 0.85 < perfect.low < 0.95


def test_one_column_is_judged_by_other_folds() -> None:
    codes = np.arange(60)  # a level of its own for every image
    labels = np.random.default_rng(0).integers(0, 2, 60)
    assert set(column_predictions(codes, labels, np.arange(60) % 5, 2)) == {0}


def test_rare_values_share_levels_and_features_stay_few() -> None:
    generator = np.random.default_rng(0)
    findings = [
        replace(
            PLAIN,
            width=int(width),
            height=int(height),
            bytes=int(size),
            camera=f"camera {index % 90}",
            taken=f"2020:01:01 {index % 24:02d}:00:00",
        )
        for index, (width, height, size) in enumerate(generator.integers(100, 9999, (500, 3)))
    ]
    columns = {column.name: column for column in metadata_columns(findings)}
    assert len(columns["camera"].levels) == 32
    assert columns["camera"].levels[-1] == "another"
    assert len(columns["hour of the picture"].levels) == 24
    assert "file format" not in columns
    features = metadata_features(findings)
    assert features.shape[0] == 500
    assert features.shape[1] < 300
    assert np.isfinite(features).all()
    assert column_features([], 4).shape == (4, 1)


def test_classes_of_few_images_and_images_without_a_class_take_no_part() -> None:
    images, labels, findings = _pictures(120, 0)
    labels = labels.copy()
    labels[:20] = -1
    labels[labels == 2] = np.where(np.arange((labels == 2).sum()) < 4, 2, 0)
    probes = _probe(images, labels, findings)
    assert probes["border"].chance == 0.5
    assert probes["border"].images == 96
    with pytest.raises(DataError, match="two classes"):
        _probe(images, labels * 0, findings)


def test_a_set_beyond_the_limit_is_probed_on_whole_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitreous.data.audit.shortcuts.MOST_IMAGES", 100)
    images, labels, findings = _pictures(300, 0)
    probes = _probe(images, labels, findings, units=np.arange(300) // 6)
    assert probes["border"].images == 96
