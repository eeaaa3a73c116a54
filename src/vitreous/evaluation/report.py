"""`report.html`: what a run found, on one page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitreous.evaluation import words
from vitreous.evaluation.facts import DataSummary, HeatMap, Mistake, ModelSummary, ReportFacts
from vitreous.evaluation.fragments import (
    bullets,
    card,
    cell,
    command,
    definitions,
    drawing,
    folded,
    interval_bar,
    interval_scale,
    paragraph,
    photograph,
    section,
    strip,
    table,
    tag,
    text,
)
from vitreous.evaluation.page import page, warnings
from vitreous.evaluation.report_further import costs_section, learning_section, robustness_section, subgroups_section
from vitreous.evaluation.report_thresholds import thresholds_section
from vitreous.runs.atomic import write_text

CHOOSING = "used for choosing"
LONG = 30
"""Tables with more rows than this are folded."""
SHOWN_FILES = 20


def write_report(path: Path, facts: ReportFacts) -> None:
    """Write the page, atomically. Raises RunError where the place cannot be written."""
    write_text(path, render_report(facts))


def render_report(facts: ReportFacts) -> str:
    """The page as one string of HTML."""
    part = facts.parts[0]
    asked = {name: facts.metrics.get(name, {}).get(part) for name in ("subgroups", "costs", "robustness", "learning")}
    sections = {
        "Results": _results(facts),
        "Classes": _classes(facts),
        "Subgroups": subgroups_section(asked["subgroups"] or {}),
        "Mistakes": _mistakes(facts),
        "Confidence": _confidence(facts),
        "Acting on scores": thresholds_section(facts.metrics.get("decisions", {}).get(part, {}), part),
        "Costs": costs_section(asked["costs"], part),
        "Robustness": robustness_section(asked["robustness"], facts.pictures.get("robustness")),
        "More labels": learning_section(asked["learning"], facts.pictures.get("learning")),
        "Explanations": _explanations(facts),
        "Training" if facts.decisions else "Timing": _training(facts),
        "Data": _data(facts.data),
        "Model": _model(facts.model),
        "Reproduce": _reproduce(facts),
    }
    return page(
        facts.title,
        _head(facts) + "\n" + warnings("Before you trust this number", facts.warnings),
        sections,
        f"The same facts, for programs: {facts.kept_in}.",
    )


def _head(facts: ReportFacts) -> str:
    found, part = facts.headline, facts.parts[0]
    number = f"{100 * found['value']:.1f}<small> %</small>"
    marked = " " + tag(CHOOSING) if part in facts.chosen_on else ""
    supports = [row["support"] for row in facts.metrics["per_class"][part].values()]
    chance = None if facts.several_labels else max(supports) / found["n"]
    scale = interval_scale(found["value"], found["low"], found["high"], chance)
    return f"""<header>
