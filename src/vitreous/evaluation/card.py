"""`README.md` of a run folder: a model card that fits on a page."""

from __future__ import annotations

import re
from pathlib import Path

from vitreous.evaluation import words
from vitreous.evaluation.facts import ReportFacts
from vitreous.runs.atomic import write_text

SHOWN_CLASSES = 50


def write_model_card(path: Path, facts: ReportFacts) -> None:
    """Write the card, atomically. Raises RunError where the place cannot be written."""
    write_text(path, render_card(facts))


def render_card(facts: ReportFacts) -> str:
    """The card as Markdown."""
    blocks = [
        f"# {_plain(facts.title)}",
        _summary(facts),
        "\n".join(f"> **Warning.** {_plain(warning)}" for warning in facts.warnings),
        _use(facts),
        _results(facts),
        _classes(facts),
        _limits(facts),
        _origin(facts),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _summary(facts: ReportFacts) -> str:
    found, part = facts.headline, facts.parts[0]
    model = f"{_plain(facts.model.name)}, " if facts.model else ""
    source = f" of {_plain(facts.data.source)}" if facts.data else ""
    return (
        f"An image classifier ({model}{words.counted(len(facts.metrics['per_class'][part]), 'class')}"
        f"{', of which an image may have several or none' if facts.several_labels else ''}), right on **{words.percent(found['value'])}** of the {part} part{source}: 95 % interval "
        f"{words.metric_range('accuracy', found)}, {words.counted(found['n'], 'image')}, {_plain(found['method'])}. "
        "The full account is in `report.html`."
    )


def _use(facts: ReportFacts) -> str:
    lines = "\n".join(f"{line}  # {purpose}" if purpose else line for line, purpose in facts.next_commands)
    python = '```python\nimport vitreous\n\nvitreous.load(".").predict(["image.jpg"])\n```'
    return "## Use\n\n" + (f"```bash\n{lines}\n```\n\n" if lines else "") + python


def _results(facts: ReportFacts) -> str:
    parts = facts.parts
    heads = [f"{part} (used for choosing)" if part in facts.chosen_on else part for part in parts]
    rows = [f"| metric | {' | '.join(map(_plain, heads))} |", "| --- |" + " --- |" * len(parts)]
    for name in facts.metrics[parts[0]]:
        found = [facts.metrics[part][name] for part in parts]
        cells = [
            words.metric_value(name, entry) + (f" ({span})" if (span := words.metric_range(name, entry)) else "")
            for entry in found
        ]
        rows.append(f"| {words.metric_name(name)} | {' | '.join(cells)} |")
    return "## Results\n\nWith 95 % intervals.\n\n" + "\n".join(rows)


def _classes(facts: ReportFacts) -> str:
    per_class = facts.metrics["per_class"][facts.parts[0]]
    rows = [
        f"| {_plain(name)} | {row['support']} | {words.percent(row['recall'])} | {words.percent(row['precision'])} |"
        for name, row in list(per_class.items())[:SHOWN_CLASSES]
    ]
    more = f"\n\nand {len(per_class) - SHOWN_CLASSES} more." if len(per_class) > SHOWN_CLASSES else ""
    head = f"| class | {facts.parts[0]} images | recall | precision |\n| --- | --- | --- | --- |\n"
    return "## Classes\n\n" + head + "\n".join(rows) + more


def _limits(facts: ReportFacts) -> str:
    calibration = facts.metrics["calibration"][facts.parts[0]]
    sentences = [
        "The numbers hold for images like those it was evaluated on: same source, same devices, same mix of classes.",
        f"Scores are calibrated with temperature {calibration['temperature']:.3f} "
        f"(calibration error {words.percent(calibration['ece_after'])}).",
    ]
    if facts.abstention and facts.abstention["threshold"] > 0:
        sentences.append(
            f"Below a score of {facts.abstention['threshold']:.3f} it abstains; on the validation part it then answers "
            f"{words.percent(facts.abstention['coverage'])} of the images, {words.percent(facts.abstention['accuracy'])} of them rightly."
        )
    pairs = [f"{label} as {called} ({count} of {total})" for label, called, count, total in facts.confused_pairs(3)]
    if pairs:
        sentences.append(f"Commonest mistakes: {'; '.join(pairs)}.")
    return "## Limits\n\n" + "\n".join(f"- {_plain(sentence)}" for sentence in sentences)


def _origin(facts: ReportFacts) -> str:
    lines = []
    if facts.data:
        counts = ", ".join(f"{part} {sum(found.values()):,}" for part, found in facts.data.counts.items())
        lines.append(f"- Data: {_plain(facts.data.source)} ({_plain(counts)} images)")
    if facts.model:
        size = f"{words.amount(facts.model.parameters)} parameters"
        macs = f", {words.amount(facts.model.macs)} multiply-accumulates an image" if facts.model.macs else ""
        lines.append(f"- Architecture: {_plain(facts.model.name)}, {size}{macs}")
        if facts.model.initial_weights:
            licence = f" ({_plain(facts.model.licence)})" if facts.model.licence else ""
            lines.append(f"- Initial weights: {_plain(facts.model.initial_weights)}{licence}")
    lines += [f"- {_plain(name)}: {_plain(value)}" for name, value in facts.environment.items()]
    made = f"\n\n```bash\n{facts.command}\n```" if facts.command else ""
    return "## Origin\n\n" + "\n".join(lines) + made if lines or made else ""


def _plain(value: str) -> str:
    """Text that Markdown shows as written: one line, with the characters that mean something escaped."""
    line = " ".join(str(value).split())
    return re.sub(r"([\\`*{}\[\]<>#|]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))", r"\\\1", line)
