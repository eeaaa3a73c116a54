"""The run folder: its schema, writing it atomically, reading and checking it. No torch."""

from vitreous.runs.decision import Prediction, Strangeness, decide
from vitreous.runs.folder import RunFolder

__all__ = ["Prediction", "RunFolder", "Strangeness", "decide"]
