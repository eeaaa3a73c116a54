"""What a study found, in sentences that a newcomer understands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vitreous.evaluation.paired import PairResult
from vitreous.evaluation.words import percent

TIMES = 1.15
"""Ratio of two costs below which they are called alike."""


def verdict(models: Sequence[Mapping[str, Any]], pairs: Sequence[PairResult]) -> list[str]:
    """The answer first: which model is more accurate, as far as can be claimed; then what it costs."""
    trained = [entry for entry in models if entry["accuracy"]["value"] is not None]
    if len(trained) < 2:
        return ["Fewer than two models finished, so there is nothing to compare."]
    best = max(trained, key=lambda entry: entry["accuracy"]["value"])
    return [_accuracy(best["name"], trained, pairs), *_costs(trained)]


def _accuracy(best: str, models: Sequence[Mapping[str, Any]], pairs: Sequence[PairResult]) -> str:
    own = {pair.b if pair.a == best else pair.a: pair for pair in pairs if best in (pair.a, pair.b)}
    if not own:
        return f"{best} has the highest accuracy, but no seed finished for all models, so none can be compared."
    if len(models) == 2:
        pair = next(iter(own.values()))
        return f"{_capital(pair.verdict)}."
    beaten = [name for name, pair in own.items() if pair.settled]
    alike = [name for name, pair in own.items() if pair.equivalent and not pair.settled]
    open_ = [name for name in own if name not in beaten and name not in alike]
    value = percent(next(entry["accuracy"]["value"] for entry in models if entry["name"] == best))
    parts = [f"{best} has the highest accuracy, {value}"]
    if beaten:
        parts.append(f"and is shown to be better than {listed(beaten)}")
    if alike:
        parts.append(f"{listed(alike)} {'are' if len(alike) > 1 else 'is'} as good within the margin")
    if open_:
        parts.append(f"against {listed(open_)} these images and seeds do not decide")
    return "; ".join(parts).replace("; and", ", and") + "."


def _costs(models: Sequence[Mapping[str, Any]]) -> list[str]:
    """Who is quicker and who needs less, where it is not alike."""
    sentences = []
    for key, what in (("latency_ms", "is the quickest with one image"), ("train_seconds", "trains in the least time")):
        ranked = sorted((entry for entry in models if entry.get(key)), key=lambda entry: entry[key])
        if len(ranked) > 1 and ranked[1][key] >= TIMES * ranked[0][key]:
            times = [f"{entry['name']} {entry[key] / ranked[0][key]:.1f} times as long" for entry in ranked[1:4]]
            sentences.append(f"{_capital(ranked[0]['name'])} {what} ({_unit(key, ranked[0][key])}); {listed(times)}.")
    return sentences


def _unit(key: str, value: float) -> str:
    return f"{value:.3g} ms" if key == "latency_ms" else f"{value:.3g} s"


def listed(names: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _capital(sentence: str) -> str:
    """With a capital, unless it begins with the name of a model."""
    first = sentence.split(" ", 1)[0]
    return sentence if "_" in first or any(letter.isdigit() for letter in first) else sentence[0].upper() + sentence[1:]
