"""Messages between the crew and its workers: lengths, a JSON header, raw bytes.

Neither side can make the other run anything: a worker that a hostile file has taken over can only tell lies about images.
"""

from __future__ import annotations

import json
import struct
from typing import Any, BinaryIO

_LENGTHS = struct.Struct(">IQ")
MOST_HEADER = 2**24
"""Bytes of a JSON header."""


def send(stream: BinaryIO, header: dict[str, Any], payload: bytes = b"") -> None:
    """Write one message. Raises OSError where the other side has ended."""
    text = json.dumps(header).encode()
    stream.write(_LENGTHS.pack(len(text), len(payload)) + text)
    if payload:  # which may be large, and is not copied
        stream.write(payload)
    stream.flush()


def receive(stream: BinaryIO, most: int) -> tuple[dict[str, Any], bytes] | None:
    """The next message, with at most `most` bytes after its header; None where the other side has ended.

    Raises ValueError for what is no message.
    """
    lengths = stream.read(_LENGTHS.size)
    if len(lengths) < _LENGTHS.size:
        return None
    length, more = _LENGTHS.unpack(lengths)
    if length > MOST_HEADER or more > most:
        raise ValueError(f"a message of {length:,} + {more:,} bytes")
    text = stream.read(length)
    payload = stream.read(more)
    if len(text) < length or len(payload) < more:
        return None
    header = json.loads(text)
    if not isinstance(header, dict):
        raise ValueError("a message that is no JSON object")
    return header, payload
