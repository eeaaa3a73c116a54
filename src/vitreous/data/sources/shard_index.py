"""What one tar shard holds: WebDataset samples, each of them members that share a name up to the first dot.

WebDataset (github.com/webdataset): `key.jpg` is the image, `key.cls`, `key.json` and `key.txt` describe it.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from vitreous.data.sources.folder import IMAGE_SUFFIXES
from vitreous.data.sources.metadata import plain_text
from vitreous.data.sources.source import BadFile
from vitreous.data.sources.tar_headers import DamagedTarError, Member, Window, read_members

MAX_IMAGE_BYTES = 1 << 30
MAX_TEXT_BYTES = 1 << 20
LABEL_FIELDS = ("label", "class", "cls", "labels")
"""Fields of a .json member that may hold the label, the first of them that is there."""
LABEL_KINDS = (".cls", ".json", "folder", ".txt")
"""Where a label may come from. One data set uses the first of these that any of its samples has."""

_REFUSED = {
    "link": "is a link, not a file",
    "device": "is a device, not a file",
    "sparse": "is a sparse file, which is not read from shards",
    "unknown": "is an entry of an unknown kind",
    "cut": "is cut off: the shard ends before it does",
}
_IMAGE_EXTENSIONS = frozenset(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES)
_KNOWN_EXTENSIONS = _IMAGE_EXTENSIONS | {"cls", "json", "txt"}


@dataclass(slots=True)
class Entry:
    """One image and what its neighbours say of it."""

    name: str = ""
    """Of the image member; empty while none was met."""
    offset: int = 0
    size: int = 0
    kind: str = ""
    """One of LABEL_KINDS; empty where there is no label."""
    label: Any = None
    """str, or a tuple of these."""
    field: str = ""
    """The field of the .json member that the label is from."""
    fields: dict[str, Any] | None = None
    """The other fields of the .json member."""
    fault: str = ""
    """Why the sample cannot be used."""


@dataclass
class ShardIndex:
    """What a pass over the headers of one shard found."""

    entries: list[Entry] = field(default_factory=list)
    """Images in the order of their samples."""
    bad: list[BadFile] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    """Members that are neither images nor labels, by extension."""


def index_shard(window: Window, length: int, shard: str) -> ShardIndex:
    """One pass over the headers. Raises nothing for a damaged shard: the damage is among `bad`.

    length: bytes of the shard. shard: its name, for paths.
    """
    index = ShardIndex()
    if not length:
        index.bad.append(BadFile(shard, "is empty (0 bytes)"))
        return index
    entries: dict[str, Entry] = {}
    seen: set[str] = set()
    try:
        for member in read_members(window, length):
            reason = _refusal(member, seen)
            if reason:
                index.bad.append(BadFile(f"{shard}#{printable(member.name)}", reason))
            elif member.kind == "file":
                _take(member, window, entries, index.ignored)
    except DamagedTarError as error:
        index.bad.append(BadFile(shard, str(error)))
    for key, entry in entries.items():
        if entry.name:
            _fall_back(key, entry)
            index.entries.append(entry)
        else:
            index.ignored["labels without an image"] += 1
    return index


def printable(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _refusal(member: Member, seen: set[str]) -> str:
    """Why a member is not used; empty where it is. `seen` gains its name."""
    if member.kind == "folder":
        return ""
    name = member.name
    reason = _REFUSED.get(member.kind, "")
    if name.startswith(("/", "\\")) or name[1:2] == ":":
        reason = "has an absolute name"
    elif ".." in name.replace("\\", "/").split("/"):
        reason = "has a name that leaves the shard (..)"
    elif printable(name) != name:
        reason = "has a name that is not valid UTF-8"
    elif member.size > MAX_IMAGE_BYTES and not reason:
        reason = f"has {member.size:,} bytes, more than {MAX_IMAGE_BYTES:,}"
    elif name in seen and not reason:
        reason = "has the name of a member before it"
    seen.add(name)
    return reason


def _take(member: Member, window: Window, entries: dict[str, Entry], ignored: Counter[str]) -> None:
    name = member.name.removeprefix("./")
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    extension = extension.lower()
    if base.startswith(".") or extension not in _KNOWN_EXTENSIONS:
        ignored[f".{extension}" if extension else base] += 1
        return
    entry = entries.setdefault(f"{folder}{slash}{stem}", Entry())
    if extension in _IMAGE_EXTENSIONS:
        if entry.name:
            ignored[f"second images (.{extension})"] += 1
        else:
            entry.name, entry.offset, entry.size = name, member.offset, member.size
        return
    if member.size > MAX_TEXT_BYTES:
        entry.fault = f"has a .{extension} of {member.size:,} bytes, more than {MAX_TEXT_BYTES:,}"
        return
    _describe(entry, extension, window.read(member.offset, member.size))


def _describe(entry: Entry, extension: str, data: bytes) -> None:
    try:
        text = data.decode("utf-8-sig").strip()
        if extension == "json":
            _read_fields(entry, json.loads(text))
        else:
            _offer(entry, f".{extension}", plain_text(text))
    except (ValueError, RecursionError):
        entry.fault = f"has a .{extension} that cannot be read"


def _read_fields(entry: Entry, fields: Any) -> None:
    if isinstance(fields, str | int) and not isinstance(fields, bool):
        fields = {"label": fields}
    if not isinstance(fields, dict):
        return
    found = next((name for name in LABEL_FIELDS if fields.get(name) is not None), "")
    value = fields.get(found)
    label = tuple(map(_label_text, value)) if isinstance(value, list) else _label_text(value)
    if label is not None and not (isinstance(label, tuple) and None in label):
        _offer(entry, ".json", label)
        entry.field = found
    plain = {name: value for name, value in fields.items() if name != found and not isinstance(value, dict | list)}
    entry.fields = plain or None


def _label_text(value: Any) -> str | None:
    """A name or a whole number as text; None for anything else."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return plain_text(value) if isinstance(value, str | int) else None


def _offer(entry: Entry, kind: str, label: Any) -> None:
    """Keep the label of the kind that comes first."""
    if label is not None and (not entry.kind or LABEL_KINDS.index(kind) < LABEL_KINDS.index(entry.kind)):
        entry.kind, entry.label = kind, label


def _fall_back(key: str, entry: Entry) -> None:
    """The folder that the member lies in is its label where no member of its own says it."""
    folders = key.split("/")[:-1]
    if folders:
        _offer(entry, "folder", folders[-1])
