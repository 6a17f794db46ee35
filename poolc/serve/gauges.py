"""What is true now, for Prometheus: read when somebody asks, or told to all workers of a server.

Processes that serve together count in files of one folder (prometheus_client's multiprocess mode):
whichever is asked answers for all of them. What is true now of another process cannot be read
there, so that each one tells it every second.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, multiprocess
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.process_collector import ProcessCollector

Gauges = Callable[[], Mapping[str, Mapping[str, float]]]
"""Reads what is true of each model, by name."""

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_TEXTS: Mapping[str, str] = {
    "queue_tokens": "Tokens that were admitted and are not yet computed",
    "queue_requests": "Requests that were let in and are not yet answered",
    "queue_oldest_seconds": "Age of the oldest request that waits",
    "model_bytes": "Size of the model's files",
}
# Of one process each, and not the sum of all.
_LARGEST = ("queue_oldest_seconds", "model_bytes")
_CPU = "model_cpu_seconds"
_CPU_TEXT = "Processor time inside the model"


@contextmanager
def shared_metrics() -> Iterator[None]:
    """Let the processes that are started meanwhile count together."""
    before = os.environ.get(_FOLDER)
    with TemporaryDirectory(prefix="poolc-metrics-") as folder:
        os.environ[_FOLDER] = folder
        try:
            yield
        finally:
            del os.environ[_FOLDER]
            if before is not None:
                os.environ[_FOLDER] = before


def forget_process(pid: int) -> None:
    """Take back what a process that ended told of itself; what it counted stays."""
    multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]


def of_all_processes() -> CollectorRegistry:
    """Return what reads the counts of all processes that count together."""
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry


class Read:
    """What is true now of this process, read when somebody asks for it."""

    def __init__(self, read: Gauges) -> None:
        self._read = read

    def collect(self) -> Any:
        """Return the families of all models; called by the registry."""
        now = self._read()
        for name, text in _TEXTS.items():
            family = GaugeMetricFamily(f"poolc_{name}", text, labels=["model"])
            for model, values in now.items():
                family.add_metric([model], values[name])
            yield family
        used = CounterMetricFamily(f"poolc_{_CPU}", _CPU_TEXT, labels=["model"])
        for model, values in now.items():
            used.add_metric([model], values[_CPU])
        yield used


class Told:
    """What is true now of one of several processes, written where all of them read."""

    def __init__(self, read: Gauges, registry: CollectorRegistry) -> None:
        self._read = read
        self._gauges = {
            name: _gauge(f"poolc_{name}", text, registry, ["model"], largest=name in _LARGEST)
            for name, text in _TEXTS.items()
        }
        self._cpu = Counter(f"poolc_{_CPU}", _CPU_TEXT, ["model"], registry=registry)
        self._process = ProcessCollector(registry=None)
        self._of_process: dict[str, Any] = {}
        for family in self._process.collect():
            make = Counter if family.type == "counter" else _gauge
            self._of_process[family.name] = make(
                family.name, family.documentation, registry=registry
            )
        self._counted: dict[str, float] = {}

    def tell(self) -> None:
        """Write what is true now."""
        for model, values in self._read().items():
            for name, gauge in self._gauges.items():
                gauge.labels(model).set(values[name])
            self._cpu.labels(model).inc(self._more(f"{_CPU} {model}", values[_CPU]))
        for family in self._process.collect():
            (sample,) = family.samples
            metric = self._of_process[family.name]
            if isinstance(metric, Counter):
                metric.inc(self._more(family.name, sample.value))
            else:
                metric.set(sample.value)

    def _more(self, name: str, value: float) -> float:
        """Return by how much a number has grown since it was last told."""
        before, self._counted[name] = self._counted.get(name, 0.0), value
        return max(value - before, 0.0)


def _gauge(
    name: str,
    text: str,
    registry: CollectorRegistry,
    labels: list[str] | None = None,
    *,
    largest: bool = False,
) -> Gauge:
    mode: Any = "livemax" if largest or name.endswith("start_time_seconds") else "livesum"
    return Gauge(name, text, labels or [], registry=registry, multiprocess_mode=mode)
