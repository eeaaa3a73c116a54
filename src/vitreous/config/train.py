"""Settings of training. A field left at its default of None (or "auto") is chosen from the data, printed and stored.

`vitreous.recipes` turns a partly filled `TrainConfig` into a complete one; the complete one is what `config.json` in
the run folder holds, and what `--config` takes back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vitreous.config.decode import DecodeConfig
from vitreous.errors import UsageError

Preset = Literal["natural", "medical", "satellite", "document", "inspection"]
Precision = Literal["fp32", "bf16", "fp16"]
Balance = Literal["none", "weights", "logit-adjust"]


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with linear warm-up and cosine decay (Loshchilov and Hutter 2019, arXiv:1711.05101)."""

    lr: float | None = None
    """Peak learning rate."""
    weight_decay: float | None = None
    """Decoupled weight decay per unit of learning rate; never applied to norms, biases, tokens and positions."""
    beta1: float | None = None
    """Decay of the gradient average, in [0, 1)."""
    beta2: float | None = None
    """Decay of the squared-gradient average, in [0, 1)."""
    warmup: float | None = None
    """Share of all steps over which the learning rate rises from 0, in [0, 1)."""
    warmup_steps: int | None = None
    """Optimiser steps of warm-up; what `warmup` resolves to."""
    final_lr: float | None = None
    """Learning rate at the last step, as a share of the peak, in [0, 1]."""
    clip_norm: float | None = None
    """Largest norm of the whole gradient; longer ones are scaled down. 0 switches clipping off."""
    accumulation: int | None = None
    """Batches whose gradients are averaged before one optimiser step; the effective batch is this times the batch."""
    ema_decay: float | None = None
    """Decay per step of the averaged weights that are evaluated and saved, in [0, 1). 0 switches averaging off."""
    label_smoothing: float | None = None
    """Probability mass spread evenly over all classes, in [0, 1)."""

    def __post_init__(self) -> None:
        _check_ranges(
            self,
            "optim",
            {
                "lr": "(0, inf)",
                "weight_decay": "[0, inf)",
                "beta1": "[0, 1)",
                "beta2": "[0, 1)",
                "warmup": "[0, 1)",
                "warmup_steps": "[0, inf)",
                "final_lr": "[0, 1]",
                "clip_norm": "[0, inf)",
                "accumulation": "[1, inf)",
                "ema_decay": "[0, 1)",
                "label_smoothing": "[0, 1)",
            },
        )


