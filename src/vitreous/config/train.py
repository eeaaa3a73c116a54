"""Settings of training. A field left at its default of None (or "auto") is chosen from the data, printed and stored.

`vitreous.recipes` turns a partly filled `TrainConfig` into a complete one; the complete one is what `config.json` in
the run folder holds, and what `--config` takes back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vitreous.config.augment import AugmentConfig
from vitreous.config.decide import DecideConfig
from vitreous.config.decode import DecodeConfig
from vitreous.config.distill import DistillConfig
from vitreous.config.input import Exposure
from vitreous.config.lora import LoraConfig
from vitreous.config.loss import LossConfig
from vitreous.config.net import NetConfig
from vitreous.config.optim import OptimConfig
from vitreous.config.pretrain import PretrainConfig
from vitreous.errors import UsageError

Preset = Literal["natural", "medical", "satellite", "document", "inspection"]
Precision = Literal["fp32", "bf16", "fp16"]
Balance = Literal["none", "weights", "sampler", "logit-adjust"]
Method = Literal["full", "probe", "lora", "head", "pretrain"]
RecipeName = Literal["scratch-small", "scratch-large", "fine-tune", "probe", "lora", "head", "pretrain"]
Tracker = Literal["tensorboard", "mlflow"]

METHOD_OF: dict[RecipeName, Method] = {
    "scratch-small": "full",
    "scratch-large": "full",
    "fine-tune": "full",
    "probe": "probe",
    "lora": "lora",
    "head": "head",
    "pretrain": "pretrain",
}
"""What each recipe lets learn."""

__all__ = [
    "METHOD_OF",
    "AugmentConfig",
    "Balance",
    "DecideConfig",
    "DecodeConfig",
    "DistillConfig",
    "LoraConfig",
    "LossConfig",
    "Method",
    "NetConfig",
    "OptimConfig",
    "Precision",
    "Preset",
    "PretrainConfig",
    "RecipeName",
    "Tracker",
    "TrainConfig",
    "parse_duration",
    "parse_fold",
]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What `vitreous train` takes besides the data. Everything has a default that fits the data at hand."""

    model: str = "auto"
    """Architecture: timm's names (vit_tiny_patch16_224, resnet18) or a family (vit_tiny, vit_small, vit_compact)."""
    init: str = "auto"
    """Initial weights: auto, scratch, a file or run folder, or timm:NAME."""
    method: Literal["auto"] | Method = "auto"
    """What learns: the whole model (full), a classifier on features computed once (probe), small matrices beside frozen
    ones (lora), the head alone (head); or the model without labels, to start from later (pretrain)."""
    head_init: Literal["auto", "zero", "closed-form"] = "auto"
    """How the head of a pretrained model starts: at zero, or fitted in closed form to features of training images, so that
    its first steps do not spoil the body (arXiv:2202.10054). auto fits it where the body is trained and the head is new."""
    recipe: Literal["auto"] | RecipeName = "auto"
    """Complete settings to start from; any other flag wins over them."""
    preset: Literal["auto"] | Preset = "auto"
    """Domain, which decides what augmentation may do to an image without changing its label."""
    image_size: int | None = None
    """Side in pixels of the square the model sees; must be divisible by the patch size."""
    exposure: Literal["auto"] | Exposure = "auto"
    """even brings every image to the same brightness and contrast before the model sees it, in training and ever after;
    stored leaves them. auto: even for parts whose light varies more than they do."""
    epochs: int | None = None
    """Passes over the training part. Give this or `--time`, not both."""
    time: str | None = None
    """Budget for the whole command, such as 90s, 10m or 2h; resolved to a step count that is stored."""
    steps: int | None = None
    """Optimiser steps; what epochs or time resolve to."""
    stop_after: int | None = None
    """Step after which training ends although the schedule goes on to --steps. A run under --time stores the one that its
    time ended at, so that its settings give the same weights again."""
    batch_size: Literal["auto"] | int = "auto"
    """Images in one batch on each device; `optim.accumulation` batches make a step. auto takes the recipe's."""
    micro_batch: int | None = None
    """Images that go through the model at once. When absent, the most that memory allows by forecast: a batch that does not
    fit goes in pieces, which give the same gradient."""
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
    train_share: float = 1.0
    """Share of the training part that is used, in (0, 1]: whole groups of every class, a larger share holding every smaller
    one. Validation and test part stay what they are."""
    k_fold: str | None = None
    """I/K: validate on the I-th of K folds of all that is not test, and train on the others (1/5 to 5/5). K alone trains
    all K, one after the other, and reports mean and spread."""
    seeds: int = 1
    """Runs that differ in their seed alone (from --seed on), reported with mean and spread."""
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
    """Unequal classes: weigh the loss, show rare classes more often (sampler), or adjust the logits by the class
    frequencies (arXiv:2007.07314)."""
    precision: Literal["auto"] | Precision = "auto"
    """Number type of the forward and backward pass; weights stay in fp32."""
    seed: int = 0
    """Decides split, initial weights, order and augmentation."""
    split_seed: int | None = None
    """Decides the split and the folds in place of --seed, so that runs with different seeds share them."""
    devices: int | None = None
    """Processes that train together, one on each GPU (or sharing the CPU); 1 when absent."""
    shard: Literal["auto", "none", "full"] = "auto"
    """Whether several devices hold a slice of the weights each (full) or all of them (none). auto: full where weights and
    optimiser state do not fit one device."""
    max_restarts: int = 0
    """Times that training with several devices starts again from its last state after a process has died."""
    track: tuple[Tracker, ...] = ()
    """Where the history is also written to: tensorboard, mlflow (the extra `track`)."""
    threads: int | None = None
    """CPU threads of each process; all that may be used, shared out among the processes, when absent."""
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
    """Optimiser."""
    loss: LossConfig = field(default_factory=LossConfig)
    """Loss."""
    net: NetConfig = field(default_factory=NetConfig)
    """Architecture."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Augmentation."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """Low-rank adaptation."""
    distill: DistillConfig = field(default_factory=DistillConfig)
    """Learning from a trained model."""
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    """Pretraining without labels."""
    decide: DecideConfig = field(default_factory=DecideConfig)
    """What is asked of decisions on the scores."""
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    """Which frame, bands and window of files that hold several."""

    @property
    def repeats(self) -> bool:
        """Whether several runs are asked for: seeds, or a number of folds without one of them."""
        return self.seeds > 1 or (self.k_fold is not None and parse_fold(self.k_fold)[0] == 0)

    @property
    def pretrains(self) -> bool:
        """Whether the run learns from images alone."""
        return "pretrain" in (self.method, self.recipe)

    def __post_init__(self) -> None:
        lengths = [f"--{name} {getattr(self, name)}" for name in ("epochs", "time", "steps") if getattr(self, name)]
        if len(lengths) > 1:
            raise UsageError(f"Both {' and '.join(lengths)} were given.", "Give one: they say the same thing.")
        if self.recipe != "auto" and self.method not in ("auto", METHOD_OF[self.recipe]):
            raise UsageError(
                f"--recipe {self.recipe} is for --method {METHOD_OF[self.recipe]}, and --method {self.method} was given.",
                "Leave one of them out.",
            )
        if self.time is not None:
            parse_duration(self.time)
        for name in ("epochs", "steps", "stop_after", "image_size", "micro_batch", "threads", "devices", "seeds"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} must be at least 1, got {value}.")
        if isinstance(self.batch_size, int) and self.batch_size < 1:
            raise UsageError(f"--batch-size must be at least 1, got {self.batch_size}.")
        for name in ("val_fraction", "test_fraction"):
            if not 0 < getattr(self, name) <= 0.5:
                raise UsageError(f"--{name.replace('_', '-')} must lie in (0, 0.5], got {getattr(self, name)}.")
        if not 0 < self.train_share <= 1:
            raise UsageError(f"--train-share must lie in (0, 1], got {self.train_share}.")
        if self.k_fold is not None:
            parse_fold(self.k_fold)
            if self.val is not None:
                raise UsageError("--k-fold and --val contradict each other.", "Give one of them.")
        if self.pretrains:
            self._check_pretraining()
        if self.repeats and (self.devices or 1) > 1:
            raise UsageError(
                f"--devices {self.devices} trains one run with several processes; --seeds and --k-fold ask for several runs.",
                "Train one seed or fold (--k-fold 1/5) at a time with --devices, or leave --devices out.",
            )
        if self.max_restarts < 0:
            raise UsageError(f"--max-restarts must not be negative, got {self.max_restarts}.")
        if not 0 <= self.max_bad <= 1:
            raise UsageError(f"--max-bad must lie in [0, 1], got {self.max_bad}.")
        for name in ("seed", "split_seed"):
            if (getattr(self, name) or 0) < 0:
                raise UsageError(f"--{name.replace('_', '-')} must not be negative, got {getattr(self, name)}.")
        if self.resume and self.overwrite:
            raise UsageError("--resume and --overwrite contradict each other.", "Give one of them.")
        if self.resume and self.out is None:
            raise UsageError("--resume needs the run folder to continue.", "Add --out runs/NAME.")

    def _check_pretraining(self) -> None:
        """Raise UsageError for what has no meaning without labels."""
        for given, flag in (
            (self.distill.teacher is not None, f"--distill.teacher {self.distill.teacher}"),
            (self.k_fold is not None, f"--k-fold {self.k_fold}"),
            (self.seeds > 1, f"--seeds {self.seeds}"),
            (self.balance not in ("auto", "none"), f"--balance {self.balance}"),
            (self.decide != DecideConfig(), "a setting of --decide"),
        ):
            if given:
                raise UsageError(
                    f"Pretraining learns from images alone, so {flag} has no meaning for it.",
                    "Leave it out; give it when you train a classifier from the result with --init RUN.",
                )


def parse_fold(text: str) -> tuple[int, int]:
    """(2, 5) from "2/5": the number of the fold, from 1, and how many there are; (0, 5) from "5", which means every fold.

    Raises UsageError for anything else.
    """
    match = re.fullmatch(r"(?:(\d+)/)?(\d+)", text.strip())
    single = match is not None and match[1] is not None
    fold, count = (int(match[1] or 0), int(match[2])) if match else (0, 0)
    if not (2 <= count <= 20 and (1 if single else 0) <= fold <= count):
        raise UsageError(
            f"--k-fold must be I/K with 2 to 20 folds and I from 1 to K, or K alone for all of them, got {text!r}.",
            "Write such as: --k-fold 1/5, or --k-fold 5",
        )
    return fold, count


def parse_duration(text: str) -> float:
    """Seconds in "90s", "10m", "1.5h" or a bare number of seconds. Raises UsageError for anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|min|h|d)?\s*", text)
    seconds = float(match[1]) * {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}[match[2] or "s"] if match else 0
    if seconds <= 0:
        raise UsageError(f"--time {text!r} is not a duration.", "Write a number and a unit: 90s, 10m, 2h.")
    return seconds
