"""Settings of the server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vitreous.errors import UsageError

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """What `vitreous serve` takes besides the run folder."""

    host: str = "127.0.0.1"
    """Address to bind to. Any other than loopback needs `--token-file`."""
    port: int = 8000
    """Port to bind to; 0 takes a free one and prints it."""
    token_file: Path | None = None
    """File whose first line is the bearer token every request but health probes must carry."""
    engine: str = "auto"
    """What executes the model: auto, packed, packed-bf16, eager or onnxruntime."""
    point: str | None = None
    """Operating point of the run to answer by: CLASS:recall or CLASS:false_alarms (95 % and 5 % unless --decide said
    otherwise in training), or with an aim of its own, such as CLASS:recall=0.99, fitted to the validation images. That class
    is then the label from its threshold on."""
    threads: int | None = None
    """Cores used inside one forward pass; all that this process may use when absent."""
    max_batch: int = 8
    """Most images in one forward pass."""
    batch_delay: float = 0.0
    """Milliseconds to wait for more images before a forward pass. 0 takes what is waiting, which costs a lone client nothing."""
    max_queue: int = 64
    """Images that may wait; more are answered 503 with Retry-After."""
    timeout: float = 30.0
    """Seconds from a request's arrival to its answer; later is answered 504."""
    body_timeout: float = 10.0
    """Seconds a client may take to send its body; slower is answered 408."""
    max_body: int = 32 * 1024 * 1024
    """Bytes of a request body; larger is answered 413."""
    max_pixels: int = 50_000_000
    """Width times height of an image, judged from its header; larger is answered 413."""
    drain: float = 30.0
    """Seconds that work in flight may take to finish after SIGTERM."""

    def __post_init__(self) -> None:
        if self.host not in LOOPBACK and self.token_file is None:
            raise UsageError(
                f"--host {self.host} is reachable from other machines, and no token protects it.",
                "Add --token-file FILE (its first line is the token), or bind to 127.0.0.1.",
            )
        if not 0 <= self.port <= 65535:
            raise UsageError(f"--port must lie in 0 to 65535, got {self.port}.")
        for name in ("max_batch", "max_queue", "max_body", "max_pixels"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}.")
        for name in ("timeout", "body_timeout", "drain"):
            if getattr(self, name) <= 0:
                raise UsageError(f"--{name.replace('_', '-')} must be positive, got {getattr(self, name)}.")
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"--threads must be at least 1, got {self.threads}.", "Leave it out to use all cores.")
        if self.batch_delay < 0:
            raise UsageError(f"--batch-delay must not be negative, got {self.batch_delay}.")
