from __future__ import annotations

from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, get_args

import pytest

from vitreous.config.convert import from_dict, to_dict
from vitreous.config.facts import DataFacts
from vitreous.config.train import AugmentConfig, NetConfig, OptimConfig, Preset, TrainConfig
from vitreous.models.build import default_patch_size
from vitreous.recipes import AUGMENTATION, guess_preset, resolve
from vitreous.recipes.auto import ema_decay, resize_for
from vitreous.recipes.presets import FEW, GENTLE
from vitreous.recipes.task import Task, may_grow, patch_for

PHOTOS = DataFacts(
    classes=("tulip", "rose", "daisy"),
    train_counts=(900, 800, 700),
    num_val=300,
    num_test=600,
    sizes=((640, 480), (500, 375), (480, 640)),
    grey_share=0.0,
    deep_share=0.0,
    brightness=0.45,
    device="cpu",
    cores=2,
    budget=None,
)
DIGITS = replace(
    PHOTOS,
    classes=tuple("0123456789"),
    train_counts=(120,) * 10,
    sizes=((8, 8),),
    grey_share=1.0,
    brightness=0.3,
)
BIG = replace(PHOTOS, train_counts=(20_000,) * 3, device="cuda", cores=16)
EVERY_FACTS = {
    "photos": PHOTOS,
    "digits": DIGITS,
    "big": BIG,
    "scans": replace(PHOTOS, classes=("letter", "invoice", "memo"), grey_share=1.0, brightness=0.9),
    "icons": replace(PHOTOS, sizes=((32, 32),)),
    "two images": replace(PHOTOS, train_counts=(1, 1), classes=("a", "b")),
    "hurried": replace(PHOTOS, budget=60.0),
    "unequal": replace(PHOTOS, train_counts=(900, 90, 9)),
}
PRESETS: tuple[Preset, ...] = get_args(Preset)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_decides_every_augmentation(preset: Preset) -> None:
    unset = [name for name, value in asdict(AUGMENTATION[preset]).items() if value is None]
    assert unset == []


def test_there_is_a_preset_for_every_domain() -> None:
    assert set(AUGMENTATION) == set(PRESETS)


@pytest.mark.parametrize("name", EVERY_FACTS)
@pytest.mark.parametrize("preset", ["auto", *PRESETS])
@pytest.mark.parametrize("model", ["auto", "vit_small", "resnet18"])
def test_a_resolved_recipe_leaves_nothing_open(name: str, preset: Any, model: str) -> None:
    config = resolve(TrainConfig(preset=preset, model=model), EVERY_FACTS[name]).config
    assert config.preset != "auto"
    assert config.model != "auto"
    assert config.balance != "auto"
    assert isinstance(config.batch_size, int)
    assert config.image_size is not None
    assert config.epochs is not None
    assert [field for field, value in asdict(config.augment).items() if value is None] == []
    # These two follow from the number of steps, which only the length of an epoch gives.
    assert [field for field, value in asdict(config.optim).items() if value is None] == ["warmup_steps", "ema_decay"]
    assert config.net.drop_path is not None
    assert config.net.dropout is not None


@pytest.mark.parametrize("name", EVERY_FACTS)
def test_resolving_twice_changes_nothing(name: str) -> None:
    facts = EVERY_FACTS[name]
    once = resolve(TrainConfig(), facts).config
    assert resolve(once, facts).config == once
    assert resolve(from_dict(TrainConfig, to_dict(once)), facts).config == once


@pytest.mark.parametrize("name", EVERY_FACTS)
def test_resolving_is_deterministic_and_leaves_its_arguments_alone(name: str) -> None:
    config, facts = TrainConfig(), EVERY_FACTS[name]
    before = (to_dict(config), asdict(facts))
    assert resolve(config, facts) == resolve(TrainConfig(), facts)
    assert (to_dict(config), asdict(facts)) == before


