"""What a request may fail with, and how a failure is said over HTTP.

    VitreousError
    ├── ImageError ...              400, 413, 415, 422   from `vitreous.errors`
    ├── UsageError                  400                  an unknown explanation method or class
    │   └── MissingExtraError       501
    └── RequestError                its own status       everything that HTTP adds
        └── QueueFullError          503                  with Retry-After
            DeadlineError           504
            ClientGoneError         499                  nobody is left to answer

A reply never carries a traceback, a path or the name of something inside: errors that are our fault say so and give
the id under which the log holds the rest.
"""

from __future__ import annotations

from typing import Any

from vitreous.errors import ImageError, UsageError, VitreousError

RETRY_AFTER = {"Retry-After": "1"}
INTERNAL_MESSAGE = "The server failed to answer this request. Its log holds the cause under this id."


class RequestError(VitreousError):
    """A request that is answered with `status`; `code` is the stable name of the reason."""

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers or {}


class QueueFullError(RequestError):
    """More work than may wait. Trying again shortly is the right answer."""

    def __init__(self, message: str = "The server is busy; try again shortly.", code: str = "queue_full") -> None:
        super().__init__(503, code, message, RETRY_AFTER)


class DeadlineError(RequestError):
    """The time allowed for one request has passed."""

    def __init__(self) -> None:
        super().__init__(504, "deadline", "The answer was not ready within the time this server allows.")


class ClientGoneError(RequestError):
    """The client hung up. The status is nginx's, and is seen only in the metrics."""

    def __init__(self) -> None:
        super().__init__(499, "client_gone", "The client closed the connection.")


def describe(error: VitreousError) -> tuple[int, str, str]:
    """(status, code, message) of a failure, fit for a stranger to read."""
    if isinstance(error, RequestError):
        return error.status, error.code, error.message
    if isinstance(error, ImageError):
        text = error.message
        if error.code == "bad_image":
            text = text.split(" (")[0]  # the rest names the decoder's own exception, which is for the log
        return error.status, error.code, f"The file {text}."
    if isinstance(error, UsageError):
        return error.status, error.code, str(error)
    return 500, "internal", INTERNAL_MESSAGE


def error_body(path: str, code: str, message: str, request_id: str) -> dict[str, Any]:
    """The body of an error reply: under /v2/ the form of the Open Inference Protocol, elsewhere our own."""
    if path == "/v2" or path.startswith("/v2/"):
        return {"error": message}
    return {"error": {"code": code, "message": message, "id": request_id}}