<div class="kicker">vitreous report</div>
<h1>{text(facts.title)}</h1>
<div class="headline"><div class="number">{number}</div>
<div class="words"><strong>of the {text(part)} images {text(_headline_words(facts))}{marked}</strong>
95&nbsp;% interval {text(words.metric_range("accuracy", found))}, from {text(words.counted(found["n"], "image"))}: {text(found["method"])}</div></div>
{scale}
</header>"""


def _headline_words(facts: ReportFacts) -> str:
    return "have exactly the right labels" if facts.several_labels else "are classified correctly"


def _results(facts: ReportFacts) -> str:
    parts = facts.parts
    header = [cell("Metric, with 95 % interval", head=True)]
    for part in parts:
        marked = " " + tag(CHOOSING) if part in facts.chosen_on else ""
        header.append(f'<th class="num">{text(part)}{marked}</th>')
    rows = []
    for name in facts.metrics[parts[0]]:
        row = [cell(words.metric_name(name), note=words.METRIC_MEANINGS.get(name, ""))]
        for part in parts:
            found = facts.metrics[part][name]
            value, span = words.metric_value(name, found), words.metric_range(name, found)
            row.append(cell(value, number=True, note=span, marked=part in facts.chosen_on))
        rows.append(row)
    chosen = [part for part in parts if part in facts.chosen_on]
    remark = (
        f"Training and its choices have seen the {' and '.join(chosen)} part, so its hatched numbers flatter the model."
        if chosen
        else ""
    )
    return section(
        "results",
        "Results",
        table(header, rows),
        paragraph(remark) if remark else "",
        bullets(facts.metrics.get("notes", ())) if facts.metrics.get("notes") else "",
        f'<p class="small">{text(_methods(facts))}</p>',
    )


def _methods(facts: ReportFacts) -> str:
    """How the intervals of the headline part were made, each method once."""
    names: dict[str, list[str]] = {}
    beside = []
    for name, found in facts.metrics[facts.parts[0]].items():
        names.setdefault(found["method"], []).append(words.metric_name(name))
        if bounds := found.get("bootstrap"):
            low, high = map(float, bounds)
            beside.append(f"{words.metric_range(name, {'low': low, 'high': high})} for {words.metric_name(name)}")
    made = "; ".join(f"{method} for {', '.join(users)}" for method, users in names.items())
    return f"Intervals: {made}." + (f" A bootstrap gives {', '.join(beside)}." if beside else "")


def _classes(facts: ReportFacts) -> str:
    per_class: Mapping[str, Mapping[str, Any]] = facts.metrics["per_class"][facts.parts[0]]
    header = [
        cell("Class", head=True),
        cell("Images", head=True, number=True),
        cell("Recall", head=True, number=True),
        "<th></th>",
        cell("95 % interval", head=True, number=True),
        cell("Precision", head=True, number=True),
        cell("F1", head=True, number=True),
        cell("AUROC", head=True, number=True),
    ]
    rows = []
    for name, row in per_class.items():
        found = row["recall_interval"] or {"value": None, "low": None, "high": None}
        rows.append(
            [
                cell(name),
                cell(f"{row['support']:,}", number=True),
                cell(words.percent(row["recall"]), number=True),
                interval_bar(found["value"], found["low"], found["high"]),
                cell(words.metric_range("recall", found) or words.NO_NUMBER, number=True),
                cell(words.percent(row["precision"]), number=True),
                cell(words.decimal(row["f1"]), number=True),
                cell(words.decimal(row["auroc"]), number=True),
            ]
        )
    return section(
        "classes",
        "Classes",
        paragraph(_worst_classes(per_class)),
        folded(f"All {len(rows)} classes of the {facts.parts[0]} part", table(header, rows), fold=len(rows) > LONG),
    )


def _worst_classes(per_class: Mapping[str, Mapping[str, Any]]) -> str:
    known = sorted((row["recall"], name) for name, row in per_class.items() if row["recall"] is not None)
    if len(known) < 3 or known[0][0] == known[-1][0]:
        return ""
    most = 3 if len(known) > 5 else 1
    worst = ", ".join(f"{name} ({words.percent(recall, 0)})" for recall, name in known[:most])
    best = ", ".join(f"{name} ({words.percent(recall, 0)})" for recall, name in known[: -most - 1 : -1])
    return f"Found least often: {worst}. Most often: {best}."


def _mistakes(facts: ReportFacts) -> str:
    part = facts.parts[0]
    pairs = facts.confused_pairs()
    listed = table(
        [cell("Label", head=True), cell("Taken for", head=True), cell("Images", head=True, number=True)],
        [
            [cell(label), cell(called), cell(f"{count} of {total:,}", number=True)]
            for label, called, count, total in pairs
        ],
    )
    gallery = "".join(_mistake(found) for found in facts.mistakes)
    return section(
        "mistakes",
        "Mistakes",
        drawing(
            facts.pictures.get("confusion"),
            "Confusion matrix",
            f"Confusion matrix of the {part} part: a row is a label, a column what it was taken for. Shade is the share of "
            "the row, on a root scale so that rare mistakes show.",
        ),
        "<h3>Confused most often</h3>" + listed
        if pairs
        else ""
        if facts.several_labels
        else paragraph(f"No mistake on the {part} part."),
        "<h3>Wrong and sure of it</h3>" if gallery else "",
        f'<div class="gallery">{gallery}</div>' if gallery else "",
    )


def _mistake(found: Mistake) -> str:
    notes = [f"labelled {found.true}", f"score {words.percent(found.score)}"]
    near = strip("nearest in training", [(each.image, each.label) for each in found.neighbours])
    picture = photograph(found.image, f"{found.true}, taken for {found.predicted}")
    return card([picture], found.predicted, notes, found.path, near)


def _confidence(facts: ReportFacts) -> str:
    calibration = facts.metrics["calibration"][facts.parts[0]]
    before, after = words.percent(calibration["ece_before"]), words.percent(calibration["ece_after"])
    return section(
        "confidence",
        "Confidence",
        paragraph(
            f"Logits are divided by {calibration['temperature']:.3f} (temperature scaling, fitted on the validation part).",
            f"On the {facts.parts[0]} part this moves the calibration error from {before} to {after}{_by_chance(calibration)}.",
        ),
        drawing(
            facts.pictures.get("reliability"),
            "Reliability diagrams before and after temperature scaling",
            "Reliability: on the dashed line a score of 80 % is right 80 % of the time; below it the model is too sure. "
            "The size of a dot grows with the number of images; a line shows where the share may lie (95 %).",
        ),
        _abstention(facts.abstention),
        ""
        if facts.parts[0] in facts.chosen_on
        else _abstention_here(
            facts.metrics.get("decisions", {}).get(facts.parts[0], {}).get("abstention"), facts.parts[0]
        ),
        drawing(
            facts.pictures.get("coverage_risk"),
            "Error rate against share of images answered",
            f"What abstaining buys: the error rate among the {facts.parts[0]} images answered, as unsure ones are set aside.",
        ),
    )


def _by_chance(calibration: Mapping[str, Any]) -> str:
    """What remains of the error when the part that few images add is taken off."""
    corrected = calibration["ece_after_interval"]["corrected"]
    if corrected is None:
        return ""
    return f"; without what chance adds on so few images it is about {words.percent(corrected)}"


def _abstention(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    if found["threshold"] <= 0 and not found["note"]:
        return paragraph(
            f"The model never abstains: its answers already reach {words.percent(found['target'], 0)} on the validation part."
        )
    return paragraph(
        f"Below a score of {found['threshold']:.3f} the model abstains. On the validation part it then answers "
        f"{words.percent(found['coverage'])} of the images and is right in {words.percent(found['accuracy'])} of those "
        f"({words.metric_range('accuracy', found)}).",
        found["note"],
    )


def _abstention_here(found: Mapping[str, Any] | None, part: str) -> str:
    """found: as `abstention.judge_threshold` gives it."""
    if found is None or not found["threshold"]:
        return ""
    coverage, right = found["coverage"], found["accuracy"]
    if right is None:
        return paragraph(f"On the {part} part it answers nothing.")
    return paragraph(
        f"On the {part} part it answers {words.percent(coverage['value'])} ({words.metric_range('accuracy', coverage)}) and is "
        f"right in {words.percent(right['value'])} of those ({words.metric_range('accuracy', right)})."
    )


def _explanations(facts: ReportFacts) -> str:
    gallery = "".join(_heat_map(found) for found in facts.heat_maps)
    return section("explanations", "Explanations", f'<div class="gallery pairs">{gallery}</div>' if gallery else "")


def _heat_map(found: HeatMap) -> str:
    right = "right" if found.true == found.predicted else f"labelled {found.true}"
    images = [photograph(found.image, found.true), photograph(found.overlay, f"{found.method} for {found.predicted}")]
    return card(images, found.predicted, [f"{right}, score {words.percent(found.score)}", found.method], found.path)


def _training(facts: ReportFacts) -> str:
    timing = [words.timing_entry(name, value) for name, value in facts.metrics.get("timing", {}).items()]
    if not facts.decisions:  # an evaluation alone
        return section("timing", "Timing", definitions(timing))
    return section(
        "training",
        "Training",
        drawing(
            facts.pictures.get("curves"), "Training curves", "Loss, validation accuracy and learning rate by step."
        ),
        "<h3>What was decided, and why</h3>" + bullets(facts.decisions),
        "<h3>Timing</h3>" + definitions(timing) if timing else "",
    )


def _data(data: DataSummary | None) -> str:
    if data is None:
        return ""
    parts = list(data.counts)
    classes = list(dict.fromkeys(name for counts in data.counts.values() for name in counts))
    header = [cell("Class", head=True), *(cell(part, head=True, number=True) for part in parts)]
    rows = [
        [cell(name), *(cell(f"{data.counts[part].get(name, 0):,}", number=True) for part in parts)] for name in classes
    ]
    total = [cell("all"), *(cell(f"{sum(data.counts[part].values()):,}", number=True) for part in parts)]
    modes = ", ".join(f"{mode} {count:,}" for mode, count in data.modes.items())
    groups = ", ".join(f"{part} {count:,}" for part, count in data.groups.items())
    entries = [("source", data.source), ("sizes", data.sizes), ("modes", modes), ("groups", groups)]
    shown = [f"{path}: {reason}" for path, reason in data.bad_files[:SHOWN_FILES]]
    if len(data.bad_files) > SHOWN_FILES:
        shown.append(f"and {len(data.bad_files) - SHOWN_FILES} more, listed in bad_files.csv")
    return section(
        "data",
        "Data",
        definitions(entries),
        folded(f"Images of {len(rows)} classes", table(header, rows, total), fold=len(rows) > LONG),
        f"<h3>{text(words.counted(len(data.bad_files), 'file'))} left out</h3>" + bullets(shown) if shown else "",
    )


def _model(model: ModelSummary | None) -> str:
    if model is None:
        return ""
    entries = [
        ("architecture", model.name),
        ("parameters", words.amount(model.parameters)),
        ("multiply-accumulates", f"{words.amount(model.macs)} an image" if model.macs else ""),
        ("input", f"{model.image_size} × {model.image_size} pixels" if model.image_size else ""),
        ("initial weights", model.initial_weights),
        ("their licence", model.licence),
    ]
    return section("model", "Model", definitions(entries))


def _reproduce(facts: ReportFacts) -> str:
    following = "".join(paragraph(purpose) + command(line) for line, purpose in facts.next_commands)
    return section(
        "reproduce",
        "Reproduce and go on",
        command(facts.command) if facts.command else "",
        definitions(facts.environment.items()),
        "<h3>Next</h3>" + following if following else "",
    )
