"""A profile as text for a terminal, and in a folder."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vitreous.runs.atomic import write_bytes, write_json
from vitreous.runs.create import claim
from vitreous.workflows.profile import Profile
from vitreous.workflows.summary import aligned

PROFILE = "profile.json"
BAR = 32
"""Characters of the longest bar."""

Entry = Mapping[str, Any]

MEMORY_ROWS = (
    ("inference_bytes", "inference"),
    ("training_bytes", "training"),
    ("training_checkpointed_bytes", "training, blocks recomputed"),
    ("saved_bytes", "kept for the backward pass"),
    ("saved_checkpointed_bytes", "kept, blocks recomputed"),
)


def profile_text(profile: Profile) -> str:
    """Everything in the profile that a person would read."""
    facts = profile.to_dict()
    where = f"{facts['processor']}, {facts['cores']} cores, torch {facts['versions']['torch']}"
    parts = [summary(profile.models)] if len(profile.models) > 1 else []
    parts += [model_text(entry) for entry in profile.models]
    return "\n\n".join(["", *parts, f"Measured on {where}."])


def summary(models: Sequence[Entry]) -> str:
    """The models side by side, one line each; memory of activations for one image, the fastest engine's times."""
    rows = [["model", "image", "parameters", "MACs", "inference", "training", "one image", "images/s"]]
    for entry in models:
        batch, alone = entry["memory"]["batch"], [row for row in entry["latency"] if row["batch"] == 1]
        quickest = min(alone, key=lambda row: row["p50_ms"], default=None)
        busiest = max(entry["latency"], key=lambda row: row["images_per_s"], default=None)
        size = entry["image_size"]
        rows.append(
            [
                entry["name"],
                _pixels(entry) if isinstance(size, list) else f"{size} px",
                _number(entry["parameters"]),
                _number(entry["macs"]),
                _size(entry["memory"]["inference_bytes"] / batch),
                _size(entry["memory"]["training_bytes"] / batch),
                f"{quickest['p50_ms']:,.2f} ms {quickest['engine']}" if quickest else "-",
                f"{busiest['images_per_s']:,.1f} {busiest['engine']}" if busiest else "-",
            ]
        )
    return aligned(rows)


def model_text(entry: Entry) -> str:
    """One model: a heading, then blocks with a blank line between."""
    head = f"{entry['name']}: {_number(entry['parameters'])} parameters, {_number(entry['macs'])} multiply-accumulates (MACs) for an image of {_pixels(entry)}"
    blocks = [head]
    if entry["macs_by_part"]:
        rows = [[name, _number(value), f"{value / entry['macs']:.1%}"] for name, value in entry["macs_by_part"].items()]
        blocks.append(_indented(aligned([["MACs", "", ""], *rows])))
    blocks.append(_indented(memory_text(entry["memory"])))
    if entry["latency"]:
        blocks.append(_indented(latency_text(entry["latency"])))
    if entry["skipped"]:
        blocks.append("\n".join(f"  without {each['engine']}: {each['reason']}" for each in entry["skipped"]))
    if entry["curve"]:
        blocks.append(_indented(curve_text(entry["curve"], entry["image_size"])))
    return "\n\n".join(blocks)


def memory_text(memory: Entry) -> str:
    """Measured and predicted activation memory, its prediction at every batch size, and the whole with the weights."""
    predicted, was_measured = memory["predicted"], memory["not_measured"] is None
    how = predicted["method"]
    if predicted["outside_closed_form"] not in (None, "not a Vision Transformer"):
        how += f": no closed form for {predicted['outside_closed_form']}"
    rows = [[f"activation memory in fp32, batch of {memory['batch']}", "measured", how]]
    for key, label in MEMORY_ROWS:
        if predicted[key] is not None:
            rows.append([label, _size(memory[key]) if was_measured else "-", _size(predicted[key])])
    lines = [aligned(rows)]
    if memory["attention"]:
        ways = memory["attention"]
        same = ways["inference"] == ways["training"]
        lines.append(
            f"Attention: {ways['inference']}{'' if same else ' in inference, ' + ways['training'] + ' in training'}."
        )
    if was_measured:
        lines.append(f"The prediction is off by {memory['largest_error']:.2%} at the most.")
    else:
        lines.append(f"Not measured: {memory['not_measured']}.")
    table = [["predicted, by batch size", *(f"{row['batch']:,}" for row in memory["by_batch"])]]
    for key, label in MEMORY_ROWS[:3]:
        if all(row[key] is not None for row in memory["by_batch"]):
            table.append([label, *(_size(row[key]) for row in memory["by_batch"])])
    lines += ["", aligned(table), ""]
    lines.append(
        f"With weights of {_size(memory['weights_bytes'])} and a batch of {memory['batch']}: "
        f"{_size(memory['peak_inference_bytes'])} in inference, {_size(memory['peak_training_bytes'])} in training with AdamW."
    )
    return "\n".join(lines)


