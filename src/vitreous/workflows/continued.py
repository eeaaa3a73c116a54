"""What a run folder holds while training goes on, and what of it a continued run takes up again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vitreous.config.convert import from_dict, read_settings, to_dict
from vitreous.config.train import TrainConfig
from vitreous.data import Split
from vitreous.data.audit.fixes import Fix, write_fixes
from vitreous.errors import DataError, RunError
from vitreous.runs.atomic import write_json, write_text
from vitreous.runs.folder import BAD_FILES, CHECKPOINTS, CONFIG, FIXES, HISTORY, RUN_JSON, SCHEMA_VERSION, SPLITS
from vitreous.workflows.environment import versions
from vitreous.workflows.prepare import Material
from vitreous.workflows.setup import Setup


def stored_form(config: TrainConfig) -> dict[str, Any]:
    """What `config.json` holds: the settings without what concerned this one call."""
    return to_dict(replace(config, out=None, resume=False, overwrite=False))


def open_folder(path: Path, data: str, setup: Setup, fixes: Sequence[Fix] | None) -> None:
    """Write what a continued run will need, `run.json` last: from now on the folder says that it is unfinished."""
    (path / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
    write_json(path / CONFIG, stored_form(setup.config))
    setup.material.split.write_csv(path / SPLITS)
    setup.material.scan.write_bad_files(path / BAD_FILES)
    if fixes is not None:
        write_fixes(path / FIXES, fixes)
    write_text(path / HISTORY, "")
    write_json(
        path / RUN_JSON,
        {
            "schema_version": SCHEMA_VERSION,
            "status": "training",
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "data": {"source": data, "labelled": setup.material.labelled, "budget": setup.material.budget},
            **({"teacher": setup.teacher.facts} if setup.teacher else {}),
            "architecture": setup.start.architecture.to_dict(),
            "weights": setup.start.weights,
            "split_sha256": setup.material.split.digest(),
            "versions": versions(),
        },
    )


def stored_config(path: Path, given: TrainConfig) -> TrainConfig:
    """The settings a run was started with, at the places where things lie now."""
    stored = from_dict(TrainConfig, read_settings(path / CONFIG))
    if (path / FIXES).is_file():
        stored = replace(stored, fixes=path / FIXES)
    stored = at_new_places(stored, given)
    return replace(stored, time=None, epochs=None, out=path, resume=True, threads=given.threads or stored.threads)


def at_new_places(stored: TrainConfig, given: TrainConfig) -> TrainConfig:
    """Stored settings with the parts and the teacher where they lie now. Where things lie is not what they are: a run may be
    continued on another machine, with its data elsewhere. Whether the teacher is the same is checked later."""
    if given.distill.teacher and stored.distill.teacher:
        stored = replace(stored, distill=replace(stored.distill, teacher=given.distill.teacher))
    places = {name: value for name in ("val", "test") if (value := getattr(given, name)) is not None}
    return replace(stored, **places)


def check_same_split(path: Path, material: Material) -> None:
    """Raise DataError where images or labels are not those that the run was started with."""
    stored = Split.read_csv(path / SPLITS)
    if stored.digest() != material.split.digest():
        raise DataError(
            f"The images or their labels changed since {str(path)!r} was started, so it cannot be continued.",
            "Restore the data, or start anew without --resume.",
        )


def cut_history(file: Path, step: int) -> None:
    """Drop rows written after the state that training continues from."""
    rows = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    kept = []
    for row in rows:
        try:
            if json.loads(row)["step"] <= step:
                kept.append(row)
        except (ValueError, KeyError) as error:
            if row is not rows[-1]:  # the last line may be half written
                raise RunError(f"{str(file)!r} is damaged.", "Restore it from a copy.") from error
    write_text(file, "".join(row + "\n" for row in kept))