@dataclass(frozen=True, kw_only=True)
class NetConfig:
    """The shape of the Vision Transformer; CNN baselines read only the dropout fields."""

    patch_size: int | None = None
    """Pixels of a square patch's side; must divide the image size."""
    embed_dim: int | None = None
    """Width of a token; must be divisible by `num_heads`."""
    depth: int | None = None
    """Number of transformer blocks."""
    num_heads: int | None = None
    """Attention heads in a block."""
    mlp_ratio: float | None = None
    """Hidden width of the MLP as a multiple of `embed_dim`."""
    pooling: Literal["cls", "mean", "cls_mean", "attention", "sequence"] | None = None
    """What the head reads: the [CLS] token (2020 paper), the mean of the patch tokens, both side by side (DINOv2), or what
    a learned query (SigLIP) or learned scores (CCT) take from the patches."""
    pool_prefix: bool | None = None
    """Pool the tokens before the patches too: [CLS] and registers."""
    class_token: bool | None = None
    """Whether there is a [CLS] token; without it the head must read something else."""
    num_registers: int | None = None
    """Extra learnable tokens, 0 to 8 (Darcet et al. 2024, arXiv:2309.16588)."""
    stem: Literal["linear", "conv", "shifted"] | None = None
    """How patches become tokens: one linear map (2020 paper), a few 3x3 convolutions (arXiv:2106.14881), or a linear map of
    each patch and its four shifted copies (arXiv:2112.13492)."""
    positions: Literal["learned", "sincos", "none"] | None = None
    """Embedding added to each patch for where it stands."""
    rope: Literal["none", "axial", "mixed"] | None = None
    """Rotary positions inside attention: rows and columns apart (DINOv3, ViT-5) or mixed by learning
    (arXiv:2403.13298)."""
    rope_theta: float | None = None
    """Base of the rotary frequencies."""
    block: Literal["pre_norm", "post_norm", "parallel", "branched"] | None = None
    """Where the norms stand, and whether attention and MLP run one after the other (2020 paper), side by side
    (arXiv:2302.05442) or in two branches each (arXiv:2203.09795)."""
    norm: Literal["layer", "rms"] | None = None
    """LayerNorm or RMSNorm (arXiv:1910.07467)."""
    qkv_bias: bool | Literal["qv"] | None = None
    """Whether queries, keys and values have biases: all, none, or queries and values only (qv)."""
    qk_norm: bool | None = None
    """Normalise queries and keys: steadier training (arXiv:2302.05442)."""
    differential: bool | None = None
    """Differential attention (arXiv:2410.05258)."""
    mlp: Literal["mlp", "swiglu"] | None = None
    """Two layers with a GELU, or gated (SwiGLU, arXiv:2002.05202)."""
    layer_scale: float | None = None
    """Initial value of a learned factor on each residual branch (arXiv:2103.17239)."""
    drop_path: float | None = None
    """Stochastic depth: chance that the last block is skipped in training; in [0, 1)."""
    drop_path_shape: Literal["linear", "uniform"] | None = None
    """Stochastic depth rises linearly from 0 to `drop_path`, or is the same in all blocks (arXiv:2204.07118)."""
    dropout: float | None = None
    """Chance that an input of the head is zeroed in training, in [0, 1)."""
    attention_dropout: float | None = None
    """Chance that an attention weight is zeroed in training, in [0, 1)."""
    projection_dropout: float | None = None
    """Chance that an output of attention or MLP is zeroed in training, in [0, 1)."""
    patch_dropout: float | None = None
    """Share of the patches of each training image that are left out, in [0, 1) (arXiv:2212.00794)."""
    checkpointing: bool | None = None
    """Recompute activations in the backward pass: less memory, about a third more time."""

    def __post_init__(self) -> None:
        _check_ranges(
            self,
            "net",
            {
                "patch_size": "[1, inf)",
                "embed_dim": "[1, inf)",
                "depth": "[1, inf)",
                "num_heads": "[1, inf)",
                "mlp_ratio": "(0, inf)",
                "num_registers": "[0, 8]",
                "rope_theta": "(0, inf)",
                "layer_scale": "(0, inf)",
                "drop_path": "[0, 1)",
                "dropout": "[0, 1)",
                "attention_dropout": "[0, 1)",
                "projection_dropout": "[0, 1)",
                "patch_dropout": "[0, 1)",
            },
        )


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random changes of training images. What may not change a label depends on the domain: see `--preset`."""

    horizontal_flip: bool | None = None
    """Mirror left and right with probability one half."""
    vertical_flip: bool | None = None
    """Mirror top and bottom with probability one half."""
    quarter_turns: bool | None = None
    """Turn by a random multiple of 90 degrees (square images only)."""
    rotate: float | None = None
    """Largest rotation either way, degrees."""
    translate: float | None = None
    """Largest shift either way, as a share of the image side."""
    scale: float | None = None
    """Largest relative change of size either way: 0.2 means 0.8 to 1.2."""
    shear: float | None = None
    """Largest shear either way, degrees."""
    crop_area: float | None = None
    """Smallest share of the image's area that a random resized crop keeps, in (0, 1]; 1 switches it off."""
    rand_augment_ops: int | None = None
    """RandAugment: operations applied to an image (Cubuk et al. 2020, arXiv:1909.13719). 0 switches it off."""
    rand_augment_magnitude: int | None = None
    """RandAugment: strength of an operation, 0 to 30."""
    brightness: float | None = None
    """Largest relative change of brightness either way, in [0, 1)."""
    contrast: float | None = None
    """Largest relative change of contrast either way, in [0, 1)."""
    gamma: float | None = None
    """Largest relative change of the exponent that values in [0, 1] are raised to: 0.25 means 0.8 to 1.25."""
    blur: float | None = None
    """Largest standard deviation of a Gaussian blur, as a share of the shorter image side: 0.004 is 0.9 px of 224."""
    noise: float | None = None
    """Largest standard deviation of added Gaussian noise, in units of full brightness."""
    erase: float | None = None
    """Probability of blanking one random rectangle (arXiv:1708.04896)."""
    mixup: float | None = None
    """Beta parameter of mixup (arXiv:1710.09412). 0 switches it off."""
    cutmix: float | None = None
    """Beta parameter of CutMix (arXiv:1905.04899). 0 switches it off."""
    mix_probability: float | None = None
    """Share of batches that are mixed, in [0, 1]."""
    mix_until: float | None = None
    """Share of all steps after which mixing stops, so that training ends on clean images; in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What `vitreous train` takes besides the data. Everything has a default that fits the data at hand."""

    model: str = "auto"
    """Architecture: timm's names (vit_tiny_patch16_224, resnet18) or a family (vit_tiny, vit_small, vit_compact)."""
    init: str = "auto"
    """Initial weights: auto, scratch, a file or run folder, or timm:NAME."""
    preset: Literal["auto"] | Preset = "auto"
    """Domain, which decides what augmentation may do to an image without changing its label."""
    image_size: int | None = None
    """Side in pixels of the square the model sees; must be divisible by the patch size."""
    epochs: int | None = None
    """Passes over the training part. Give this or `--time`, not both."""
    time: str | None = None
    """Budget for the whole command, such as 90s, 10m or 2h; resolved to a step count that is stored."""
    steps: int | None = None
    """Optimiser steps; what epochs or time resolve to."""
    batch_size: Literal["auto"] | int = "auto"
    """Images in one forward pass."""
    group: str | None = None
    """Keeps related images in one part: a column of the manifest or groups.csv, `patient` (DICOM), `exif` (one camera
    within five minutes), or a regular expression on the path whose first group (or whole match) names the group."""
    val: Path | None = None
    """Folder or manifest of validation images; split off the training part when absent."""
    test: Path | None = None
    """Folder or manifest of test images; split off when the data holds none."""
    val_fraction: float = 0.15
    """Share of the images that are not test that becomes the validation part, where none is given; in (0, 0.5]."""
    test_fraction: float = 0.2
    """Share of all images outside a given validation part that becomes the test part, where none is given; in (0, 0.5]."""
    k_fold: str | None = None
    """I/K: validate on the I-th of K folds of all that is not test, and train on the others (1/5 to 5/5)."""
    split: Path | None = None
    """A run folder or its splits.csv: images that are in it keep their part. An earlier run of the same data beside
    this one is found by itself."""
    fixes: Path | None = None
    """Corrections to carry out, as `vitreous audit` proposes them: a CSV with path, action, label."""
    ignore_classes: tuple[str, ...] = ()
    """Class names to leave out."""
    max_bad: float = 0.05
    """Largest share of unreadable files that is put up with, in [0, 1]."""
    balance: Literal["auto"] | Balance = "auto"
    """Unequal classes: weigh the loss, or adjust the logits by the class frequencies (arXiv:2007.07314)."""
    precision: Literal["auto"] | Precision = "auto"
    """Number type of the forward and backward pass; weights stay in fp32."""
    seed: int = 0
    """Decides split, initial weights, order and augmentation."""
    threads: int | None = None
    """CPU threads; all that this process may use when absent."""
    out: Path | None = None
    """Run folder to write; runs/NAME, numbered when that exists, when absent."""
    resume: bool = False
    """Continue the run in --out; start it where there is nothing."""
    overwrite: bool = False
    """Replace the run in --out."""
    strict: bool = False
    """Exit 3 where a finding would only be warned about: the same image in two parts, unreadable files."""
    offline: bool = False
    """Never use the network."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser and loss."""
    net: NetConfig = field(default_factory=NetConfig)
    """Architecture."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Augmentation."""
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    """Which frame, bands and window of files that hold several."""

    def __post_init__(self) -> None:
        lengths = [f"--{name} {getattr(self, name)}" for name in ("epochs", "time", "steps") if getattr(self, name)]
        if len(lengths) > 1:
            raise UsageError(f"Both {' and '.join(lengths)} were given.", "Give one: they say the same thing.")
        if self.time is not None:
            parse_duration(self.time)
        for name in ("epochs", "steps", "image_size", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} must be at least 1, got {value}.")
        if isinstance(self.batch_size, int) and self.batch_size < 1:
            raise UsageError(f"--batch-size must be at least 1, got {self.batch_size}.")
        for name in ("val_fraction", "test_fraction"):
            if not 0 < getattr(self, name) <= 0.5:
                raise UsageError(f"--{name.replace('_', '-')} must lie in (0, 0.5], got {getattr(self, name)}.")
        if self.k_fold is not None:
            parse_fold(self.k_fold)
            if self.val is not None:
                raise UsageError("--k-fold and --val contradict each other.", "Give one of them.")
        if not 0 <= self.max_bad <= 1:
            raise UsageError(f"--max-bad must lie in [0, 1], got {self.max_bad}.")
        if self.seed < 0:
            raise UsageError(f"--seed must not be negative, got {self.seed}.")
        if self.resume and self.overwrite:
            raise UsageError("--resume and --overwrite contradict each other.", "Give one of them.")
        if self.resume and self.out is None:
            raise UsageError("--resume needs the run folder to continue.", "Add --out runs/NAME.")


