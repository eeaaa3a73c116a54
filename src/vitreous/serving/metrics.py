"""What Prometheus reads: counters, gauges and histograms of one server, in a registry of its own."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from vitreous.serving.batching import BatchTimes

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
_REFUSALS = frozenset({401, 408, 413, 415, 421, 429, 503, 504})


class Metrics:
    """All series of one server. `queue_depth` is asked whenever the gauge is read."""

    def __init__(self, model: str, queue_depth: Callable[[], int]) -> None:
        self._model = model
        self._registry = registry = CollectorRegistry(auto_describe=True)
        self._requests = Counter(
            "vitreous_requests", "Requests answered, by model and HTTP status.", ["model", "code"], registry=registry
        )
        self._rejected = Counter(
            "vitreous_rejected", "Requests refused before or instead of work, by reason.", ["reason"], registry=registry
        )
        self._request_seconds = Histogram(
            "vitreous_request_seconds", "Arrival of a request to its answer.", buckets=_SECONDS, registry=registry
        )
        self._queue_seconds = Histogram(
            "vitreous_queue_seconds", "Time an image waited for a batch.", buckets=_SECONDS, registry=registry
        )
        self._compute_seconds = Histogram(
            "vitreous_compute_seconds", "Time of one batch in the model.", buckets=_SECONDS, registry=registry
        )
        self._batch_size = Histogram("vitreous_batch_size", "Images in one batch.", buckets=_SIZES, registry=registry)
        depth = Gauge("vitreous_queue_depth", "Images that wait or are being decoded.", registry=registry)
        depth.set_function(queue_depth)

    def answered(self, status: int, code: str | None, seconds: float) -> None:
        """Count one request. code: the error's name where it failed."""
        self._requests.labels(self._model, str(status)).inc()
        self._request_seconds.observe(seconds)
        if code is not None and status in _REFUSALS:
            self._rejected.labels(code).inc()

    def batch(self, times: BatchTimes) -> None:
        """Count one turn of the batch worker; called on its thread."""
        self._batch_size.observe(times.size)
        self._compute_seconds.observe(times.seconds)
        for waited in times.waited:
            self._queue_seconds.observe(waited)

    def text(self) -> bytes:
        """The Prometheus text format, version 0.0.4."""
        return generate_latest(self._registry)
