"""The history of a run also goes to TensorBoard and MLflow, and never at the cost of the run."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest

from vitreous.config.train import OptimConfig, TrainConfig
from vitreous.errors import MissingExtraError, StoppedError
from vitreous.workflows import track
from vitreous.workflows.track import MLFLOW, TENSORBOARD, check_trackers, flat, numbers, tracking

ROW = {"step": 5, "loss": 0.5, "val_accuracy": 0.9, "skipped_steps": [3], "flag": True}


class FakeClient:
    """What the hook uses of `mlflow.tracking.MlflowClient`; keeps what it is told."""

    store: ClassVar[dict[str, Any]] = {}

    def __init__(self, tracking_uri: str) -> None:
        self.runs = self.store.setdefault(tracking_uri, {})

    def get_experiment_by_name(self, name: str) -> Any:
        return None if name not in self.runs else SimpleNamespace(experiment_id=name)

    def create_experiment(self, name: str) -> str:
        self.runs[name] = {}
        return name

    def create_run(self, experiment_id: str, run_name: str) -> Any:
        number = f"run{len(self.runs[experiment_id])}"
        self.runs[experiment_id][number] = {"name": run_name, "params": {}, "metrics": [], "status": "RUNNING"}
        return SimpleNamespace(info=SimpleNamespace(run_id=number))

    def log_param(self, run: str, name: str, value: Any) -> None:
        self.runs["vitreous"][run]["params"][name] = value

    def log_metric(self, run: str, name: str, value: float, step: int) -> None:
        self.runs["vitreous"][run]["metrics"].append((step, name, value))

    def update_run(self, run: str, status: str) -> None:
        self.runs["vitreous"][run]["status"] = status

    def set_terminated(self, run: str, status: str) -> None:
        self.runs["vitreous"][run]["status"] = status


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    package, inner = ModuleType("mlflow"), ModuleType("mlflow.tracking")
    inner.MlflowClient = FakeClient  # type: ignore[attr-defined]
    FakeClient.store = {}
    monkeypatch.setitem(sys.modules, "mlflow", package)
    monkeypatch.setitem(sys.modules, "mlflow.tracking", inner)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return FakeClient.store


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


CONFIG = TrainConfig(track=("mlflow",), optim=OptimConfig(lr=0.1))


def test_mlflow_gets_settings_and_numbers_and_a_continued_run_goes_on_in_its_own(mlflow: Any, run: Path) -> None:
    warned: list[str] = []
    with pytest.raises(StoppedError), tracking(CONFIG, run, 0, warned.append) as send:
        send(ROW)
        raise StoppedError("Stopped by SIGTERM.")
    (place,) = mlflow
    assert place == (run.parent / "mlruns").as_uri()
    stored = mlflow[place]["vitreous"]["run0"]
    assert stored["status"] == "KILLED"
    assert (stored["name"], stored["params"]["optim.lr"]) == ("run", 0.1)
    assert stored["metrics"] == [(5, "loss", 0.5), (5, "val_accuracy", 0.9)]

    with tracking(CONFIG, run, 5, warned.append) as send:
        send({"step": 10, "loss": 0.25})
    assert list(mlflow[place]["vitreous"]) == ["run0"]
    assert stored["metrics"][-1] == (10, "loss", 0.25)
    assert stored["status"] == "FINISHED"
    assert warned == []


def test_the_place_of_mlflow_is_taken_from_its_own_variable(
    mlflow: Any, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@server")
    with tracking(CONFIG, run, 0, lambda text: None):
        pass
    assert list(mlflow) == ["http://me:secret@server"]
    assert json.loads((run / MLFLOW).read_text(encoding="utf-8")) == {
        "run_id": "run0",
        "tracking_uri": "http://server",
    }


def test_a_tracker_that_fails_is_left_out_with_a_warning_and_the_run_goes_on(
    mlflow: Any, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(self: FakeClient, *given: Any, **named: Any) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(FakeClient, "log_metric", lost)
    warned: list[str] = []
    with tracking(CONFIG, run, 0, warned.append) as send:
        send(ROW)
        send(ROW)
    assert warned == ["--track mlflow failed (ConnectionError: no route to host); the history is in run/history.jsonl."]


def test_an_error_of_the_run_is_told_and_passed_on(mlflow: Any, run: Path) -> None:
    with pytest.raises(ValueError, match="ours"), tracking(CONFIG, run, 0, lambda text: None):
        raise ValueError("ours")
    assert next(iter(mlflow.values()))["vitreous"]["run0"]["status"] == "FAILED"


def test_a_missing_package_is_said_with_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(track.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        MissingExtraError, match=r"--track tensorboard needs the package 'tensorboard'.*vitreous\[track\]"
    ):
        check_trackers(("tensorboard",))


def test_without_trackers_nothing_is_needed_or_done(run: Path) -> None:
    check_trackers(())
    with tracking(TrainConfig(), run, 0, lambda text: None) as send:
        send(ROW)
    assert list(run.iterdir()) == []


def test_only_numbers_are_sent_and_settings_have_dotted_names() -> None:
    assert numbers(ROW) == {"loss": 0.5, "val_accuracy": 0.9}
    assert flat({"a": {"b": 1, "c": None}, "d": "x"}) == {"a.b": 1, "d": "x"}


@pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="the package tensorboard (extra track) is not installed"
)
def test_tensorboard_gets_scalars_in_the_run_folder(run: Path) -> None:
    events = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    with tracking(TrainConfig(track=("tensorboard",)), run, 0, lambda text: None) as send:
        send(ROW)
    found = events.EventAccumulator(str(run / TENSORBOARD)).Reload()
    assert found.Tags()["scalars"] == ["training/loss", "validation/accuracy"]
    assert found.Scalars("training/loss")[0].step == 5
