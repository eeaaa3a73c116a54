"""The run folder, the artefact of training: one `run.json` that says everything, and the files it vouches for.

`run.json` is written last and rewritten atomically. A folder whose `run.json` says "training", or has none, is half
written; opening it says so and what to type. Every file named under "files" is checked against its sha256 on opening.
"""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vitreous.config.convert import from_dict
from vitreous.config.input import InputSpec
from vitreous.errors import RunError, UsageError, unknown_name
from vitreous.runs.atomic import sha256_file, write_json
from vitreous.runs.decision import Strangeness, probabilities, sigmoids
from vitreous.runs.points import fit_point

SCHEMA_VERSION = 1
RUN_JSON = "run.json"
MODEL = "model.safetensors"
CONFIG = "config.json"
SPLITS = "splits.csv"
HISTORY = "history.jsonl"
METRICS = "metrics.json"
PREDICTIONS = "predictions.parquet"
FIXES = "fixes.csv"
BAD_FILES = "bad_files.csv"
REPORT = "report.html"
CARD = "README.md"
STRANGENESS = "strangeness.npz"
PLOTS = "plots"
EXPORTS = "exports"
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class RunFolder:
    """A finished run, opened for reading. `facts` is the content of `run.json`."""

    path: Path
    facts: dict[str, Any]

    @classmethod
    def open(cls, path: str | Path, *, verify: bool = True, pretrained: bool = False) -> RunFolder:
        """Read and check a run folder. Raises RunError for one that is absent, unfinished, damaged or too new.

        verify: compare the sha256 of every file the run vouches for; off only where a caller has just written them.
        pretrained: whether a model pretrained without labels will do, which knows no classes.
        """
        path = Path(path)
        if not path.exists():
            raise RunError(f"There is no run folder {str(path)!r}.", "`vitreous train DATA` makes one under runs/.")
        facts_file = path / RUN_JSON
        if not path.is_dir() or not facts_file.is_file():
            if (path / CHECKPOINTS).is_dir() or (path / CONFIG).is_file():
                raise _half_written(path)
            raise RunError(
                f"{str(path)!r} is not a run folder: it holds no {RUN_JSON}.",
                "Pass the folder that `vitreous train` printed, such as runs/photos.",
            )
        facts = read_facts(facts_file)
        if facts.get("status") != "complete":
            raise _half_written(path, facts.get("data", {}).get("source"))
        run = cls(path, facts)
        if not pretrained:
            run.require_classes()
        if verify:
            run.verify()
        return run

    def require_classes(self) -> None:
        """Raise RunError for a model that was pretrained without labels and so has nothing to answer."""
        if self.facts.get("task") == "pretrain":
            raise RunError(
                f"{str(self.path)!r} holds a model pretrained on images without labels: it knows no classes yet.",
                f"Train a classifier from it: vitreous train DATA --init {shlex.quote(str(self.path))}",
            )

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @cached_property
    def spec(self) -> InputSpec:
        """The preprocessing contract of this model."""
        try:
            return from_dict(InputSpec, self.facts["input"])
        except (KeyError, UsageError) as error:
            raise RunError(f"{self.path.name}/{RUN_JSON} holds no valid input specification: {error}") from error

    @property
    def classes(self) -> list[str]:
        return list(self.spec.classes)

    @property
    def version(self) -> str:
        """A short name for exactly these weights: the first twelve digits of their sha256."""
        return str(self.facts["files"][MODEL])[:12]

    @property
    def architecture(self) -> dict[str, Any]:
        """{"name", "family" ("vit" or "timm"), "arguments"}: what `vitreous.models` needs to build the module."""
        return self.facts["architecture"]

    @property
    def several_labels(self) -> bool:
        """Whether an image may have several labels or none, so that each has a score of its own."""
        return self.facts.get("task") == "multi_label"

    @property
    def thresholds(self) -> np.ndarray | None:
        """float64 (k,): the score from which each label is given; None where every image has one label."""
        if not self.several_labels:
            return None
        stored = self.facts["thresholds"]
        return np.array([float(stored[name]) for name in self.classes])

    @property
    def temperature(self) -> float:
        """Logits are divided by this before the softmax (fitted on the validation part)."""
        return float(self.facts["calibration"]["temperature"])

    def scores(self, logits: np.ndarray) -> np.ndarray:
        """Calibrated scores (b, k) of logits (b, k): those of a row sum to 1, or are each label's own where there may be
        several."""
        return (sigmoids if self.several_labels else probabilities)(logits, self.temperature)

    @property
    def set_from(self) -> float | None:
        """The score from which a class is in the conformal set of an image; None for runs without it."""
        conformal = self.facts.get("operating_points", {}).get("conformal")
        return None if conformal is None else float(conformal["threshold"])

    def point(self, text: str) -> tuple[int, float]:
        """The class and its threshold that "CLASS:recall" or "CLASS:false_alarms" stands for, as validation fitted it;
        "CLASS:recall=0.99" is fitted now, to what the run said of its validation images.

        Raises UsageError, naming what there is.
        """
        name, _, rest = text.rpartition(":")
        aim, equals, target = rest.partition("=")
        points = self.facts.get("operating_points", {}).get("points", {})
        if name not in self.classes:
            raise unknown_name("class", name or text, self.classes)
        aims = {found["aim"]: float(found["threshold"]) for found in points.get(name, ())}
        if aim not in aims:
            known = ", ".join(f"{name}:{each}" for each in aims) or "none"
            raise UsageError(
                f"The run {self.name!r} has no operating point {text!r}; of this class it has {known}.",
                "Points are fitted in training, for classes that validation shows.",
            )
        index = self.classes.index(name)
        return index, self._fitted_point(index, aim, target) if equals else aims[aim]

    def _fitted_point(self, index: int, aim: str, target: str) -> float:
        """The threshold on the class of that number, from `predictions.parquet`. aim: one that the class has."""
        try:
            share = float(target)
        except ValueError:
            share = math.nan
        if not 0 < share < 1:
            raise UsageError(
                f"The aim {aim}={target} is no share between 0 and 1.",
                f"Write such as: {self.classes[index]}:{aim}={'0.99' if aim == 'recall' else '0.01'}",
            )
        try:
            import pyarrow.parquet as parquet
        except ImportError as error:
            raise UsageError(
                f"{aim}={target} is fitted to the run's {PREDICTIONS}, which needs pyarrow.", "pip install pyarrow"
            ) from error
        try:
            table = parquet.read_table(
                self.path / PREDICTIONS, columns=["label", "probabilities"], filters=[("part", "=", "val")]
            )
        except OSError as error:
            raise RunError(
                f"{self.path / PREDICTIONS} cannot be read ({type(error).__name__}), and a point with an aim of its own is fitted "
                "to it.",
                f"Bring the file back, or use the point of training: {self.classes[index]}:{aim}",
            ) from error
        flat = table["probabilities"].combine_chunks().flatten().to_numpy()
        scores = flat.reshape(table.num_rows, len(self.classes))[:, index]
        own = np.array(table["label"].to_pylist()) == self.classes[index]
        return fit_point(scores, own, "recall" if aim == "recall" else "false_alarms", share).threshold

    @property
    def abstain_below(self) -> float:
        """A score under this makes a prediction abstain; 0 when the model is never unsure enough."""
        return float(self.facts["abstention"]["threshold"])

    @cached_property
    def strangeness(self) -> Strangeness | None:
        """What an unusual image is, learned from the training and validation parts; None for runs without it."""
        file = self.path / STRANGENESS
        return Strangeness.load(file) if file.is_file() else None

    def export_file(self, format_name: str) -> Path | None:
        """The main file of a finished export, or None where that format was not exported."""
        entry = self.facts.get("exports", {}).get(format_name)
        return self.path / entry["file"] if entry else None

    def verify(self) -> None:
        """Compare every vouched-for file with its recorded sha256. Raises RunError naming the first that differs."""
        for name, recorded in self.facts.get("files", {}).items():
            file = self.path / name
            if not file.is_file():
                raise RunError(f"The run folder {str(self.path)!r} lacks {name!r}.", "Copy the whole folder again.")
            if sha256_file(file) != recorded:
                raise RunError(
                    f"{name!r} in the run folder {str(self.path)!r} was changed or damaged: its sha256 is not the recorded one.",
                    "Restore it from a copy, or train again.",
                )

    def updated(self, **changes: Any) -> RunFolder:
        """Rewrite `run.json` with some facts replaced, atomically, and return the run as it now is."""
        facts = {**read_facts(self.path / RUN_JSON), **changes}
        write_json(self.path / RUN_JSON, facts)
        return RunFolder(self.path, facts)

    def with_files(self, *names: str, **changes: Any) -> RunFolder:
        """Like `updated`, and vouch for the present content of the named files (paths inside the folder)."""
        recorded = {name: sha256_file(self.path / name) for name in names}
        return self.updated(files={**self.facts.get("files", {}), **recorded}, **changes)


def read_history(path: Path) -> list[dict[str, Any]]:
    """The rows of a run folder's history, oldest first."""
    return [json.loads(line) for line in (path / HISTORY).read_text(encoding="utf-8").splitlines()]


def read_facts(file: Path) -> dict[str, Any]:
    """The content of a `run.json`, whatever its status. Raises RunError when it is damaged or of a newer schema."""
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        version = facts["schema_version"]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise RunError(f"{str(file)!r} is damaged: {type(error).__name__}.", "Restore it from a copy.") from error
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise RunError(
            f"{str(file)!r} has schema version {version}; this vitreous reads up to {SCHEMA_VERSION}.",
            "Type: pip install --upgrade vitreous",
        )
    return facts


def _half_written(path: Path, data: str | None = None) -> RunError:
    return RunError(
        f"The run folder {str(path)!r} is half written: its training did not finish.",
        f"Finish it with: {resume_command(data, path)}",
    )


def resume_command(data: str | None, path: Path) -> str:
    """What to type to continue an unfinished run; DATA stands where the data are not known."""
    return f"vitreous train {shlex.quote(data) if data else 'DATA'} --out {shlex.quote(str(path))} --resume"
