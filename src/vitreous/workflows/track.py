"""The history of a run, also written where TensorBoard or MLflow look. `history.jsonl` is written whatever is tracked.

One hook: a tracker is called with each row of the history and closed at the end. A missing package is an error before any
work; a server that cannot be reached in mid-run costs the curves and not the run.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

from vitreous.config.convert import to_dict
from vitreous.config.train import Tracker as TrackerName
from vitreous.config.train import TrainConfig
from vitreous.errors import MissingExtraError
from vitreous.runs.atomic import write_json

TENSORBOARD = "tensorboard"
"""Folder of TensorBoard's events inside a run."""
MLFLOW = "mlflow.json"
"""File of a run that remembers its MLflow run, so that a continued run goes on in it."""
EXPERIMENT = "vitreous"
PACKAGES: dict[TrackerName, str] = {"tensorboard": "tensorboard", "mlflow": "mlflow"}


class Tracker(Protocol):
    """Somewhere else that the history goes."""

    def __call__(self, row: Mapping[str, Any]) -> None:
        """Take a row of the history: "step" and named numbers; what is no number is passed over."""
        ...

    def close(self, status: str) -> None:
        """End it: status is FINISHED, FAILED or KILLED (stopped, to be continued)."""
        ...


def check_trackers(names: Sequence[TrackerName]) -> None:
    """Raise MissingExtraError, naming the line to type, where a tracker's package is absent. Imports nothing."""
    for name in names:
        if importlib.util.find_spec(PACKAGES[name]) is None:
            raise MissingExtraError(f"--track {name}", "track", PACKAGES[name])


@contextlib.contextmanager
def tracking(
    config: TrainConfig, path: Path, step: int, warn: Callable[[str], None]
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yields what to call with each row of the history; tells the trackers how the block ended.

    step: the step that the run continues from, 0 for a new one. warn: receives one sentence where a tracker fails, which is
    then left out.
    """
    open_: dict[str, Tracker] = {}

    def attempt(name: str, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # whatever a server, a disk or a foreign package does: the run matters more
            open_.pop(name, None)
            warn(
                f"--track {name} failed ({type(error).__name__}: {error}); the history is in {path.name}/history.jsonl."
            )

    def begin(name: TrackerName) -> None:
        open_[name] = BUILDERS[name](config, path, step)

    def send(row: Mapping[str, Any]) -> None:
        for name, tracker in list(open_.items()):
            attempt(name, lambda tracker=tracker: tracker(row))

    status = "FINISHED"
    try:
        for name in config.track:
            attempt(name, lambda name=name: begin(name))
        yield send
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt) or getattr(error, "exit_code", 1) == 75
        status = "KILLED" if stopped or not isinstance(error, Exception) else "FAILED"
        raise
    finally:
        for name, tracker in list(open_.items()):
            attempt(name, lambda tracker=tracker: tracker.close(status))


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row but the step, as floats."""
    return {
        name: float(value)
        for name, value in row.items()
        if name != "step" and isinstance(value, int | float) and not isinstance(value, bool)
    }


class TensorBoard:
    """Scalars in RUN/tensorboard, for `tensorboard --logdir runs`."""

    def __init__(self, config: TrainConfig, path: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # Rows after the state that a run continues from are written again: the old ones are not to be shown.
        self._writer = SummaryWriter(str(path / TENSORBOARD), purge_step=step + 1 if step else None)
        self._writer.add_text("settings", f"```json\n{json.dumps(to_dict(config), indent=2)}\n```", step)

    def __call__(self, row: Mapping[str, Any]) -> None:
        for name, value in numbers(row).items():
            self._writer.add_scalar(
                f"validation/{name[4:]}" if name.startswith("val_") else f"training/{name}", value, row["step"]
            )
        self._writer.flush()

    def close(self, status: str) -> None:
        self._writer.close()


class MLflow:
    """Metrics and settings of an MLflow run in the experiment `vitreous`, at MLFLOW_TRACKING_URI or in mlruns beside the
    run. A continued run goes on in the MLflow run it had."""

    def __init__(self, config: TrainConfig, path: Path, step: int) -> None:
        place = os.environ.get("MLFLOW_TRACKING_URI", "")
        if not place:
            # Plain files need no database and no server; newer versions of MLflow want to be told that they are meant.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            place = (path.absolute().parent / "mlruns").as_uri()
        self._client = importlib.import_module("mlflow.tracking").MlflowClient(tracking_uri=place)
        known = self._remembered(path, place) if step else None
        if known is None:
            experiment = self._client.get_experiment_by_name(EXPERIMENT)
            number = experiment.experiment_id if experiment else self._client.create_experiment(EXPERIMENT)
            known = self._client.create_run(number, run_name=path.name).info.run_id
            for name, value in flat(to_dict(config)).items():
                self._client.log_param(known, name, value)
            write_json(path / MLFLOW, {"run_id": known, "tracking_uri": _public(place)})
        else:
            self._client.update_run(known, status="RUNNING")
        self._run = known

    def __call__(self, row: Mapping[str, Any]) -> None:
        for name, value in numbers(row).items():
            self._client.log_metric(self._run, name, value, step=row["step"])

    def close(self, status: str) -> None:
        self._client.set_terminated(self._run, status=status)

    @staticmethod
    def _remembered(path: Path, place: str) -> str | None:
        """The MLflow run of a run that is continued, where it is kept in the same place."""
        try:
            stored = json.loads((path / MLFLOW).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return stored.get("run_id") if stored.get("tracking_uri") == _public(place) else None


def _public(uri: str) -> str:
    """An address without the name and password that it may hold: run folders are passed on."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted names, those without a value left out: {"optim": {"lr": 0.1}} is {"optim.lr": 0.1}."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        elif value is not None:
            found[f"{prefix}{name}"] = value
    return found


BUILDERS: dict[TrackerName, Callable[[TrainConfig, Path, int], Tracker]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
}
