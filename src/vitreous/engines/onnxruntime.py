"""An exported model under ONNX Runtime: no torch, about a second from start to first prediction."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from vitreous.engines.protocol import Outputs
from vitreous.errors import RunError


class OnnxRuntimeEngine:
    """Runs `model.onnx` as `vitreous export --format onnx` writes it: input `images`, outputs `logits`, `features`."""

    name = "onnxruntime"

    def __init__(self, path: Path, threads: int | None = None) -> None:
        """threads: cores used inside one forward pass; all that this process may use when None."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or available_cores()
        # Spinning threads starve whatever else runs on a small machine, the web server first of all.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the library raises its own unexported types
            raise RunError(
                f"The exported model {path.name!r} cannot be loaded ({type(error).__name__}).",
                "Write it again with: vitreous export RUN --format onnx --overwrite",
            ) from error

    def predict(self, batch: np.ndarray) -> Outputs:
        logits, features = self.session.run(["logits", "features"], {"images": np.ascontiguousarray(batch, np.float32)})
        return Outputs(np.asarray(logits, np.float32), np.asarray(features, np.float32))


def available_cores() -> int:
    """Cores this process may use, which in a container is often fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
