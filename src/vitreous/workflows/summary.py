"""Results as short text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vitreous.runs.folder import METRICS, REPORT

NAMES = {
    "accuracy": "accuracy",
    "top5_accuracy": "top-5 accuracy",
    "balanced_accuracy": "balanced accuracy",
    "label_accuracy": "label accuracy",
    "macro_precision": "macro precision",
    "macro_recall": "macro recall",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "mcc": "Matthews correlation",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "ece": "calibration error",
    "brier": "Brier score",
    "nll": "log loss",
}
PERCENT = (
    "accuracy", "top5_accuracy", "balanced_accuracy", "macro_precision", "macro_recall", "macro_f1", "micro_f1", "label_accuracy", "auroc", "average_precision", "ece",
)  # fmt: skip


ESCAPES_AT = 0.05
"""Share of good parts that may be rejected, whose escapes a terminal shows; the report has more."""


def number(name: str, found: Mapping[str, Any]) -> str:
    """ "98.9 % (97.2 to 99.6)", or the plain value for losses."""
    if found["value"] is None:
        return "undefined"
    scale, unit, digits = (100, " %", 1) if name in PERCENT else (1, "", 3)
    text = f"{scale * found['value']:.{digits}f}{unit}"
    if found["low"] is None:
        return text
    return f"{text} ({scale * found['low']:.{digits}f} to {scale * found['high']:.{digits}f})"


def metrics_table(metrics: Mapping[str, Any]) -> str:
    """Each metric with its 95 % interval, a column for each part."""
    parts = list(metrics["per_class"])
    rows = [["", *(f"{part} ({metrics[part]['accuracy']['n']:,} images)" for part in parts)]]
    for name, label in NAMES.items():
        if name in metrics[parts[0]]:
            rows.append([label, *(number(name, metrics[part][name]) for part in parts)])
    return aligned(rows)


def evaluation_summary(metrics: Mapping[str, Any]) -> str:
    """What `evaluate` prints: the metrics, the classes, what thresholds do, then what was asked for besides."""
    (part,) = metrics["per_class"]
    lines = [metrics_table(metrics), "", *_classes(metrics, part), *_decisions(metrics, part)]
    for part, tables in metrics.get("subgroups", {}).items():
        for column, found in tables.items():
            measures = [name for name in found["rows"][0] if name in NAMES]
            rows = [[f"{column}, {part}", "images", *(NAMES[name] for name in measures)]]
            rows += [
                [row["value"], f"{row['n']:,}", *(number(name, row[name]) for name in measures)]
                for row in found["rows"]
            ]
            lines += ["", aligned(rows), found["verdict"]]
    for part, found in metrics.get("costs", {}).items():
        likeliest, cheapest = number("cost", found["likeliest"]), number("cost", found["cheapest"])
        lines += [
            "",
            f"Cost of a {part} image: {likeliest} with the likeliest class as the answer, {cheapest} with the cheapest; they differ "
            f"for {100 * found['changed']:.1f} % of the images.",
        ]
    for part, found in metrics.get("robustness", {}).items():
        rows = [[f"{found['n']:,} {part} images made worse", *(str(severity) for severity in range(1, 6))]]
        rows += [
            [name, *(f"{100 * each['value']:.1f}" for each in row["severities"])]
            for name, row in found["corruptions"].items()
        ]
        lines += [
            "",
            aligned(rows),
            f"Accuracy in %, by severity: {number('accuracy', found['clean'])} as they are, {number('accuracy', found['mean'])} on average "
            "over all ways and severities.",
        ]
    for part, found in metrics.get("learning", {}).items():
        name = found["measure"]
        rows = [[f"labelled images, asked about {part}", NAMES[name]]]
        rows += [[f"{each['images']:,}", number(name, each["accuracy"])] for each in found["points"]]
        rows += [[f"{each['images']:,}, foretold", number(name, each["accuracy"])] for each in found["further"]]
        lines += ["", aligned(rows), found["verdict"], found["note"]]
    return "\n".join(lines)


def run_summary(path: Path, metrics: Mapping[str, Any]) -> str:
    """What `train` prints at its end."""
    lines = ["", metrics_table(metrics), "", *(f"! {note}" for note in metrics.get("notes", ()))]
    part = "test" if "test" in metrics["per_class"] else next(iter(metrics["per_class"]))
    told = [*_classes(metrics, part), *_decisions(metrics, part)]
    lines += [
        *told,
        *([""] if told else []),
        f"run     {path}",
        f"report  {path / REPORT}",
        f"data    {path / METRICS}",
        "",
        "Next:",
        f"  vitreous predict {path} IMAGE...",
        f"  vitreous explain {path} IMAGE",
        f"  vitreous serve {path}",
    ]
    return "\n".join(lines)


def _classes(metrics: Mapping[str, Any], part: str) -> list[str]:
    """Which classes are found least often, and what they are taken for."""
    rows = [(row["recall"], name, row) for name, row in metrics["per_class"][part].items() if row["recall"] is not None]
    worst = [
        f"{name} {number('accuracy', row['recall_interval'])} of {row['support']:,}"
        for _, name, row in sorted(rows, key=lambda row: row[0])[:3]
    ]
    lines = [f"Found least often in the {part} part: {', '.join(worst)}"] if len(rows) > 1 else []
    if pairs := confused(metrics, part) if metrics["confusion"][part] else []:
        lines.append(f"Most confused: {'; '.join(pairs)}")
    return lines


def _decisions(metrics: Mapping[str, Any], part: str) -> list[str]:
    """What thresholds that were fitted to validation do on a part, a line each."""
    found, lines = metrics.get("decisions", {}).get(part, {}), []
    if (abstention := found.get("abstention")) and abstention["threshold"] and abstention["accuracy"]:
        lines.append(
            f"Answering from a score of {abstention['threshold']:.2f} on: {number('accuracy', abstention['coverage'])} answered, "
            f"{number('accuracy', abstention['accuracy'])} of those right"
        )
    if conformal := found.get("conformal"):
        lines.append(
            f"Sets promised to hold the true class {100 * conformal['promised']:.0f} % of the time: "
            f"{number('accuracy', conformal['coverage'])}, {conformal['mean_size']:.2f} classes each"
        )
    lines += [
        f"Rejecting at most {100 * ESCAPES_AT:.0f} % of {found['inspection']['good']!r} (here {number('accuracy', point['overkill'])}): "
        f"{number('accuracy', point['escapes'])} of the others escape"
        for point in found.get("inspection", {}).get("points", ())
        if point["target"] == ESCAPES_AT and point["escapes"] and point["overkill"]
    ]
    return lines


def confused(metrics: Mapping[str, Any], part: str, most: int = 3) -> list[str]:
    """ "crack taken for break (3 of 14)", worst first."""
    classes, matrix = list(metrics["per_class"][part]), metrics["confusion"][part]
    pairs = [
        (count, f"{classes[row]} taken for {classes[column]} ({count} of {sum(counts)})")
        for row, counts in enumerate(matrix)
        for column, count in enumerate(counts)
        if row != column and count
    ]
    return [text for _, text in sorted(pairs, key=lambda pair: -pair[0])[:most]]


def repeats_table(repeats: Mapping[str, Any]) -> str:
    """Mean and spread over several runs, a line for each metric of the test part, and each run's accuracies."""
    parts = [part for part in ("val", "test") if part in repeats]
    rows = [["run", *(f"{part} accuracy" for part in parts)]]
    rows += [[entry["name"], *(_percent(entry[part]["accuracy"]) for part in parts)] for entry in repeats["runs"]]
    runs = len(repeats["runs"])
    lines = [aligned(rows), "", f"Mean of {runs} runs, deviation between them, 95 % interval of the mean:"]
    rows = [["", *(part for part in parts)]]
    for name, label in NAMES.items():
        if name in repeats[parts[0]]:
            rows.append([label, *(_spread(name, repeats[part][name]) for part in parts)])
    lines.append(aligned(rows))
    if "pooled" in repeats:
        found = repeats["pooled"]["accuracy"]
        lines += [
            "",
            f"On all {found['n']:,} validation images, each judged by a model that did not learn from it: accuracy {number('accuracy', found)}",
        ]
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "undefined" if value is None else f"{100 * value:.1f} %"


