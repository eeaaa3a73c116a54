"""Reading a request's body under limits of size, time and total memory, and taking the images out of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from vitreous.serving.errors import ClientGoneError, QueueFullError, RequestError

BODIES_IN_MEMORY = 8
"""Bodies of the largest size that may be held at once, over all requests; what is beyond is answered 503."""
MAX_FIELDS = 16
"""Plain form fields put up with beside the files of a multipart body."""
_PIECE = 64 * 1024


class BodyReader:
    """Reads bodies so that no number of clients can make the server hold more than a fixed amount of memory.

    max_body: bytes of one body. seconds: time one client may take to send it.
    """

    def __init__(self, max_body: int, seconds: float) -> None:
        self.max_body = max_body
        self.seconds = seconds
        self.held = 0
        self.capacity = BODIES_IN_MEMORY * max_body

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """The whole body, counted against the shared memory until the block is left.

        Raises RequestError 413 (by its Content-Length before a byte is read, and by count), 408, QueueFullError,
        ClientGoneError.
        """
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > self.max_body:
            raise self._too_large()
        body = await self._collect(request)
        try:
            yield body
        finally:
            self.held -= len(body)

    async def _collect(self, request: Request) -> bytes:
        """The body, added to what is held; nothing is added when this raises."""
        chunks: list[bytes] = []
        taken = 0
        try:
            async with asyncio.timeout(self.seconds):
                async for chunk in _stream(request):
                    if taken + len(chunk) > self.max_body:
                        raise self._too_large()
                    if self.held + len(chunk) > self.capacity:
                        raise QueueFullError
                    taken += len(chunk)
                    self.held += len(chunk)
                    chunks.append(chunk)
            return b"".join(chunks)
        except BaseException as error:
            self.held -= taken
            if isinstance(error, TimeoutError):
                text = f"The body did not arrive within {self.seconds:g} seconds."
                raise RequestError(408, "slow_body", text, {"Connection": "close"}) from error
            raise

    def _too_large(self) -> RequestError:
        return RequestError(413, "body_too_large", f"The body is larger than the limit of {self.max_body:,} bytes.")


def media_type(request: Request) -> str:
    """What the body says it is: "image" (also for no type at all) or "multipart".

    Raises RequestError 415 for anything else, so that a body of another type is not even read.
    """
    stated = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if not stated or stated == "application/octet-stream" or stated.startswith("image/"):
        return "image"
    if stated == "multipart/form-data":
        return "multipart"
    raise RequestError(
        415,
        "unsupported_media_type",
        f"A body of type {stated[:80]!r} is not accepted. Send the image itself with Content-Type image/jpeg "
        "(or image/*, application/octet-stream), or as multipart/form-data in the field 'file'.",
    )


async def images_in(request: Request, body: bytes, kind: str, max_images: int) -> list[bytes]:
    """The encoded images of a body that `media_type` judged: the body itself, or every file of the form.

    Raises RequestError 400 for a broken or empty form, 413 for more than `max_images` files.
    """
    if kind == "image":
        return [body]
    parser = _InMemoryParser(request.headers, _pieces(body), max_files=max_images + 1, max_fields=MAX_FIELDS)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise RequestError(400, "bad_form", f"The multipart body cannot be read: {error.message}") from error
    try:
        images = [await part.read() for _, part in form.multi_items() if isinstance(part, UploadFile)]
    finally:
        await form.close()
    if not images:
        raise RequestError(400, "no_file", "The form holds no file. Send each image in a field named 'file'.")
    if len(images) > max_images:
        raise RequestError(413, "too_many_images", f"One request may hold {max_images} images at most.")
    return images


class _InMemoryParser(MultiPartParser):
    """Keeps the parts in memory, where the whole body already is, instead of copying large ones to disk."""

    spool_max_size = 0  # to a SpooledTemporaryFile 0 means that it never moves to disk


async def _stream(request: Request) -> AsyncIterator[bytes]:
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        if body := message.get("body", b""):
            yield body
        if not message.get("more_body", False):
            return


async def _pieces(body: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(body), _PIECE):
        yield body[start : start + _PIECE]
        await asyncio.sleep(0)  # a form made to be slow to parse must not hold up everybody else
