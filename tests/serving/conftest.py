from __future__ import annotations

from pathlib import Path

import pytest
from serving_fakes import MeanEngine, write_run

from vitreous.runs import RunFolder
from vitreous.serving import Predictor


@pytest.fixture
def run_folder(tmp_path: Path) -> RunFolder:
    return RunFolder.open(write_run(tmp_path / "photos"))


@pytest.fixture
def engine() -> MeanEngine:
    return MeanEngine()


@pytest.fixture
def predictor(run_folder: RunFolder, engine: MeanEngine) -> Predictor:
    return Predictor(run_folder, engine)
