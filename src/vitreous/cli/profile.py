"""`vitreous profile MODEL...`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from vitreous.cli.output import Console
from vitreous.cli.parse import Common, listed, parse
from vitreous.errors import UsageError

DESCRIPTION = """What a model costs, without any data: parameters, multiply-accumulates, activation memory of inference and
training (predicted and measured), latency and images per second on this machine with every engine that works here."""


@dataclass(frozen=True, kw_only=True)
class ProfileArguments(Common):
    models: tyro.conf.Positional[tuple[str, ...]]
    """Names, as `vitreous models` lists them, or run folders."""
    image_size: int = 0
    """Pixels of the square image; 0 takes the model's own."""
    batch: str = "1,8,32"
    """Batch sizes separated by commas."""
    engines: str = "auto"
    """auto, or some of eager, packed, packed-bf16, onnxruntime, separated by commas."""
    seconds: float = 1.0
    """Time for each engine and batch size; each runs at least three times."""
    curve: bool = False
    """Also cost against image size, which shows attention's quadratic growth."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    out: Path | None = None
    """Also write profile.json, and the curve as a picture, into this folder."""


def run(arguments: Sequence[str], console: Console) -> int:
    parsed = parse(ProfileArguments, arguments, "profile", DESCRIPTION)
    sizes = batch_sizes(parsed.batch)
    from vitreous.workflows.environment import require

    require("Profiling", "train")
    from vitreous.workflows.profile import profile
    from vitreous.workflows.profile_view import profile_text, write_profile

    found = profile(
        parsed.models,
        image_size=parsed.image_size,
        batches=sizes,
        engines=listed(parsed.engines),
        seconds=parsed.seconds,
        curve=parsed.curve,
        device=parsed.device,
        reporter=console,
    )
    facts, text = found.to_dict(), profile_text(found)
    if parsed.out is not None:
        folder, note = write_profile(found, parsed.out)
        if note:
            console.say(note)
        facts["folder"] = str(folder)
        text += f"\nWritten to {folder}"
    console.result(facts, text)
    return 0


def batch_sizes(text: str) -> list[int]:
    """Batch sizes from "1,8,32". Raises UsageError for what is not a whole number of at least 1."""
    found = []
    for word in listed(text):
        if not word.isdecimal() or int(word) < 1:
            raise UsageError(
                f"--batch got {word!r}, which is not a whole number of at least 1.", "Write such as: --batch 1,8,32"
            )
        found.append(int(word))
    if not found:
        raise UsageError("--batch names no batch size.", "Write such as: --batch 1,8,32")
    return list(dict.fromkeys(found))
