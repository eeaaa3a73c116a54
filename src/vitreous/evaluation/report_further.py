"""Sections of a report that `vitreous evaluate` adds where they were asked for: subgroups, costs, robustness, more labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vitreous.evaluation import words
from vitreous.evaluation.fragments import cell, drawing, folded, interval_bar, paragraph, section, table

LONG = 30
"""Tables with more rows than this are folded."""


def subgroups_section(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """tables: {column: `Subgroups.to_dict()`}."""
    parts = []
    for column, found in tables.items():
        measures = [name for name in found["rows"][0] if name not in ("value", "n")] if found["rows"] else []
        header = [
            cell(column, head=True),
            cell("Images", head=True, number=True),
            *(cell(words.metric_name(name), head=True, number=True) for name in measures),
            "<th></th>",
        ]
        rows = []
        for row in found["rows"]:
            first = row["accuracy"]
            rows.append(
                [
                    cell(row["value"]),
                    cell(f"{row['n']:,}", number=True),
                    *(_measured(name, row[name]) for name in measures),
                    interval_bar(first["value"], first["low"], first["high"]),
                ]
            )
        parts += [
            paragraph(found["verdict"]),
            folded(f"All {len(rows)} values", table(header, rows), fold=len(rows) > LONG),
        ]
    return section("subgroups", "Subgroups", *parts)


def costs_section(found: Mapping[str, Any] | None, part: str) -> str:
    """found: as `evaluation.costs.expected_costs` gives it."""
    if not found:
        return ""
    likeliest, cheapest = (_plain(found[name]) for name in ("likeliest", "cheapest"))
    return section(
        "costs",
        "Costs",
        paragraph(
            f"A {part} image costs {likeliest} where the likeliest class is the answer, {cheapest} where the cheapest is; "
            f"they differ for {words.percent(found['changed'])} of the images."
        ),
    )


def robustness_section(found: Mapping[str, Any] | None, picture: bytes | None) -> str:
    """found: as `workflows.robustness` gives it."""
    if not found:
        return ""
    clean, mean = found["clean"], found["mean"]
    name, worst = min(found["corruptions"].items(), key=lambda item: item[1]["mean"])
    header = [cell("Made worse by", head=True), *(cell(f"severity {k}", head=True, number=True) for k in range(1, 6))]
    rows = [
        [cell(way, note=row["kind"]), *(_measured("accuracy", each) for each in row["severities"])]
        for way, row in found["corruptions"].items()
    ]
    return section(
        "robustness",
        "Robustness",
        paragraph(
            f"{words.percent(clean['value'])} of {found['n']:,} images are right as they are ({words.metric_range('accuracy', clean)}), "
            f"{words.percent(mean['value'])} on average over {len(rows)} ways of making them worse at five severities "
            f"({words.metric_range('accuracy', mean)}).",
            f"Worst is {name}: {words.percent(worst['mean'])}.",
        ),
        drawing(
            picture,
            "Accuracy against severity",
            "A dashed line is the accuracy on images as they are; bands are 95 % intervals.",
        ),
        folded(f"All {len(rows)} ways", table(header, rows), fold=True),
    )


def learning_section(found: Mapping[str, Any] | None, picture: bytes | None) -> str:
    """found: as `workflows.learning` gives it."""
    if not found:
        return ""
    return section(
        "more-labels",
        "More labels",
        paragraph(found["verdict"]),
        drawing(
            picture,
            "Accuracy against the number of labelled images",
            "What shares of the training images give, and a power law that goes on from them; bands are 95 % intervals.",
        ),
        paragraph(found["note"]),
    )


def _measured(name: str, found: Mapping[str, Any]) -> str:
    return cell(words.metric_value(name, found), number=True, note=words.metric_range(name, found))


def _plain(found: Mapping[str, Any]) -> str:
    """ "1.24 (1.10 to 1.39)"."""
    span = "" if found["low"] is None else f" ({found['low']:.3g} to {found['high']:.3g})"
    return f"{found['value']:.3g}{span}"