def _spread(name: str, found: Mapping[str, Any]) -> str:
    """ "98.6 % ± 0.4 (97.9 to 99.3)": mean, standard deviation, interval."""
    if found["mean"] is None:
        return "undefined"
    scale, unit, digits = (100, " %", 1) if name in PERCENT else (1, "", 3)
    text = f"{scale * found['mean']:.{digits}f}{unit}"
    if found["deviation"] is None:
        return text
    interval = f"{scale * found['low']:.{digits}f} to {scale * found['high']:.{digits}f}"
    return f"{text} ± {scale * found['deviation']:.{digits}f} ({interval})"


def comparison_table(models: Sequence[Mapping[str, Any]]) -> str:
    """Accuracy and cost of the models of a comparison; one that failed says why."""
    rows = [["model", "test accuracy (95 % interval)", "parameters", "MACs", "training", "memory", "one image"]]
    failed = []
    for entry in models:
        if entry["accuracy"]["value"] is None:
            failed.append(f"{entry['name']} {entry['accuracy']['method']}")
            continue
        rows.append(
            [
                entry["name"],
                number("accuracy", entry["accuracy"]),
                f"{entry['parameters'] / 1e6:.2f} M",
                f"{entry['macs'] / 1e6:,.1f} M",
                f"{entry['train_seconds']:.0f} s",
                f"{entry['memory']['training_bytes'] / 1e6:,.0f} MB",
                "-" if entry["latency_ms"] is None else f"{entry['latency_ms']:.2f} ms",
            ]
        )
    return "\n".join([aligned(rows), *failed])


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest cell; the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
