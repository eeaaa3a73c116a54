"""The process that decodes: `python -m vitreous.data.examination.worker SETTINGS`, started and fed by a `Crew`.

A decoder is a large piece of C that reads what strangers wrote. Here it may crash, hang or eat memory, and takes nothing
with it but this process. SETTINGS is JSON: decode, max_pixels, seconds, memory, cache.

A request is a list of items, {item, path, name} or {item, length, name} with their bytes one after the other behind it;
each is answered by a message of its own: {item, record, key, used} and the thumbnail.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from vitreous.config.decode import DecodeConfig
from vitreous.data.examination.cache import CacheReader, key_of, settings_digest
from vitreous.data.examination.finding import Bad, Finding, to_record
from vitreous.data.examination.look import look, named
from vitreous.data.examination.messages import receive, send
from vitreous.errors import ImageError
from vitreous.inputs.reading import read_file


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a worker is told once."""

    decode: DecodeConfig
    max_pixels: int
    seconds: float
    """For one image; the crew keeps the time, and the worker's own clock only ends it where the crew is no more."""
    memory: int
    """Bytes that decoding may take beyond what the process takes at its start (Linux)."""
    cache: Path | None

    @staticmethod
    def read(text: str) -> Settings:
        values = json.loads(text)
        decode = {**values["decode"], "bands": tuple(values["decode"]["bands"])}
        cache = Path(values["cache"]) if values["cache"] else None
        return Settings(**{**values, "decode": DecodeConfig(**decode), "cache": cache})


def main() -> None:
    settings = Settings.read(sys.argv[1])
    requests, answers = take_pipes()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the crew decides what ends
    warnings.simplefilter("ignore")
    _limit_memory(settings.memory)
    send(answers, {"ready": True})
    silence()
    known, digest = CacheReader(settings.cache), settings_digest(settings.decode, settings.max_pixels)
    while (request := receive(requests, settings.memory)) is not None:
        header, payload = request
        begin = 0
        for item in header["items"]:
            end = begin + item.get("length", 0)
            _set_alarm(2 * settings.seconds + 10)
            reply, thumbnail = _answer(item, payload[begin:end], settings, known, digest)
            _set_alarm(0)
            send(answers, reply, thumbnail)
            begin = end


def take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Standard input and output for messages alone: what a library prints or reads goes nowhere."""
    pair = os.dup(0), os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    if sys.platform == "win32":
        import msvcrt

        for number in pair:
            msvcrt.setmode(number, os.O_BINARY)
    return os.fdopen(pair[0], "rb"), os.fdopen(pair[1], "wb")


def silence() -> None:
    """Once at work, errors go into answers; what C libraries complain of would only fill a file."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _answer(
    item: dict[str, Any], data: bytes, settings: Settings, known: CacheReader, digest: bytes
) -> tuple[dict[str, Any], bytes]:
    reply: dict[str, Any] = {"item": item["item"], "key": "", "used": None}
    entry: Finding | Bad
    try:
        if "path" in item:
            data = read_file(item["path"], settings.memory // 4)
        key = key_of(data, digest)
        reply["key"] = key.hex()
        found = known.find(key)
        if found is None:
            entry = look(data, settings.decode, settings.max_pixels, name=item["name"])
        else:
            entry, reply["used"] = found
            entry = entry if isinstance(entry, Bad) else named(entry, item["name"])
    except ImageError as error:  # of the path, not of the content
        entry = Bad(error.message, lasting=False)
    except MemoryError:
        entry = Bad("needs too much memory to be read", lasting=False)
    reply["record"], thumbnail = to_record(entry)
    return reply, thumbnail


def _set_alarm(seconds: float) -> None:
    """A worker whose crew was killed while a decoder hangs would stay for ever; the alarm ends it even in C code."""
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _limit_memory(more: int) -> None:
    if sys.platform != "linux":  # elsewhere the limit is unknown or not kept to
        return
    import resource

    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + more
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard < 0 else min(limit, hard), hard))


if __name__ == "__main__":
    main()