def _check_ranges(settings: object, stage: str, ranges: dict[str, str]) -> None:
    """Raise UsageError for the first number outside its interval; one left open (None) is in range."""
    for name, interval in ranges.items():
        value = getattr(settings, name)
        if value is None:
            continue
        low, high = (float(end) for end in interval[1:-1].split(","))
        above = value > low or (interval[0] == "[" and value == low)
        below = value < high or (interval[-1] == "]" and value == high)
        if not (above and below):  # also true of NaN
            raise UsageError(f"--{stage}.{name.replace('_', '-')} must lie in {interval}, got {value}.")


def parse_fold(text: str) -> tuple[int, int]:
    """(2, 5) from "2/5": the number of the fold, from 1, and how many there are. Raises UsageError for anything else."""
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    fold, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not (2 <= count <= 20 and 1 <= fold <= count):
        raise UsageError(
            f"--k-fold must be I/K with 2 to 20 folds and I from 1 to K, got {text!r}.", "Write such as: --k-fold 1/5"
        )
    return fold, count


def parse_duration(text: str) -> float:
    """Seconds in "90s", "10m", "1.5h" or a bare number of seconds. Raises UsageError for anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|min|h|d)?\s*", text)
    seconds = float(match[1]) * {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}[match[2] or "s"] if match else 0
    if seconds <= 0:
        raise UsageError(f"--time {text!r} is not a duration.", "Write a number and a unit: 90s, 10m, 2h.")
    return seconds
