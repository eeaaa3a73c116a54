"""Complete settings from the data at hand: which preset, which recipe, which model, how much augmentation, how long.

Each recipe is a function in a file of its own, headed by command, hardware, time and expected result; `RECIPES` finds it by
the name that `--recipe` takes.
"""

from vitreous.recipes.auto import Resolved, resolve
from vitreous.recipes.choose import RECIPES, choose
from vitreous.recipes.presets import AUGMENTATION, guess_preset
from vitreous.recipes.task import Task

__all__ = ["AUGMENTATION", "RECIPES", "Resolved", "Task", "choose", "guess_preset", "resolve"]
