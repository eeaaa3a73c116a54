"""Which recipe suits which data, said in words, and when a Vision Transformer from scratch is the wrong tool."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any, get_args

import pytest

from vitreous.config.convert import from_dict, to_dict
from vitreous.config.facts import DataFacts
from vitreous.config.train import METHOD_OF, NetConfig, OptimConfig, Preset, RecipeName, TrainConfig
from vitreous.errors import UsageError
from vitreous.recipes import RECIPES, Task, choose, resolve
from vitreous.recipes.task import size_of

PHOTOS = DataFacts(
    classes=("tulip", "rose", "daisy"),
    train_counts=(300, 300, 300),
    num_val=100,
    num_test=200,
    sizes=((640, 480), (500, 375), (480, 640)),
    grey_share=0.0,
    deep_share=0.0,
    brightness=0.45,
    device="cpu",
    cores=2,
    budget=None,
)
MANY = replace(PHOTOS, train_counts=(60_000,) * 3)
FEW = replace(PHOTOS, train_counts=(5, 5, 5))
ICONS = replace(PHOTOS, sizes=((32, 32),))
X_RAYS = replace(PHOTOS, classes=("normal", "pneumonia"), train_counts=(300, 300), grey_share=1.0)
TIMM = "timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k"
NAMES: tuple[RecipeName, ...] = get_args(RecipeName)


def test_every_name_has_a_recipe_and_a_method() -> None:
    assert set(RECIPES) == set(METHOD_OF) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("preset", get_args(Preset))
@pytest.mark.parametrize("facts", [PHOTOS, MANY, FEW, ICONS, X_RAYS], ids=["photos", "many", "few", "icons", "x-rays"])
def test_a_recipe_is_complete_frozen_and_of_its_own_name(name: RecipeName, preset: Preset, facts: DataFacts) -> None:
    found = RECIPES[name](Task(facts=facts, preset=preset))
    assert (found.recipe, found.method, found.preset) == (name, METHOD_OF[name], preset)
    assert "auto" not in (found.model, found.batch_size)
    assert None not in (found.image_size, found.epochs)
    for part in (found.augment, found.loss, found.lora, found.pretrain):
        assert [field for field, value in asdict(part).items() if value is None] == []
    assert [field for field, value in asdict(found.optim).items() if value is None] == ["warmup_steps", "ema_decay"]
    assert from_dict(TrainConfig, to_dict(found)) == found
    with pytest.raises(AttributeError):
        found.epochs = 1  # type: ignore[misc]


@pytest.mark.parametrize("name", NAMES)
def test_flags_beside_a_recipe_win(name: RecipeName) -> None:
    given = TrainConfig(
        recipe=name, init=TIMM, batch_size=7, epochs=3, optim=OptimConfig(lr=0.5), net=NetConfig(dropout=0.7)
    )
    config = resolve(given, PHOTOS).config
    assert (config.recipe, config.batch_size, config.epochs) == (name, 7, 3)
    assert (config.optim.lr, config.net.dropout) == (0.5, 0.7)
    assert resolve(config, PHOTOS).config == config


@pytest.mark.parametrize(
    ("given", "facts", "recipe", "word"),
    [
        ({"init": "scratch"}, PHOTOS, "scratch-small", "900 training images and no weights"),
        ({"init": "scratch"}, MANY, "scratch-small", "no weights"),
        ({"init": "scratch"}, replace(MANY, device="cuda"), "scratch-large", "a GPU"),
        ({"init": TIMM, "model": "vit_tiny_patch16_224"}, PHOTOS, "fine-tune", "weights to start from"),
        ({"init": TIMM, "model": "vit_tiny_patch16_224"}, FEW, "probe", "only 5 images a class"),
        (
            {"init": TIMM, "model": "vit_tiny_patch16_224"},
            replace(PHOTOS, budget=30.0),
            "probe",
            "in the time there is",
        ),
        ({"init": TIMM, "model": "vit_large_patch16_224"}, PHOTOS, "probe", "in the time there is"),
        ({"init": TIMM, "model": "vit_large_patch16_224"}, replace(PHOTOS, device="cuda"), "fine-tune", "weights"),
        ({"init": TIMM, "method": "full"}, FEW, "fine-tune", "--method full"),
        ({"method": "lora"}, PHOTOS, "lora", "--method lora"),
        ({"method": "pretrain"}, PHOTOS, "pretrain", "--method pretrain"),
        ({"recipe": "head"}, PHOTOS, "head", "as asked"),
    ],
)
def test_method_and_recipe_follow_from_data_weights_machine_and_budget(
    given: dict[str, Any], facts: DataFacts, recipe: str, word: str
) -> None:
    resolved = resolve(TrainConfig(**given), facts)
    assert (resolved.config.recipe, resolved.config.method) == (recipe, METHOD_OF[resolved.config.recipe])  # type: ignore[index]
    assert any(reason.startswith(f"recipe {recipe} (method ") and word in reason for reason in resolved.reasons)
    assert choose(TrainConfig(**given), facts).recipe == recipe


def test_a_recipe_and_a_method_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(UsageError, match="--recipe probe is for --method probe, and --method lora was given"):
        TrainConfig(recipe="probe", method="lora")


@pytest.mark.parametrize(
    ("given", "facts", "words"),
    [
        (
            {"init": "scratch"},
            PHOTOS,
            ("900 photographs of 480 px", "--init timm:", "--model resnet18", "--method probe"),
        ),
        ({"init": "scratch"}, FEW, ("15 photographs", "with --method probe")),
        ({"init": "scratch"}, X_RAYS, ("600 images",)),
        ({"init": "scratch", "method": "lora"}, PHOTOS, ("--method lora rests on trained weights",)),
    ],
)
def test_the_wrong_tool_is_named_and_the_better_one_too(
    given: dict[str, Any], facts: DataFacts, words: tuple[str, ...]
) -> None:
    (warning,) = resolve(TrainConfig(**given), facts).warnings
    for word in words:
        assert word in warning


@pytest.mark.parametrize(
    ("given", "facts"),
    [
        ({"init": "scratch"}, ICONS),
        ({"init": "scratch"}, MANY),
        ({"init": "scratch", "model": "resnet18"}, PHOTOS),
        ({"init": TIMM}, PHOTOS),
        ({"init": "scratch", "method": "pretrain"}, PHOTOS),
    ],
)
def test_the_right_tool_is_not_warned_about(given: dict[str, Any], facts: DataFacts) -> None:
    assert resolve(TrainConfig(**given), facts).warnings == ()


def test_batch_learning_rate_and_length_are_said_in_one_line() -> None:
    config = TrainConfig(init="scratch", batch_size=50, optim=OptimConfig(lr=0.001, accumulation=2), epochs=4)
    assert "100 images a step, learning rate 0.001 (muon, cosine schedule), 4 epochs" in " | ".join(
        resolve(config, PHOTOS).reasons
    )
    assert any("as many epochs as fit into 3m" in reason for reason in resolve(TrainConfig(time="3m"), PHOTOS).reasons)


def test_scratch_large_is_the_published_recipe() -> None:
    facts = replace(MANY, device="cuda", train_counts=(400_000,) * 3)
    found = RECIPES["scratch-large"](Task(facts=facts, preset="natural", model="vit_base_patch16_224"))
    optim, augment = found.optim, found.augment
    assert (optim.name, optim.lr, optim.weight_decay, found.loss.name) == ("lamb", 3e-3, 0.05, "bce")
    assert isinstance(found.batch_size, int) and optim.accumulation is not None
    assert found.batch_size * optim.accumulation == 2048
    assert (augment.mixup, augment.cutmix, augment.three_augment, augment.repeats) == (0.8, 1.0, True, 3)
    assert (found.net.layer_scale, found.net.drop_path, found.net.drop_path_shape) == (1e-4, 0.2, "uniform")
    assert augment.start_size == pytest.approx(192 / 224)


def test_scratch_large_mixes_no_parts_of_images_and_recolours_nothing_where_that_changes_labels() -> None:
    found = RECIPES["scratch-large"](Task(facts=MANY, preset="medical")).augment
    assert (found.cutmix, found.three_augment, found.horizontal_flip) == (0.0, False, False)


def test_fine_tuning_slows_earlier_blocks_and_ends_at_the_full_size() -> None:
    tiny, base = (
        RECIPES["fine-tune"](Task(facts=PHOTOS, preset="natural", model=f"vit_{size}_patch16_224"))
        for size in ("tiny", "base")
    )
    assert (tiny.optim.layer_decay, base.optim.layer_decay) == (0.75, 0.65)
    assert tiny.augment.start_size is not None and tiny.augment.full_size_from is not None
    assert tiny.augment.start_size < 1 and tiny.augment.full_size_from < 1
    small = RECIPES["fine-tune"](Task(facts=ICONS, preset="natural", model="vit_tiny", image_size=32))
    assert small.augment.start_size == 1.0


def test_the_head_of_two_medical_classes_gets_more_dropout() -> None:
    two = RECIPES["fine-tune"](Task(facts=X_RAYS, preset="medical"))
    three = RECIPES["fine-tune"](Task(facts=PHOTOS, preset="medical"))
    assert two.net.dropout is not None and three.net.dropout is not None
    assert two.net.dropout > three.net.dropout > 0


def test_a_probe_sees_images_as_they_are_and_pretraining_only_moves_them() -> None:
    probe = RECIPES["probe"](Task(facts=PHOTOS, preset="natural"))
    assert (probe.augment.horizontal_flip, probe.augment.crop_area, probe.augment.mixup) == (False, 1.0, 0.0)
    moved = RECIPES["pretrain"](Task(facts=PHOTOS, preset="natural")).augment
    assert (moved.horizontal_flip, moved.mixup, moved.rand_augment_ops, moved.brightness) == (True, 0.0, 0, 0.0)
    assert RECIPES["pretrain"](Task(facts=PHOTOS, preset="medical")).augment.horizontal_flip is False


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("vit_micro", "tiny"),
        ("vit_tiny_patch16_224", "tiny"),
        ("deit3_small_patch16_224", "small"),
        ("vit_base_patch16_siglip_224", "base"),
        ("vit_mediumd_patch16_reg4_gap_256", "base"),
        ("vit_so400m_patch14_siglip_224", "large"),
        ("vit_giant_patch14_dinov2", "huge"),
        ("resnet18", "small"),
    ],
)
def test_the_size_of_a_model_is_read_off_its_name(name: str, size: str) -> None:
    assert size_of(name) == size
