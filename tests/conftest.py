"""For every room: one thread, so that results repeat exactly and tests run side by side do not fight for the cores."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture(autouse=True)
def one_torch_thread() -> None:
    torch = sys.modules.get("torch")  # rooms that work without torch are tested without it
    if torch is not None:
        torch.set_num_threads(1)
