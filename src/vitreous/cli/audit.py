"""`vitreous audit DATA`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import tyro

from vitreous.cli.output import Console
from vitreous.cli.parse import Common, parse
from vitreous.config.audit import AuditConfig
from vitreous.errors import GateError

DESCRIPTION = """What is wrong with a data set, before anything is trained on it: unreadable files, exact and near duplicates,
leaks across parts, class balance, unusual images, labels that are likely wrong, and shortcuts that predict the label without
looking at the picture. Writes a page of examples, the same as JSON, and a table of proposed corrections."""


@dataclass(frozen=True, kw_only=True)
class AuditArguments(AuditConfig, Common):
    data: tyro.conf.Positional[str]
    """"digits", a folder, a CSV or Parquet manifest, tar shards, or hf:NAME."""


def run(arguments: Sequence[str], console: Console) -> int:
    parsed = parse(AuditArguments, arguments, "audit", DESCRIPTION)
    config = AuditConfig(**{field.name: getattr(parsed, field.name) for field in fields(AuditConfig)})
    if config.apply is not None:
        return _apply(parsed.data, config, console)
    if config.show_augmented:
        return _show_augmented(parsed.data, config, console)
    from vitreous.workflows.audit import audit, gate
    from vitreous.workflows.audit_facts import audit_text

    found, folder = audit(parsed.data, config, console)
    following = [
        f"page    {folder / 'audit.html'}",
        f"facts   {folder / 'audit.json'}",
        f"fixes   {folder / 'fixes.csv'} ({len(found.fixes):,} rows)",
        "",
        *_next(parsed.data, config, folder, len(found.fixes)),
    ]
    console.result({"folder": str(folder), **found.to_dict()}, "\n".join([audit_text(found), "", *following]))
    refusal = gate(found) if config.strict else ""
    if refusal:
        console.warn(refusal)
    return GateError.exit_code if refusal else 0


def _next(data: str, config: AuditConfig, folder: Path, fixes: int) -> list[str]:
    """What to type after an audit."""
    command = ["vitreous", "train", data, *config.data_flags()]
    if not fixes:
        return ["Next:", f"  {shlex.join(command)}"]
    then = shlex.join([*command, "--fixes", str(folder / "fixes.csv")])
    return ["Next: look at the page, edit the fixes (remove, relabel, keep), then", f"  {then}"]


def _apply(data: str, config: AuditConfig, console: Console) -> int:
    from vitreous.workflows.audit import apply_corrections

    path, count, note = apply_corrections(data, config)
    console.say(note)
    console.result(
        {"manifest": str(path), "images": count},
        f"{count:,} images listed in {path}\n\nNext:\n  vitreous train {shlex.quote(str(path))}",
    )
    return 0


def _show_augmented(data: str, config: AuditConfig, console: Console) -> int:
    from vitreous.workflows.environment import require

    require("Showing augmentation", "train")
    from vitreous.workflows.audit_augmented import show_augmented

    page, preset, words = show_augmented(data, config, console)
    console.result({"page": str(page), "preset": preset, "augmentation": words}, f"{preset}: {words}\n\npage    {page}")
    return 0