OPTIM = OptimConfig(
    lr=0.123,
    weight_decay=0.0,
    beta1=0.0,
    beta2=0.5,
    warmup=0.0,
    final_lr=0.0,
    clip_norm=0.0,
    accumulation=3,
    ema_decay=0.0,
    label_smoothing=0.0,
    name="lamb",
    schedule="wsd",
    cooldown=0.0,
    layer_decay=0.5,
    sam=0.0,
    patience=1,
    soup=2,
    on_nan="skip",
)
NET = NetConfig(
    patch_size=7,
    embed_dim=70,
    depth=1,
    num_heads=7,
    mlp_ratio=1.0,
    pooling="mean",
    num_registers=0,
    stem="linear",
    drop_path=0.0,
    dropout=0.0,
    checkpointing=False,
)
AUGMENT = AugmentConfig(
    **{
        field.name: {"bool | None": False, "int | None": 0, "float | None": 0.0}[str(field.type)]
        for field in fields(AugmentConfig)
    }
)
GIVEN: list[dict[str, Any]] = [
    {"model": "vit_base"},
    {"preset": "satellite"},
    {"image_size": 56},
    {"epochs": 1},
    {"time": "3m"},
    {"steps": 17},
    {"batch_size": 1},
    {"balance": "none"},
    {"precision": "fp16"},
    {"seed": 11},
    {"init": "somewhere.pth"},
    {"val": Path("v"), "threads": 1, "strict": True, "ignore_classes": ("x",)},
    {"optim": OPTIM},
    {"net": NET},
    {"augment": AUGMENT},
]


@pytest.mark.parametrize("name", EVERY_FACTS)
@pytest.mark.parametrize("given", GIVEN, ids=lambda given: "-".join(given))
def test_what_the_caller_set_is_never_changed(name: str, given: dict[str, Any]) -> None:
    config = resolve(TrainConfig(**given), EVERY_FACTS[name]).config
    for field, value in given.items():
        assert getattr(config, field) == value


@pytest.mark.parametrize("given", [{"time": "3m"}, {"steps": 5}])
def test_a_length_that_was_given_gets_no_epochs_beside_it(given: dict[str, Any]) -> None:
    assert resolve(TrainConfig(**given), PHOTOS).config.epochs is None


def test_single_fields_of_a_stage_are_kept_among_chosen_ones() -> None:
    config = resolve(TrainConfig(augment=AugmentConfig(horizontal_flip=False), preset="natural"), PHOTOS).config
    alone = resolve(TrainConfig(preset="natural"), PHOTOS).config
    assert alone.augment.horizontal_flip is True
    assert config.augment == replace(alone.augment, horizontal_flip=False)


def test_few_photographs_are_changed_more_gently_than_many() -> None:
    many = replace(PHOTOS, train_counts=tuple(10 * FEW for _ in PHOTOS.classes))
    few = replace(PHOTOS, train_counts=tuple(10 for _ in PHOTOS.classes))
    strong, gentle = (resolve(TrainConfig(preset="natural"), facts).config.augment for facts in (many, few))
    assert strong.cutmix == AUGMENTATION["natural"].cutmix
    assert {name: getattr(gentle, name) for name in GENTLE} == GENTLE


@pytest.mark.parametrize("name", EVERY_FACTS)
@pytest.mark.parametrize("preset", ["document", "medical"])
def test_text_and_x_rays_are_never_mirrored_or_turned_over(preset: Preset, name: str) -> None:
    augment = resolve(TrainConfig(preset=preset), EVERY_FACTS[name]).config.augment
    assert augment.horizontal_flip is False
    assert augment.vertical_flip is False
    assert augment.quarter_turns is False
    # RandAugment has no mirroring, but its strong rotations and inversions have no place here either.
    assert augment.rand_augment_ops == 0


@pytest.mark.parametrize("name", EVERY_FACTS)
def test_inspection_never_cuts_away_where_the_defect_may_be(name: str) -> None:
    resolved = resolve(TrainConfig(preset="inspection"), EVERY_FACTS[name])
    assert resolved.config.augment.crop_area == 1.0
    assert resolved.config.augment.erase == 0.0
    assert resolved.config.augment.cutmix == 0.0
    assert resolved.resize == "squash"


def test_satellite_images_get_exactly_the_eight_symmetries() -> None:
    """Nothing else moves a pixel: no crop changes the scale on the ground, no rotation leaves a corner open."""
    augment = AUGMENTATION["satellite"]
    assert augment.horizontal_flip and augment.vertical_flip and augment.quarter_turns
    assert (augment.rotate, augment.translate, augment.scale, augment.shear) == (0, 0, 0, 0)
    assert augment.crop_area == 1.0
    assert augment.rand_augment_ops == 0


