"""`kill -9` at every moment of a save: what was finished stays, nothing is left over, the result is the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DRIVER = Path(__file__).parent / "kill_driver.py"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_at_any_moment_of_a_save_loses_no_finished_state_and_changes_no_bit(tmp_path: Path) -> None:
    # Each of the three validations touches the disk 12 times for two files; these are all moments of the second.
    moments = range(13, 26)
    words = [sys.executable, str(DRIVER), str(tmp_path), *map(str, moments)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["expected"]["touches"] > max(moments)
    assert [trial["touch"] for trial in found["trials"]] == list(moments)
    for trial in found["trials"]:
        assert trial["killed"], trial
        assert trial["from"] in (4, 8), trial
        # The newest state that had its name is the one to continue from: nothing that was finished is lost.
        assert trial["finished"][-1] == f"step_{trial['from']:08d}.safetensors", trial
        assert trial["notes"] == [f"Continuing from step_{trial['from']:08d}.safetensors."], trial
        assert trial["digest"] == found["expected"]["digest"], trial
        assert trial["left"] == ["best.safetensors", "step_00000008.safetensors", "step_00000012.safetensors"], trial
    assert {trial["from"] for trial in found["trials"]} == {4, 8}
