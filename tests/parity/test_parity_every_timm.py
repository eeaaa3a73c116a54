"""Every plain Vision Transformer that timm lists, at a few patches and two blocks, against ours with its weights; at full
size by benchmarks/parity.py.
"""

from __future__ import annotations

import gc
import inspect
import re
from typing import Any

import pytest
import timm
import torch
from timm_cases import TOLERANCE, case, left_out, plain_vits, signature

from vitreous.models import VisionTransformer
from vitreous.models.build import architecture
from vitreous.models.presets import PRESETS, full_name, known_models, parse_vit
from vitreous.models.timm_models import timm_arguments
from vitreous.recipes.auto import is_vit

WIDE = re.compile(r"aimv2_[13]b|enormous|_7b_|giga|giant")


PROVEN: dict[str, str] = {}
"""What was compared already: timm's module and our arguments at three patches a side, to the name they were compared under.
Entry points that differ in image size and weights alone are one computation there."""


@pytest.mark.parametrize("name", plain_vits())
def test_tokens_and_logits_equal_timms_and_weights_go_back(name: str) -> None:
    # One block of the widest models shows as much as two, in half the time.
    depth = 1 if WIDE.search(name) else 2
    twin = PROVEN.setdefault(signature(name, depth=depth, side=3), name)
    if twin != name:
        return
    found = case(name, depth=depth, side=3)
    assert found.notes == ()
    assert found.difference() <= TOLERANCE
    assert found.difference_back() <= TOLERANCE
    del found
    gc.collect()


def test_no_model_named_like_a_plain_vit_is_forgotten() -> None:
    named = {name for name in timm.list_models() if name.startswith(("vit_", "deit", "flexivit", "eva", "aimv2"))}
    assert named - set(plain_vits()) - set(left_out()) == {"vitamin"} & named


@pytest.mark.parametrize("family", [name for name, preset in PRESETS.items() if preset.published])
def test_a_preset_is_what_timm_builds_under_its_full_name(family: str) -> None:
    name = full_name(family)
    theirs = timm_arguments(name, num_classes=10)
    ours = architecture(family, num_classes=10, image_size=theirs["image_size"][0], patch_size=theirs["patch_size"][0])
    assert shape_of(ours.arguments) == shape_of(theirs)
    assert parse_vit(name) is not None
    assert name in known_models() or not PRESETS[family].patch_size


def shape_of(arguments: dict[str, Any]) -> dict[str, Any]:
    """Names and shapes of every tensor, and the options that no tensor shows; initial values do not count."""
    with torch.device("meta"):
        model = VisionTransformer(**arguments)
    shown = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    silent = ("norm", "norm_eps", "activation", "pooling", "pool_prefix", "qkv_bias", "output_norm", "block")
    options = inspect.signature(VisionTransformer.__init__).parameters
    silent = (
        *silent,
        *(name for name in options if name.startswith("rope") and arguments.get("rope", "none") != "none"),
    )
    return shown | {name: arguments.get(name, options[name].default) for name in silent}


def test_recipes_know_a_vit_by_how_its_name_begins() -> None:
    assert [name for name in (*plain_vits(), *PRESETS) if not is_vit(name)] == []
    assert not is_vit("resnet18")