@pytest.mark.parametrize("preset", ["medical", "satellite", "document", "inspection"])
def test_only_photographs_are_recoloured_or_blanked(preset: Preset) -> None:
    augment = AUGMENTATION[preset]
    assert augment.rand_augment_ops == 0
    assert augment.erase == 0


def test_only_documents_are_blurred_and_only_pages() -> None:
    assert {preset for preset in PRESETS if AUGMENTATION[preset].blur} == {"document"}
    assert resolve(TrainConfig(preset="document"), EVERY_FACTS["scans"]).config.augment.blur
    assert resolve(TrainConfig(preset="document"), DIGITS).config.augment.blur == 0


@pytest.mark.parametrize(
    ("preset", "spread", "asked", "exposure"),
    [
        ("inspection", 1.2, "auto", "even"),
        ("inspection", 0.4, "auto", "stored"),
        ("satellite", 1.2, "auto", "stored"),
        ("inspection", 1.2, "stored", "stored"),
        ("natural", 0.4, "even", "even"),
    ],
)
def test_parts_under_changing_light_are_evened_out(preset: Preset, spread: float, asked: Any, exposure: str) -> None:
    found = resolve(TrainConfig(preset=preset, exposure=asked), replace(PHOTOS, exposure_spread=spread))
    assert found.config.exposure == exposure
    assert any("same brightness" in reason for reason in found.reasons) == (exposure == "even")


def test_only_photographs_lose_their_edges() -> None:
    assert {preset: resize_for(preset) for preset in PRESETS} == {
        "natural": "crop",
        "medical": "squash",
        "satellite": "squash",
        "document": "squash",
        "inspection": "squash",
    }


@pytest.mark.parametrize(
    ("changes", "preset"),
    [
        ({"classes": ("NORMAL", "PNEUMONIA"), "grey_share": 1.0}, "medical"),
        ({"classes": ("brain tumor", "healthy")}, "medical"),
        ({"classes": ("Forest", "River", "SeaLake", "Highway", "AnnualCrop")}, "satellite"),
        ({"classes": ("letter", "email", "invoice", "memo")}, "document"),
        ({"classes": ("MT_Blowhole", "MT_Break", "MT_Crack", "MT_Free")}, "inspection"),
        ({"classes": ("tulip", "rose")}, "natural"),
        ({"classes": tuple("0123"), "grey_share": 1.0, "sizes": ((28, 28),)}, "document"),
        ({"classes": ("x", "y"), "grey_share": 1.0, "brightness": 0.9}, "document"),
        ({"classes": ("x", "y"), "grey_share": 1.0, "sizes": ((512, 512),)}, "medical"),
        ({"classes": ("x", "y"), "grey_share": 1.0, "sizes": ((512, 512), (300, 200))}, "inspection"),
        ({"classes": ("x", "y"), "grey_share": 0.5}, "natural"),
    ],
)
def test_the_domain_is_guessed_from_names_and_pixels(changes: dict[str, Any], preset: str) -> None:
    guessed, why = guess_preset(replace(PHOTOS, **changes))
    assert guessed == preset
    assert why


@pytest.mark.parametrize(
    ("changes", "preset", "word"),
    [
        (
            {"formats": (("DICOM", 1.0),), "grey_share": 1.0, "deep_share": 1.0},
            "medical",
            "100% of the images are DICOM",
        ),
        ({"formats": (("PNG", 0.3), ("dicom", 0.7))}, "medical", "70% of the images are DICOM"),
        ({"formats": (("GeoTIFF", 1.0),)}, "satellite", "GeoTIFF"),
        ({"channels": 13}, "satellite", "13 bands"),
        ({"channels": 4, "classes": ("crack", "ok")}, "satellite", "4 bands"),
        ({"formats": (("TIFF", 1.0),), "channels": 3}, "natural", "colour"),
        ({"formats": (("DICOM", 0.2), ("JPEG", 0.8))}, "natural", "colour"),
        ({"grey_share": 1.0, "deep_share": 1.0, "sizes": ((512, 512), (300, 200))}, "medical", "more than 8 bits"),
        ({"grey_share": 1.0, "deep_share": 1.0, "classes": ("crack", "scratch")}, "inspection", "class names"),
        ({"grey_share": 1.0, "sizes": ((540, 704), (545, 704)), "brightness": 0.7}, "document", "page's shape"),
        ({"grey_share": 1.0, "sizes": ((540, 704), (545, 704)), "brightness": 0.5}, "inspection", "mixed sizes"),
        ({"sizes": ((540, 704), (545, 704)), "brightness": 0.93}, "document", "page's shape"),
        ({"sizes": ((540, 704), (545, 704)), "brightness": 0.7}, "natural", "colour"),
        ({"sizes": ((704, 704), (700, 700)), "brightness": 0.93}, "natural", "colour"),
    ],
)
def test_formats_bands_and_shapes_tell_the_domain_and_the_reason_says_so(
    changes: dict[str, Any], preset: str, word: str
) -> None:
    guessed, why = guess_preset(replace(PHOTOS, **{"classes": ("x", "y"), **changes}))
    assert guessed == preset
    assert word in why


