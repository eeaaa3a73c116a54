"""The section of the report on acting upon scores: sets of classes, operating points, escapes at fixed overkill."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vitreous.evaluation import words
from vitreous.evaluation.fragments import cell, folded, paragraph, section, table

LONG = 12
"""Tables of more classes than this are folded."""


def thresholds_section(decisions: Mapping[str, Any], part: str) -> str:
    """decisions: what `Fitted.judge` found on the part. Empty where nothing was fitted."""
    if not decisions:
        return ""
    return section(
        "acting-on-scores",
        "Acting on scores",
        paragraph(
            f"Thresholds were fitted on the validation part; what they do was measured on the {part} part. "
            "The answer of the model stays its likeliest class; they are for questions about one class."
        ),
        _conformal(decisions.get("conformal")),
        _inspection(decisions.get("inspection")),
        _operating(decisions.get("operating", {})),
    )


def _conformal(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    coverage, sizes = found["coverage"], found["sizes"]
    alone = sizes.get("1", 0) / max(1, sum(sizes.values()))
    return "<h3>Sets that hold the truth</h3>" + paragraph(
        f"All classes scoring at least {found['threshold']:.3f} together hold the true one in {words.percent(coverage['value'])} "
        f"of the images ({words.metric_range('accuracy', coverage)}); {words.percent(found['promised'], 0)} was promised.",
        f"Such a set has {found['mean_size']:.2f} classes on average, and one alone for {words.percent(alone)} of the images.",
    )


def _inspection(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    header = [
        cell(f"{found['good']} rejected at most", head=True),
        cell("Threshold", head=True, number=True),
        cell("Overkill", head=True, number=True),
        cell("Escapes", head=True, number=True),
    ]
    rows = [
        [
            cell(words.percent(point["target"], 0)),
            cell(f"{point['threshold']:.3f}", number=True),
            _share(point["overkill"]),
            _share(point["escapes"]),
        ]
        for point in found["points"]
    ]
    return (
        "<h3>Escapes at fixed overkill</h3>"
        + paragraph(
            f"A part is rejected where one minus its score of {found['good']!r} reaches the threshold. Escapes are faulty parts that "
            "pass, overkill good ones that are rejected."
        )
        + table(header, rows)
    )


def _operating(found: Mapping[str, Any]) -> str:
    if not found:
        return ""
    header = [
        cell("Class", head=True),
        cell("Aim", head=True),
        cell("Threshold", head=True, number=True),
        cell("Sensitivity", head=True, number=True),
        cell("Specificity", head=True, number=True),
        cell("Precision", head=True, number=True),
    ]
    rows = [
        [
            cell(name if number == 0 else ""),
            cell(_aim(point)),
            cell(f"{point['threshold']:.3f}", number=True),
            _share(point["sensitivity"]),
            _share(point["specificity"]),
            _share(point["precision"]),
        ]
        for name, points in found.items()
        for number, point in enumerate(points)
    ]
    return "<h3>Operating points</h3>" + folded(
        f"Operating points of {words.counted(len(found), 'class')}", table(header, rows), fold=len(found) > LONG
    )


def _aim(point: Mapping[str, Any]) -> str:
    share = words.percent(point["target"], 0)
    return f"at least {share} found" if point["aim"] == "recall" else f"at most {share} false alarms"


def _share(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return cell(words.NO_NUMBER, number=True)
    return cell(words.percent(found["value"]), number=True, note=words.metric_range("accuracy", found))
