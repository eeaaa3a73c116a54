"""Every plain Vision Transformer that timm lists, at its published size, beside ours with the same random weights; and models
of transformers and torchvision. Prints name, tokens, blocks built, relative difference, pass.

    .venv/bin/python benchmarks/parity.py            # about half an hour on two cores
    .venv/bin/python benchmarks/parity.py dinov3     # only names that contain this; their rows are renewed

Large models are built with fewer blocks, to keep memory and time within bounds, and the table says how many. Results go to
results/parity.json, and from there into PARITY.md.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import Any

import torch
from record import FOLDER, write

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "parity"))
import foreign_cases  # type: ignore[import-not-found]
import timm_cases  # type: ignore[import-not-found]

PARAMETERS, MACS = 100e6, 20e9
"""Up to which every block is built; of larger models, as many blocks as fit into both, at least one: ViT-B is whole."""


def timm_rows(contains: str) -> list[dict[str, Any]]:
    rows = []
    for name in timm_cases.plain_vits():
        if contains not in name:
            continue
        found = timm_cases.case(name, depth=blocks_for(name))
        row = {
            "name": name,
            "image": list(found.ours.image_size),
            "tokens": found.ours.num_prefix_tokens + found.ours.grid_size[0] * found.ours.grid_size[1],
            "blocks": list(found.depth),
            "difference": found.difference(),
            "difference_back": found.difference_back(),
        }
        rows.append(row)
        print(line(row), flush=True)
        del found
        gc.collect()
    return rows


def blocks_for(name: str) -> int:
    """How many blocks to build at most; 0 for all."""
    with torch.device("meta"):
        whole: Any = timm_cases.create(name)
    (gh, gw), width = whole.patch_embed.grid_size, whole.embed_dim
    parameters = sum(parameter.numel() for parameter in whole.blocks[0].parameters())
    macs = gh * gw * parameters + 2 * (gh * gw) ** 2 * width
    count = int(min(PARAMETERS / parameters, MACS / macs))
    return 0 if count >= len(whole.blocks) else max(1, count)


def foreign_rows(contains: str) -> list[dict[str, Any]]:
    rows = []
    for found in foreign_cases.cases():
        if contains not in found.name:
            continue
        with torch.inference_mode():
            tokens = found.ours.forward_features(found.images)
            difference = foreign_cases.relative_difference(tokens, found.reference.forward_features(found.images))
            logits = foreign_cases.relative_difference(found.ours(found.images), found.reference(found.images))
        row = {
            "name": found.name,
            "image": list(found.ours.image_size),
            "tokens": tokens.shape[1],
            "blocks": [len(found.ours.blocks)] * 2,
            "difference": max(difference, logits),
            "difference_back": None,
        }
        rows.append(row)
        print(line(row), flush=True)
    return rows


def renewed(kind: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of the last whole run with those of this one in their places."""
    file = FOLDER / "parity.json"
    before = json.loads(file.read_text(encoding="utf-8"))[kind] if file.is_file() else []
    fresh = {row["name"]: row for row in rows}
    return [fresh.pop(row["name"], row) for row in before] + list(fresh.values())


def line(row: dict[str, Any]) -> str:
    built, whole = row["blocks"]
    blocks = f"{built}" if built == whole else f"{built} of {whole}"
    passed = "pass" if passes(row) else "FAIL"
    return f"{row['name']:<46} {row['tokens']:>5} tokens  {blocks:>8} blocks  {row['difference']:.1e}  {passed}"


def passes(row: dict[str, Any]) -> bool:
    return row["difference"] <= timm_cases.TOLERANCE and (row["difference_back"] or 0) <= timm_cases.TOLERANCE


def main() -> None:
    contains = sys.argv[1] if len(sys.argv) > 1 else ""
    rows = {"timm": timm_rows(contains), "others": foreign_rows(contains)}
    for kind, found in rows.items():
        passed = sum(map(passes, found))
        print(f"{kind}: {passed} of {len(found)} pass")
    print(f"left out: {len(timm_cases.left_out())} of timm's that are not plain ViTs")
    if contains:
        rows = {kind: renewed(kind, found) for kind, found in rows.items()}
    print(write("parity", {**rows, "left_out": timm_cases.left_out(), "tolerance": timm_cases.TOLERANCE}))
    if not all(passes(row) for found in rows.values() for row in found):
        sys.exit("Some differ by more than the tolerance.")


if __name__ == "__main__":
    main()
