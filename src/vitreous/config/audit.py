"""Settings of an audit."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vitreous.config.decode import DecodeConfig
from vitreous.config.train import Preset
from vitreous.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """What `vitreous audit` takes besides the data."""

    group: str | None = None
    """Related images: a column of the manifest or groups.csv, `patient` (DICOM), `exif` (one camera within five minutes),
    or a regular expression on the path."""
    val: Path | None = None
    """Folder or manifest of validation images, where they lie elsewhere."""
    test: Path | None = None
    """Folder or manifest of test images, where they lie elsewhere."""
    ignore_classes: tuple[str, ...] = ()
    """Class names to leave out."""
    model: Path | None = None
    """A finished run folder: its features find look-alikes and wrong labels better than the built-in ones."""
    show_augmented: bool = False
    """Only show what training would do to images, as a page of examples for each class."""
    preset: Literal["auto"] | Preset = "auto"
    """Domain whose augmentation --show-augmented shows; guessed from the data when auto."""
    apply: Path | None = None
    """Carry out the corrections in this table (fixes.csv) and write a manifest of the result to --out FILE.csv."""
    examples: int = 24
    """Pictures shown of each finding, at most; all are listed in audit.json."""
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    """Which frame, bands and window of files that hold several."""
    seed: int = 0
    """Decides the folds and the random features of the probes."""
    threads: int | None = None
    """CPU threads; all that this process may use when absent."""
    cache: bool = True
    """Remember what was found in each file, by its content, so that a second look is quick; --no-cache looks anew."""
    out: Path | None = None
    """Folder to write; audits/NAME, numbered when that exists, when absent."""
    overwrite: bool = False
    """Replace what is in --out."""
    strict: bool = False
    """Exit 3 where the same image, group or a near-duplicate lies in different parts, or files are unreadable."""
    offline: bool = False
    """Never use the network."""

    def data_flags(self) -> list[str]:
        """The flags that decide which images there are, for the commands that follow an audit."""
        flags: list[str] = []
        for name in ("group", "val", "test"):
            value = getattr(self, name)
            flags += [f"--{name}", str(value)] if value is not None else []
        return flags + (["--ignore-classes", *self.ignore_classes] if self.ignore_classes else [])

    def __post_init__(self) -> None:
        if self.examples < 0:
            raise UsageError(f"--examples must not be negative, got {self.examples}.")
        if self.seed < 0:
            raise UsageError(f"--seed must not be negative, got {self.seed}.")
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"--threads must be at least 1, got {self.threads}.")
        if self.apply is not None and self.out is None:
            raise UsageError("--apply needs the manifest to write.", "Add --out corrected.csv")
        if self.apply is not None and self.out is not None and self.out.suffix.lower() != ".csv":
            raise UsageError(f"--out {self.out.name!r} is no CSV file.", "Write --out corrected.csv")
