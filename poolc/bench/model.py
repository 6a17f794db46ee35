"""How fast a loaded model is, and what share of the device that is.

Knows the engine's seam, and no HTTP. The peaks are measured in the same run: ``peaks.py``.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from poolc.bench import peaks
from poolc.bench.load import percentile
from poolc.bench.operations import counted
from poolc.runtime.cores import allowed_cores
from poolc.runtime.engine import Engine
from poolc.runtime.request import Item, Params
from poolc.spec import ENGINE_TARGETS, Precision, Target, Task

_TASKS = (Task.EMBED, Task.CLASSIFY, Task.SCORE, Task.REWARD, Task.ENCODE)
_MIN_ROUNDS = 3
_LONE = 200  # texts that are asked for one at a time


@dataclass(frozen=True, slots=True)
class Measured:
    """What a run found; rates are a second, by the median of the rounds."""

    texts: int
    tokens: int
    rounds: int
    texts_per_s: float  # from texts to results
    tokens_per_s: float
    executed_tokens_per_s: float  # from token ids on
    padding_share: float  # of the tokens that were computed
    lone_p50_ms: float
    lone_p99_ms: float
    operations_per_s: float  # of matrix products, while executing
    peak_operations_per_s: float
    bytes_per_s: float  # of weights that are read, once a micro-batch: the least that is moved
    peak_bytes_per_s: float

    @property
    def utilisation(self) -> float:
        """Model FLOP utilisation: the share of the measured peak of a matrix product."""
        return self.operations_per_s / self.peak_operations_per_s

    @property
    def bandwidth_share(self) -> float:
        """The share of the measured bandwidth that reading the weights takes."""
        return self.bytes_per_s / self.peak_bytes_per_s

    def summary(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        shares = {"utilisation": self.utilisation, "bandwidth_share": self.bandwidth_share}
        return {**asdict(self), **shares}


def measure(engine: Engine, texts: Sequence[str], seconds: float) -> Measured:
    """Run texts for about ``seconds`` seconds, whole and from token ids on, in alternating rounds.

    Texts that are too long are cut. Raises what the engine raises, and MissingDependency without
    what counts operations (ONNX Runtime) and measures the peaks.
    """
    task = next(task for task in _TASKS if task in engine.spec.tasks)
    items = _items(task, texts)
    params = Params(truncate=True, label=0 if task is Task.SCORE and engine.spec.labels else None)
    prepared = engine.prepare(task, items, params)
    lengths = [len(sequence) for sequence in prepared.sequences]
    tokens, batches = sum(lengths), engine.plan(lengths)

    def whole() -> None:
        engine.run(task, list(items), params)

    def executed() -> None:
        engine.submit(prepared).wait()

    took = _alternating([whole, executed], seconds)
    whole_s, executed_s = (statistics.median(times) for times in took)
    lone_ms = _lone(engine, task, items, params)
    operations = counted(engine)
    product, bandwidth = _peaks(engine)
    return Measured(
        texts=len(items),
        tokens=tokens,
        rounds=len(took[0]),
        texts_per_s=len(items) / whole_s,
        tokens_per_s=tokens / whole_s,
        executed_tokens_per_s=tokens / executed_s,
        padding_share=1 - tokens / sum(batch.num_tokens for batch in batches),
        lone_p50_ms=percentile(lone_ms, 50),
        lone_p99_ms=percentile(lone_ms, 99),
        operations_per_s=operations.of(lengths) / executed_s,
        peak_operations_per_s=product,
        bytes_per_s=operations.weight_bytes * len(batches) / executed_s,
        peak_bytes_per_s=bandwidth,
    )


def table(found: Measured) -> str:
    """Return what a run found, for people."""
    rows = [
        ("whole", f"{found.tokens_per_s:,.0f} tokens/s, {found.texts_per_s:,.0f} texts/s"),
        (
            "model alone",
            f"{found.executed_tokens_per_s:,.0f} tokens/s, {100 * found.padding_share:.1f} % "
            "padding beside",
        ),
        ("lone text", f"p50 {found.lone_p50_ms:.2f} ms, p99 {found.lone_p99_ms:.2f} ms"),
        (
            "products",
            f"{found.operations_per_s / 1e9:,.0f} G/s, {100 * found.utilisation:.0f} % of the "
            f"measured peak of {found.peak_operations_per_s / 1e9:,.0f} G/s",
        ),
        (
            "weights",
            f"{found.bytes_per_s / 1e9:,.1f} GB/s at least, {100 * found.bandwidth_share:.0f} % of "
            f"the measured {found.peak_bytes_per_s / 1e9:,.0f} GB/s",
        ),
        ("measured", f"{found.texts:,} texts, {found.tokens:,} tokens, {found.rounds} rounds"),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name.ljust(width)}  {told}" for name, told in rows)


def _items(task: Task, texts: Sequence[str]) -> list[Item]:
    if task is not Task.SCORE:
        return list(texts)
    return list(zip(texts, [*texts[1:], texts[0]], strict=True))  # each with its neighbour


def _alternating(calls: Sequence[Callable[[], None]], seconds: float) -> list[list[float]]:
    """Return the seconds of every round of each, after one that does not count."""
    took: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    until_s = time.perf_counter() + seconds
    while len(took[0]) < _MIN_ROUNDS or time.perf_counter() < until_s:
        for times, call in zip(took, calls, strict=True):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
    return took


def _lone(engine: Engine, task: Task, items: Sequence[Item], params: Params) -> list[float]:
    """Return the milliseconds of texts that come one at a time."""
    found = []
    for i in range(_LONE + 1):
        start = time.perf_counter()
        engine.run(task, [items[i % len(items)]], params)
        found.append(1000 * (time.perf_counter() - start))
    return sorted(found[1:])


def _peaks(engine: Engine) -> tuple[float, float]:
    manifest = engine.artifact.manifest
    if manifest.target is Target.CPU:
        precision = Precision.INT8 if manifest.precision is Precision.INT8 else Precision.FP32
        return peaks.cpu_product(precision, allowed_cores()), peaks.cpu_bandwidth()
    first = engine.devices[0]
    if manifest.target in ENGINE_TARGETS:
        from poolc.bench import engine_peaks

        peak = engine_peaks.product(manifest.target, manifest.precision, first)
        return peak, engine_peaks.bandwidth(first)
    return peaks.gpu_product(manifest.precision, first), peaks.gpu_bandwidth(first)
