"""Write benchmarks/RESULTS.md, and the results table of README.md, from results/*.json.

.venv/bin/python scripts/results_tables.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "benchmarks"
README = FOLDER.parent / "README.md"


def load(name: str) -> dict[str, Any] | None:
    path = FOLDER / "results" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def percent(found: dict[str, float]) -> str:
    return f"{100 * found['value']:.1f} ({100 * found['low']:.1f} to {100 * found['high']:.1f})"


def machine(facts: dict[str, Any]) -> str:
    return f"{facts['processor']}, {facts['cores']} cores, torch {facts['versions']['torch']}, {facts['date']}"


def quickstart(facts: dict[str, Any]) -> list[str]:
    seeds = len(facts["seeds"])
    lines = [
        f"`vitreous quickstart`, {seeds} seeds, each with its own split (`benchmarks/quickstart.py`; {machine(facts)}):",
        "",
        "| model | parameters | MACs | test accuracy, median (worst to best), % | training, s |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, found in facts["summary"].items():
        entry, accuracy, seconds = facts["seeds"][0]["models"][name], found["accuracy"], found["train_seconds"]
        lines.append(
            f"| {name} | {entry['parameters'] / 1e6:.2f} M | {entry['macs'] / 1e6:.1f} M | {100 * accuracy['median']:.1f} "
            f"({100 * accuracy['min']:.1f} to {100 * accuracy['max']:.1f}) | {seconds['median']:.0f} |"
        )
    total = facts["total_seconds"]
    lines += ["", f"The whole tour took {total['median']:.0f} s ({total['min']:.0f} to {total['max']:.0f})."]
    return lines


def datasets(facts: dict[str, Any]) -> list[str]:
    lines = [
        f"`vitreous train SET --time 5m`, no other argument, from random weights (`benchmarks/datasets.py`; {machine(facts)}). "
        "One seed each; test part as the set gives it; 95 % intervals. The two cores were shared with other work, so a quiet machine "
        "gets further in the time. Where an interval reaches down to chance (magnetic_tile), five minutes taught nothing:",
        "",
        "| set | train + val / test images | model | accuracy, % | balanced accuracy, % | AUROC, % | wall time, s |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in facts["sets"].items():
        counts, test = row["counts"], row["test"]
        lines.append(
            f"| {name} | {counts['train'] + counts['val']:,} / {counts['test']:,} | {row['model']} | {percent(test['accuracy'])} | "
            f"{percent(test['balanced_accuracy'])} | {percent(test['auroc'])} | {row['wall_seconds']:.0f} |"
        )
    return lines


def cpu_paths(facts: dict[str, Any]) -> list[str]:
    def cell(found: dict[str, float]) -> str:
        return f"{found['median']:.1f} ({found['min']:.1f} to {found['max']:.1f})"

    product = facts["matrix_product_ms"]
    lines = [
        f"Ways to compute on a CPU, interleaved in one process, one thread, processor time (`benchmarks/attention_paths.py`; {machine(facts)}). "
        "Milliseconds, median (least to greatest):",
        "",
        "| work | default or fused | as vitreous does it | ratio of medians |",
        "| --- | --- | --- | --- |",
        f"| fp32 product 1576 x 768 x 3072 | {cell(product['default'])} | {cell(product['onednn'])} | "
        f"{product['default']['median'] / product['onednn']['median']:.2f} |",
    ]
    for tokens, found in facts["attention_ms"].items():
        ratio = found["fused"]["median"] / found["plain"]["median"]
        lines.append(
            f"| attention forward and backward, {tokens} tokens | {cell(found['fused'])} | {cell(found['plain'])} | {ratio:.2f} |"
        )
    lines += ["", "A training step of vit_micro with two threads, by how OpenMP's threads wait, ms:", ""]
    names = list(facts["step_ms"]["alone"])
    lines += [f"| | {' | '.join(names)} |", "| --- |" + " --- |" * len(names)]
    for place, times in facts["step_ms"].items():
        lines.append(f"| {place} | " + " | ".join(f"{times[name]:.0f}" for name in names) + " |")
    return lines


def main() -> None:
    front: list[str] = []
    sections: list[str] = []
    for name, title, write in (
        ("quickstart", "Digits", quickstart),
        ("datasets", "Six data sets, five minutes each", datasets),
        ("attention_paths", "Computing on a CPU", cpu_paths),
    ):
        facts = load(name)
        if facts is None:
            continue
        text = write(facts)
        sections += [f"## {title}", "", *text, ""]
        if name != "attention_paths":
            front += [*text, ""]
    head = "# Results\n\nWritten by `scripts/results_tables.py` from `benchmarks/results/`. Machines are shared: read ratios and intervals.\n\n"
    (FOLDER / "RESULTS.md").write_text(head + "\n".join(sections).rstrip() + "\n", encoding="utf-8")
    block = "<!-- results: begin -->\n" + "\n".join(front).rstrip() + "\n<!-- results: end -->"
    readme = README.read_text(encoding="utf-8")
    README.write_text(
        re.sub(r"<!-- results: begin -->.*<!-- results: end -->", lambda _: block, readme, flags=re.S), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
