"""The loop, losses, parameter groups, schedules, averaging, checkpoints."""

from vitreous.training.checkpoint import TrainState, restore_newest, save_checkpoint, save_weights
from vitreous.training.loop import FitSettings, fit

__all__ = ["FitSettings", "TrainState", "fit", "restore_newest", "save_checkpoint", "save_weights"]
