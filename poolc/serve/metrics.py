"""What a server counts, for Prometheus: requests, tokens, queues, micro-batches, rejections.

One registry an application: nothing is global, so that several live in one process.
"""

from __future__ import annotations

from typing import Any, Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.process_collector import ProcessCollector

from poolc.serve.gauges import Gauges, Read, Told, of_all_processes

CONTENT_TYPE = CONTENT_TYPE_LATEST

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_TOKENS = (16, 32, 64, 128, 192, 256, 384, 512, 1024, 2048, 4096, 8192)
_PHASES = {
    "tokenize": "Seconds from a request's arrival until its texts are tokens",
    "queue": "Seconds from there until its first micro-batch runs",
    "execute": "Seconds that a micro-batch runs",
    "serialize": "Seconds that a reply takes to be written as JSON",
}


class Watch(Protocol):
    """What a scheduler tells of its work, in seconds and tokens."""

    def tokenized(self, seconds: float) -> None:
        """A request's texts became tokens."""

    def queued(self, seconds: float) -> None:
        """A request's first micro-batch began."""

    def executed(self, tokens: int, padded: int, seconds: float) -> None:
        """A micro-batch of ``tokens`` ran, computed as ``padded`` tokens."""


class NoWatch:
    """Nobody looks."""

    def tokenized(self, seconds: float) -> None:
        """See ``Watch``."""

    def queued(self, seconds: float) -> None:
        """See ``Watch``."""

    def executed(self, tokens: int, padded: int, seconds: float) -> None:
        """See ``Watch``."""


class Metrics:
    """Everything that one application counts. ``gauges`` reads what a model's queue is now.

    ``shared``: this is one of several processes that count together (``gauges.shared_metrics``).
    """

    def __init__(self, gauges: Gauges, *, shared: bool = False) -> None:
        self._registry = self._shown = CollectorRegistry()
        self._told = None
        if shared:
            self._told = Told(gauges, self._registry)
            self._shown = of_all_processes()
        else:
            ProcessCollector(registry=self._registry)
            self._registry.register(Read(gauges))
        self._requests = self._counter("requests", "Replies", "path", "status")
        self._rejections = self._counter("rejections", "Requests that were refused", "reason")
        self._tokens = self._counter("tokens", "Tokens that were computed", "model")
        self._padding = self._counter("padding_tokens", "Padding that was computed", "model")
        self._seconds = self._histogram("request_seconds", "Seconds of a request", _SECONDS, "path")
        self._fill = self._histogram("batch_tokens", "Tokens of a micro-batch", _TOKENS, "model")
        self._phases = {
            name: self._histogram(f"{name}_seconds", text, _SECONDS, "model")
            for name, text in _PHASES.items()
        }

    def watch(self, model: str) -> Watch:
        """Return what the scheduler of a model tells its work to."""
        return _ModelWatch(
            self._phases["tokenize"].labels(model),
            self._phases["queue"].labels(model),
            self._phases["execute"].labels(model),
            self._fill.labels(model),
            self._tokens.labels(model),
            self._padding.labels(model),
        )

    def replied(self, path: str, status: int, seconds: float) -> None:
        """Count a reply; ``path`` is the route's, not what was asked for."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def rejected(self, reason: str) -> None:
        """Count a request that was refused; ``reason`` is the type of the error."""
        self._rejections.labels(reason).inc()

    def serialized(self, model: str, seconds: float) -> None:
        """Count the writing of a reply."""
        self._phases["serialize"].labels(model).observe(seconds)

    def tell(self) -> None:
        """Tell other processes what is true of this one now, where there are any."""
        if self._told is not None:
            self._told.tell()

    def exposition(self) -> bytes:
        """Return all of it as Prometheus' text format."""
        self.tell()
        return generate_latest(self._shown)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"poolc_{name}", text, labels, registry=self._registry)

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(f"poolc_{name}", text, labels, buckets=buckets, registry=self._registry)


class _ModelWatch:
    def __init__(self, *children: Any) -> None:
        tokenize, queue, execute, fill, tokens, padding = children
        self._tokenize, self._queue, self._execute = tokenize, queue, execute
        self._fill, self._tokens, self._padding = fill, tokens, padding

    def tokenized(self, seconds: float) -> None:
        self._tokenize.observe(seconds)

    def queued(self, seconds: float) -> None:
        self._queue.observe(seconds)

    def executed(self, tokens: int, padded: int, seconds: float) -> None:
        self._execute.observe(seconds)
        self._fill.observe(tokens)
        self._tokens.inc(tokens)
        self._padding.inc(padded - tokens)
