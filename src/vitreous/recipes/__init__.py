"""Complete settings from the data at hand: which preset, which model, how much augmentation, how long."""

from vitreous.recipes.auto import Resolved, resolve
from vitreous.recipes.presets import AUGMENTATION, guess_preset

__all__ = ["AUGMENTATION", "Resolved", "guess_preset", "resolve"]