TILES = ("blowhole", "break", "crack", "fray", "free", "uneven")
LAND = ("field", "forest", "grass", "industry", "parking", "resident", "river_lake")
PAGES = ("advertisement", "email", "letter", "news_article", "scientific_publication")
CLOTHES = ("dress", "hat", "longsleeve", "outwear", "pants", "shirt", "shoes", "shorts", "skirt", "t_shirt")


@pytest.mark.parametrize(
    ("classes", "sizes", "grey", "brightness", "preset", "without_names"),
    [
        (("no_finding", "pneumonia"), ((320, 320),), 1.0, 0.546, "medical", "medical"),
        (LAND, ((256, 256),), 0.0, 0.379, "satellite", "natural"),
        (PAGES, ((531, 704), (544, 704)), 1.0, 0.901, "document", "document"),
        (TILES, ((214, 257), (220, 320), (320, 214)), 1.0, 0.44, "inspection", "inspection"),
        (CLOTHES, ((224, 298), (224, 300)), 0.0, 0.496, "natural", "natural"),
        (("airplane", "frog"), ((32, 32),), 0.0, 0.488, "natural", "natural"),
    ],
)
def test_the_development_sets_are_told_apart_by_what_was_measured_of_them(
    classes: tuple[str, ...],
    sizes: tuple[tuple[int, int], ...],
    grey: float,
    brightness: float,
    preset: str,
    without_names: str,
) -> None:
    facts = replace(PHOTOS, classes=classes, sizes=sizes, grey_share=grey, brightness=brightness)
    assert guess_preset(facts)[0] == preset
    assert guess_preset(replace(facts, classes=("x", "y")))[0] == without_names


def test_names_that_speak_of_two_domains_decide_nothing() -> None:
    assert guess_preset(replace(PHOTOS, classes=("pneumonia", "forest")))[0] == "natural"


def test_unequal_classes_have_their_logits_adjusted_and_equal_ones_not() -> None:
    assert resolve(TrainConfig(), EVERY_FACTS["unequal"]).config.balance == "logit-adjust"
    assert resolve(TrainConfig(), PHOTOS).config.balance == "none"


@pytest.mark.parametrize(
    ("model", "image_size"), [("vit_tiny_patch16_224", 224), ("vit_base_patch32_384", 384), ("resnet18", 128)]
)
def test_a_size_in_the_name_is_taken_and_not_called_a_choice(model: str, image_size: int) -> None:
    resolved = resolve(TrainConfig(model=model), PHOTOS)
    assert resolved.config.image_size == image_size
    assert any(reason.startswith("image size") for reason in resolved.reasons) == model.startswith("resnet")


@pytest.mark.parametrize("side", range(4, 130, 3))
def test_small_images_are_kept_at_about_their_size_and_tiny_ones_doubled(side: int) -> None:
    size = resolve(TrainConfig(), replace(PHOTOS, sizes=((side, side),))).config.image_size
    assert size is not None
    if side <= 12:
        assert max(8, 2 * side) <= size <= 2 * side + 3
    elif side <= 96:
        assert side <= size <= side + 7
    else:
        assert size == 128
    assert size % (4 if size <= 48 else 8) == 0, "whatever patch the model takes divides it"


def test_every_choice_is_explained() -> None:
    reasons = " | ".join(resolve(TrainConfig(), EVERY_FACTS["unequal"]).reasons)
    for word in ("preset", "image size", "model", "epochs", "balance"):
        assert word in reasons


