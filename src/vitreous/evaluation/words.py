"""Numbers as a reader wants them: percentages, intervals, durations, thousands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NO_NUMBER = "–"
SPACE = "\u00a0"
"""Between a number and its unit, so that no line breaks there."""
METRIC_NAMES = {
    "accuracy": "Accuracy",
    "top5_accuracy": "Top-5 accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "label_accuracy": "Label accuracy",
    "macro_precision": "Macro precision",
    "macro_recall": "Macro recall",
    "macro_f1": "Macro F1",
    "micro_f1": "Micro F1",
    "mcc": "Matthews correlation",
    "auroc": "AUROC",
    "average_precision": "Average precision",
    "ece": "Calibration error",
    "brier": "Brier score",
    "nll": "Log loss",
}
METRIC_MEANINGS = {
    "accuracy": "share of images that are right",
    "top5_accuracy": "share with the label among the five likeliest",
    "balanced_accuracy": "mean recall of the classes",
    "label_accuracy": "share of single answers, label there or not, that are right",
    "macro_precision": "mean precision of the classes",
    "macro_recall": "mean recall of the classes",
    "macro_f1": "mean F1 of the classes",
    "micro_f1": "F1 of all answers together",
    "mcc": "correlation of labels and answers; 0 is chance, 1 perfect",
    "auroc": "chance that an image of a class scores above another",
    "average_precision": "mean precision as more and more images of a class are found",
    "ece": "gap between score and share that is right, chance included; the interval leaves chance out",
    "brier": "squared distance of scores from the truth; lower is better",
    "nll": "surprise at the labels, nats; lower is better",
}
PLAIN_NUMBERS = (
    "auroc",
    "average_precision",
    "brier",
    "nll",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    "micro_f1",
    "mcc",
)
"""Metrics printed as decimals; the others are percentages."""


def percent(value: float | None, digits: int = 1) -> str:
    return NO_NUMBER if value is None else f"{100 * value:.{digits}f}{SPACE}%"


def decimal(value: float | None) -> str:
    return NO_NUMBER if value is None else f"{value:.3f}"


def metric_name(name: str) -> str:
    return METRIC_NAMES.get(name, name)


def metric_value(name: str, found: Mapping[str, Any]) -> str:
    return decimal(found["value"]) if name in PLAIN_NUMBERS else percent(found["value"])


def metric_range(name: str, found: Mapping[str, Any]) -> str:
    """ "77.4 to 85.9 %", or nothing where there is no interval."""
    low, high = found["low"], found["high"]
    if low is None or high is None:
        return ""
    if name in PLAIN_NUMBERS:
        return f"{low:.3f} to {high:.3f}"
    return f"{100 * low:.1f} to {100 * high:.1f}{SPACE}%"


def duration(seconds: float) -> str:
    """0.4 s, 32 s, 8 min 32 s, 2 h 5 min."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def amount(value: float) -> str:
    """5.7 million, 1.08 billion; smaller numbers in full with thousands apart."""
    for size, word in ((1e15, "quadrillion"), (1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if value >= size:
            return f"{value / size:.3g} {word}"
    return f"{value:,.0f}"


def timing_entry(name: str, value: Any) -> tuple[str, str]:
    """An entry of the timing in words: ("train_seconds", 512.3) -> ("train", "8 min 32 s")."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return name.replace("_", " "), str(value)
    if name.endswith("_seconds") or name == "seconds":
        return name.removesuffix("_seconds").replace("_", " "), duration(value)
    if name.endswith("_bytes"):
        return name.removesuffix("_bytes").replace("_", " "), f"{value / 1e9:,.2f} GB"
    if name.endswith("_ms"):
        return name.removesuffix("_ms").replace("_", " "), f"{value:.3g} ms"
    if name.endswith("_utilisation"):
        return name.replace("_", " "), percent(value)
    if name.endswith("_per_s"):
        return name.removesuffix("_per_s").replace("_", " ") + " per second", amount(value)
    return name.replace("_", " "), f"{value:,.6g}"


def counted(number: int, noun: str) -> str:
    """1 image, 1,200 images, 3 classes."""
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{number:,} {noun if number == 1 else plural}"
