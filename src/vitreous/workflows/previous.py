"""The split that grown data should keep: the one a run of the same data stored before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vitreous.config.train import TrainConfig
from vitreous.data import Split
from vitreous.data.sources.locate import is_path
from vitreous.errors import RunError, UsageError
from vitreous.runs.folder import CONFIG, RUN_JSON, SPLITS, read_facts

MUST_AGREE = ("seed", "val_fraction", "test_fraction", "group")
"""Settings without which an earlier split is another question's answer."""


def earlier_split(data: object, config: TrainConfig, place: Path) -> tuple[Split | None, str]:
    """The split to keep, and where it comes from; (None, "") where there is none.

    `--split` names it. Otherwise the newest run beside `place` made from the same data with the same seed, shares and
    groups has it: so files that were added since move none of those that were there.
    Raises UsageError for a `--split` that holds no split.
    """
    if config.split is not None:
        file = config.split / SPLITS if config.split.is_dir() else config.split
        if not file.is_file():
            raise UsageError(f"--split {str(config.split)!r} holds no {SPLITS}.", "Name a run folder or a splits.csv.")
        return Split.read_csv(file), str(config.split)
    if not isinstance(data, str | Path):  # nothing says whether an object is the same data as before
        return None, ""
    found = [run for run in _siblings(place) if _same_question(run, str(data), config)]
    newest = max(found, key=lambda run: str(_facts(run).get("created", "")), default=None)
    if newest is None:
        return None, ""
    try:
        return Split.read_csv(newest / SPLITS), str(newest)
    except RunError:
        return None, ""


def _siblings(place: Path) -> list[Path]:
    if not place.parent.is_dir():
        return []
    return [
        folder
        for folder in place.parent.iterdir()
        if folder != place and (folder / RUN_JSON).is_file() and (folder / SPLITS).is_file()
    ]


def _same_question(run: Path, data: str, config: TrainConfig) -> bool:
    source = str(_facts(run).get("data", {}).get("source", ""))
    same = source == data or (is_path(source) and is_path(data) and Path(source).resolve() == Path(data).resolve())
    if not source or not same:
        return False
    if not _facts(run).get("data", {}).get("labelled", True):
        return False  # pretrained on images without labels, of which none was kept for a test
    stored = _settings(run)
    given = {"seed": config.seed, "val_fraction": config.val_fraction, "test_fraction": config.test_fraction}
    given["group"] = config.group
    given["seed"] = config.seed if config.split_seed is None else config.split_seed
    if stored.get("split_seed") is not None:
        stored["seed"] = stored["split_seed"]
    return stored.get("k_fold") is None and all(stored.get(name) == given[name] for name in MUST_AGREE)


def _facts(run: Path) -> dict[str, Any]:
    try:
        return read_facts(run / RUN_JSON)
    except RunError:
        return {}


def _settings(run: Path) -> dict[str, Any]:
    from vitreous.config.convert import read_settings

    try:
        return read_settings(run / CONFIG)
    except UsageError:
        return {}