def test_a_short_budget_gets_a_smaller_model() -> None:
    assert resolve(TrainConfig(), replace(PHOTOS, budget=30.0)).config.model == "vit_micro"
    assert resolve(TrainConfig(), replace(PHOTOS, budget=36_000.0)).config.model == "vit_compact"
    assert resolve(TrainConfig(), BIG).config.model == "vit_small"


@pytest.mark.parametrize(("steps", "decay"), [(1, 0.9), (500, 0.9), (5_000, 0.99), (10**9, 0.9998)])
def test_the_average_covers_a_fiftieth_of_training(steps: int, decay: float) -> None:
    assert ema_decay(steps) == pytest.approx(decay)


MANY_SMALL = replace(PHOTOS, train_counts=(5_000,) * 10, classes=tuple("abcdefghij"), sizes=((32, 32),))


def test_small_photographs_in_a_hurry_are_only_mirrored_and_shifted() -> None:
    hurried, patient = (
        resolve(TrainConfig(preset="natural"), replace(MANY_SMALL, budget=budget)).config.augment
        for budget in (600.0, 360_000.0)
    )
    assert (hurried.pad_crop, hurried.crop_area, hurried.rand_augment_ops, hurried.mixup) == (3, 1.0, 0, 0.0)
    assert hurried.horizontal_flip is True
    assert patient.pad_crop == 0
    assert patient.rand_augment_ops == AUGMENTATION["natural"].rand_augment_ops


def test_a_hurried_compact_model_sees_small_images_first_where_its_patches_allow_it() -> None:
    hurried = replace(MANY_SMALL, budget=600.0)

    def start(**given: Any) -> float | None:
        return resolve(TrainConfig(preset="natural", init="scratch", **given), hurried).config.augment.start_size

    assert start() == 0.75
    assert start(model="vit_tiny_patch16_224", image_size=32) == 1.0
    assert start(net=NetConfig(patch_size=16)) == 1.0
    assert start(image_size=16) == 1.0
    assert resolve(TrainConfig(preset="natural"), replace(MANY_SMALL, budget=None)).config.augment.start_size == 1.0


@pytest.mark.parametrize(
    ("model", "size", "start", "may"),
    [
        ("vit_micro", 32, 0.75, True),
        ("vit_small", 224, 192 / 224, True),
        ("vit_base_patch32_224", 96, 192 / 224, False),
        ("vit_base_patch32_224", 64, 0.5, False),
        ("vit_base_patch32_224", 224, 0.7, True),
    ],
)
def test_images_grow_by_whole_patches_or_not_at_all(model: str, size: int, start: float, may: bool) -> None:
    assert may_grow(Task(facts=PHOTOS, preset="natural"), model, size, start) is may


@pytest.mark.parametrize("name", ["fine-tune", "lora", "head", "probe", "pretrain"])
def test_what_starts_from_trained_weights_or_makes_them_learns_with_adamw(name: Any) -> None:
    config = TrainConfig(model="vit_micro", init="somewhere", recipe=name)
    assert resolve(config, MANY_SMALL).config.optim.name == "adamw"


@pytest.mark.parametrize("name", ["scratch-small", "fine-tune", "head", "pretrain", "scratch-large"])
def test_the_rate_follows_all_images_of_a_step(name: Any) -> None:
    def rate(**given: Any) -> float:
        config = TrainConfig(
            model="vit_micro", init="scratch" if "scratch" in name else "somewhere", recipe=name, **given
        )
        found = resolve(config, MANY_SMALL).config.optim.lr
        assert found is not None
        return found

    alone, four = (rate(optim=OptimConfig(accumulation=count)) for count in (1, 4))
    assert four == pytest.approx(2 * alone, rel=1e-4)
    assert rate(devices=2, optim=OptimConfig(accumulation=2)) == pytest.approx(four, rel=1e-4)


@pytest.mark.parametrize(
    ("model", "optimiser"), [("vit_micro", "muon"), ("vit_tiny_patch16_224", "adamw"), ("resnet18", "adamw")]
)
def test_compact_transformers_learn_with_muon_and_others_with_adamw(model: str, optimiser: str) -> None:
    assert resolve(TrainConfig(model=model, init="scratch"), MANY_SMALL).config.optim.name == optimiser


@pytest.mark.parametrize("size", range(4, 260, 4))
def test_recipes_and_models_agree_on_the_patches_that_fit_a_size(size: int) -> None:
    assert patch_for(size) == default_patch_size(size)
