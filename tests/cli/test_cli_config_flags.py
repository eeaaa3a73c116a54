"""`--config FILE` with flags beside it."""

from __future__ import annotations

import json
from pathlib import Path

from vitreous.cli.train import _defaults, flag_names
from vitreous.config.convert import to_dict
from vitreous.config.train import OptimConfig, TrainConfig


def test_flags_are_called_as_in_python_however_they_are_spelled() -> None:
    given = ["DATA", "--batch_size", "8", "--optim.weight-decay=0.1", "--config", "c.json", "-x"]
    assert flag_names(given) == {"batch_size", "optim.weight_decay", "config"}


def test_what_followed_from_a_setting_that_a_flag_changes_is_open_again(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    stored = TrainConfig(steps=10, batch_size=8, optim=OptimConfig(lr=0.1, warmup_steps=2), out=tmp_path)
    file.write_text(json.dumps(to_dict(stored)), encoding="utf-8")
    found = _defaults(["DATA", "--config", str(file), "--batch-size", "16"])
    assert found is not None
    assert (found.optim.lr, found.optim.warmup_steps, found.steps) == (None, 2, 10)
    assert found.out is None, "a run folder is never written into by repeating its settings"
