"""Images unlike the rest of their set."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vitreous.data.audit.outliers import find_outliers, robust_deviation, statistics
from vitreous.data.examination.finding import Finding

PLAIN = Finding(
    width=640, height=480, mode="RGB", bits=8, channels=3, frames=1, format="JPEG", bytes=60_000, digest="",
    brightness=0.5, contrast=0.2, sharpness=0.01, low=0, high=255, thumbnail=b"",
)  # fmt: skip


def _set(count: int = 400, seed: int = 0) -> list[Finding]:
    generator = np.random.default_rng(seed)
    return [
        replace(
            PLAIN,
            width=int(640 * scale),
            height=int(480 * scale),
            bytes=int(60_000 * scale**2 * size),
            brightness=float(np.clip(generator.normal(0.5, 0.08), 0.1, 0.9)),
            contrast=float(0.2 * np.exp(generator.normal(0, 0.2))),
            sharpness=float(0.01 * np.exp(generator.normal(0, 0.6))),
        )
        for scale, size in zip(
            np.exp(generator.normal(0, 0.1, count)), np.exp(generator.normal(0, 0.25, count)), strict=True
        )
    ]


def test_a_clean_set_has_none() -> None:
    for seed in range(5):
        assert find_outliers(_set(seed=seed)) == {}
    assert find_outliers([PLAIN] * 100) == {}
    assert find_outliers([]) == {}
    assert find_outliers([PLAIN]) == {}


def test_each_planted_oddity_is_found_under_its_name_and_nothing_else() -> None:
    findings = _set()
    planted = {
        "too dark": (3, {"brightness": 0.002}),
        "too bright": (11, {"brightness": 0.999}),
        "nearly uniform": (22, {"contrast": 0.0, "sharpness": 0.0}),
        "unusually small": (33, {"width": 32, "height": 24, "bytes": 160}),
        "unusually large": (44, {"width": 6400, "height": 4800, "bytes": 6_000_000}),
        "unusually wide": (55, {"width": 2400, "height": 128}),
        "unusually tall": (66, {"width": 128, "height": 2400}),
        "unusually blurred": (77, {"sharpness": 0.000005}),
        "unusually small file for its pixels": (88, {"bytes": 2000}),
        "unusually large file for its pixels": (99, {"bytes": 3_000_000}),
    }
    for row, changes in planted.values():
        findings[row] = replace(findings[row], **changes)
    assert find_outliers(findings) == {kind: [row] for kind, (row, _) in planted.items()}


def test_the_most_unlike_comes_first() -> None:
    findings = _set()
    findings[5] = replace(findings[5], width=3000, height=100)
    findings[6] = replace(findings[6], width=9000, height=100)
    assert find_outliers(findings)["unusually wide"] == [6, 5]


def test_a_second_kind_of_image_is_not_a_list_of_outliers() -> None:
    findings = [PLAIN] * 170 + [replace(PLAIN, width=480, height=640)] * 30
    assert find_outliers(findings) == {}
    assert find_outliers([PLAIN] * 198 + [replace(PLAIN, width=480, height=640)] * 2) == {"unusually tall": [198, 199]}


def test_deviation_is_not_moved_by_what_deviates() -> None:
    values = np.random.default_rng(0).normal(10, 1, 1000)
    values[:100] = 1000
    deviation = robust_deviation(values, 0.01)
    assert deviation[:100].min() > 500
    assert abs(np.std(deviation[100:]) - 1) < 0.25
    assert (robust_deviation(values[:10], 0.01) == 0).all()


def test_the_summary_counts_everything_once() -> None:
    findings = [PLAIN] * 3 + [
        replace(PLAIN, mode="L", format="PNG", width=100, brightness=0.9, frames=4, suffix_format="JPEG"),
        replace(PLAIN, bits=16, mode="I;16", format="PNG", bytes=5),
    ]
    found = statistics(findings, np.asarray([0, 0, 0, 1, -1]), ["a", "b", "empty"])
    assert found.width == (100, 640, 640)
    assert found.bytes == (5, 60_000, 60_000)
    assert found.modes == {"RGB": 3, "I;16": 1, "L": 1}
    assert found.formats == {"JPEG": 3, "PNG": 2}
    assert found.bits == {"8": 4, "16": 1}
    assert found.several_frames == 1
    assert found.wrong_suffix == [3]
    assert found.class_brightness == {"a": 0.5, "b": 0.9}
    assert found.brightness_effect == 1
    empty = statistics([], np.zeros(0, np.int64), ["a"])
    assert empty.width == (0, 0, 0)
    assert empty.brightness_effect == 0
