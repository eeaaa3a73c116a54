"""Photographs of one camera within a short time show one scene: they form a group."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta


def group_by_camera(cameras: Sequence[str], taken: Sequence[str], *, gap_seconds: float = 300) -> list[str | None]:
    """The group of each image, named by the time of its first image; None where camera or time is unknown.

    cameras: make, model and serial number; empty where EXIF does not say. taken: "YYYY:MM:DD HH:MM:SS", camera's clock.
    Images join where no more than `gap_seconds` lie between one and the next of the same camera. The camera goes into
    the name as a hash only: a serial number can name a person.
    """
    moments: defaultdict[str, list[tuple[datetime, int]]] = defaultdict(list)
    for index, (camera, text) in enumerate(zip(cameras, taken, strict=True)):
        moment = _moment(text)
        if camera and moment is not None:
            moments[camera].append((moment, index))
    groups: list[str | None] = [None] * len(cameras)
    for camera, found in moments.items():
        number = hashlib.sha256(camera.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        before, name = None, ""
        for moment, index in sorted(found):
            if before is None or moment - before > timedelta(seconds=gap_seconds):
                name = f"{moment:%Y-%m-%d %H:%M:%S} {number}"
            groups[index] = name
            before = moment
    return groups


def _moment(text: str) -> datetime | None:
    """None for text that is no time, such as the zeros of a camera whose clock was never set."""
    try:
        return datetime.strptime(text.strip(" \0")[:19], "%Y:%m:%d %H:%M:%S")
    except ValueError:
        return None