def latency_text(latency: Sequence[Entry]) -> str:
    """Times by engine and batch size."""
    rows = [["engine", "batch", "p50", "p95", "images/s", "runs", "differs from eager by"]]
    for row in latency:
        difference = "-" if row["difference"] is None or row["engine"] == "eager" else f"{row['difference']:.1e}"
        name = row["engine"] if row["device"] == "cpu" else f"{row['engine']} ({row['device']})"
        rows.append(
            [
                name,
                f"{row['batch']:,}",
                f"{row['p50_ms']:,.2f} ms",
                f"{row['p95_ms']:,.2f} ms",
                f"{row['images_per_s']:,.1f}",
                f"{row['runs']:,}",
                difference,
            ]
        )
    return aligned(rows)


def curve_text(curve: Sequence[Entry], image_size: Any) -> str:
    """Cost against image size, with bars; of a Vision Transformer's, the darker part is attention's, which is quadratic."""
    most = max(point["macs"] for point in curve)
    attends = curve[0]["attention_share"] is not None
    head = [
        "image size",
        *(["tokens"] if attends else []),
        "MACs",
        *(["attention"] if attends else []),
        "inference",
        "training",
        "",
    ]
    rows = [head]
    for point in curve:
        share = point["attention_share"] or 0.0
        whole = max(1, round(BAR * point["macs"] / most))
        dark = round(whole * share)
        mark = " <" if point["image_size"] == image_size else ""
        rows.append(
            [
                f"{point['image_size']} px",
                *([f"{point['tokens']:,}"] if attends else []),
                _number(point["macs"]),
                *([f"{share:.1%}"] if attends else []),
                _size(point["inference_bytes"]),
                _size(point["training_bytes"]),
                # Padded here, since columns after the first are set to the right.
                ("█" * dark + "░" * (whole - dark) + mark).ljust(BAR + 2),
            ]
        )
    lines = [aligned(rows)]
    if attends:
        lines.append(_growth(curve))
    return "\n".join(lines)


def _growth(curve: Sequence[Entry]) -> str:
    """Attention against the rest between two sizes of which one is twice the other."""
    by_size = {point["image_size"]: point for point in curve}
    small = next((point for point in reversed(curve) if 2 * point["image_size"] in by_size), None)
    text = (
        "█ attention's two products, quadratic in the number of tokens; ░ the rest. One image; memory is activations."
    )
    if small is None:
        return text
    large = by_size[2 * small["image_size"]]
    rest = [point["macs"] - point["attention_macs"] for point in (small, large)]
    return (
        f"{text}\nFrom {small['image_size']} to {large['image_size']} px: tokens × {large['tokens'] / small['tokens']:.1f}, attention × "
        f"{large['attention_macs'] / small['attention_macs']:.1f}, the rest × {rest[1] / rest[0]:.1f}."
    )


def write_profile(profile: Profile, out: Path) -> tuple[Path, str]:
    """Write `profile.json` and a PNG of each resolution curve; returns the folder and what is to be said of it.

    An occupied folder gets a numbered sibling. Raises UsageError, and RunError when the place cannot be written to.
    """
    place = claim(out, "profile")
    write_json(place.path / PROFILE, profile.to_dict())
    for entry in profile.models:
        if entry["curve"]:
            from vitreous.workflows.profile_picture import curve_picture

            name = re.sub(r"[^\w.-]+", "_", entry["name"]).strip("._")
            write_bytes(place.path / f"{name}_resolution.png", curve_picture(entry["name"], entry["curve"]))
    return place.path, place.note


def _number(count: float) -> str:
    """ "86.57 M", "17.56 G"."""
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= factor:
            return f"{count / factor:,.2f} {unit}"
    return f"{count:,.0f}"


def _size(count: float) -> str:
    """ "486.2 MB": powers of ten, as disks and GPUs are sold."""
    for unit, factor, digits in (("GB", 1e9, 2), ("MB", 1e6, 1), ("kB", 1e3, 1)):
        if count >= factor:
            return f"{count / factor:,.{digits}f} {unit}"
    return f"{count:,.0f} B"


def _pixels(entry: Entry) -> str:
    size = entry["image_size"]
    height, width = size if isinstance(size, list) else (size, size)
    return f"{height} x {width} px"


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" if line else "" for line in text.splitlines())
