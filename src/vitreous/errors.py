"""Every exception a user may meet, as one tree.

    VitreousError                    exit 1   our fault
    ├── UserError                    exit 2   the caller's input
    │   ├── UsageError                        a flag, a name, a value
    │   │   └── MissingExtraError             a verb whose optional packages are absent
    │   ├── DataError                         a data set that cannot be used
    │   ├── RunError                          a run folder that is absent, half written or damaged
    │   ├── WeightsError                      initial weights that cannot be had or do not fit
    │   └── ImageError               400      one image that cannot be used
    │       ├── TruncatedImageError  400
    │       ├── ImageTooLargeError   413
    │       ├── ImageFormatError     415
    │       └── UnfitImageError      422      readable, but not what the model takes
    ├── GateError                    exit 3   a proof failed, so nothing was written
    ├── PeerError                    exit 1   another process of the team could not go on
    └── StoppedError                 exit 75  stopped by a signal, state saved

Every error carries `message` (what was asked, what was found, what is allowed) and `hint` (what to type next).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class VitreousError(Exception):
    """The root. `exit_code` is what the command line returns; `code` is the stable name in JSON replies."""

    exit_code = 1
    code = "internal"
    status = 500
    """HTTP status of the same failure in the server."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class UserError(VitreousError):
    exit_code = 2
    code = "user"
    status = 400


class UsageError(UserError):
    code = "usage"


class MissingExtraError(UsageError):
    code = "missing_extra"
    status = 501

    def __init__(self, what: str, extra: str, package: str) -> None:
        super().__init__(
            f"{what} needs the package {package!r}, which is not installed.",
            f"Type: pip install 'vitreous[{extra}]'",
        )
        self.extra = extra
        self.package = package


class DataError(UserError):
    code = "data"


class RunError(UserError):
    code = "run"


class WeightsError(UserError):
    code = "weights"


class ImageError(UserError):
    code = "bad_image"


class TruncatedImageError(ImageError):
    code = "truncated_image"


class ImageTooLargeError(ImageError):
    code = "too_large"
    status = 413


class ImageFormatError(ImageError):
    code = "unsupported_format"
    status = 415


class UnfitImageError(ImageError):
    code = "unfit_image"
    status = 422


class GateError(VitreousError):
    exit_code = 3
    code = "gate"
    status = 422


class PeerError(VitreousError):
    """Another process of the team that trains together could not go on; it says itself why."""

    code = "peer"


class StoppedError(VitreousError):
    exit_code = 75
    code = "stopped"
    status = 503


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The known names closest to a mistyped one, best first; empty when nothing is close."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=count, cutoff=0.6)
    contained = [candidate for candidate in known if name and name in candidate and candidate not in close]
    return (close + contained)[:count]


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """An error that offers the nearest valid spellings, or the whole list where it is short."""
    known = list(known)
    close = nearest(name, known)
    if close:
        hint = "Did you mean " + " or ".join(repr(candidate) for candidate in close) + "?"
    elif len(known) <= 20:
        hint = "Known: " + ", ".join(known) + "."
    else:
        hint = f"There are {len(known)} known names."
    return UsageError(f"Unknown {kind} {name!r}.", hint)
