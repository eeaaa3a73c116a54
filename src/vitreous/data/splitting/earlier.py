"""What an earlier split of the same data says about the images there are now."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from vitreous.data.sources.source import PARTS, Sample
from vitreous.data.splitting.stored import Split


@dataclass(frozen=True)
class Earlier:
    """What became of one image's pixels earlier."""

    part: str | None
    """None where it had none, or two."""
    group: str
    cluster: str
    torn: bool = False
    """The pixels were in two parts, and neither label nor path tells which copy this is."""


def earlier_rows(previous: Split, samples: Sequence[Sample], hashes: Sequence[str]) -> list[Earlier | None]:
    """For each sample the row with its pixels; None for new pixels.

    Of several rows with the same pixels the one with the same label counts, and of these the one with the same path. A
    changed label does not make an image new: it must not move from test to train by being corrected.
    """
    rows: defaultdict[str, list[int]] = defaultdict(list)
    for row, digest in enumerate(previous.hashes):
        rows[digest].append(row)
    return [_find(previous, rows.get(digest, []), sample) for sample, digest in zip(samples, hashes, strict=True)]


def _find(previous: Split, rows: list[int], sample: Sample) -> Earlier | None:
    rows = [row for row in rows if previous.labels[row] == sample.label] or rows
    rows = [row for row in rows if previous.paths[row] == sample.path] or rows
    if not rows:
        return None
    parts = {previous.parts[row] for row in rows} & set(PARTS)
    first = rows[0]
    return Earlier(
        part=min(parts) if len(parts) == 1 else None,
        group=previous.groups[first],
        cluster=previous.clusters[first],
        torn=len(parts) > 1,
    )
