"""How long graphs take: sessions as the runtime opens them, one after the other, in turns.

A session has one thread and runs on the caller's, so that the thread's CPU time is what the graph
costs, whatever else the machine does meanwhile: it varies by 1 % where a clock varies twofold.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from poolc.compiler.weights import save_sharing_weights
from poolc.runtime.backends.base import Feeds
from poolc.runtime.backends.onnxruntime import import_onnxruntime, session_options
from poolc.spec import ATTENTION_MASK, INPUT_IDS, POOLING_MASK, ModelSpec

Shape = tuple[int, int]  # texts, tokens of each


@dataclass(frozen=True, slots=True)
class Comparison:
    """How much faster a graph is than another: 1.02 is 2 %. ``sure``: beyond the noise."""

    ratio: float
    sure: bool
    rounds: int


def session(model: ir.Model, folder: Path, threads: int = 1) -> Any:
    """Open a graph whose large tensors may lie in ``folder`` already; nothing is left there."""
    ort = import_onnxruntime()
    files = [folder / "timed.onnx", folder / "timed.onnx.data"]
    save_sharing_weights({files[0].name: model.clone()}, folder, files[1].name)
    opened = ort.InferenceSession(
        str(files[0]), session_options(ort, threads), providers=["CPUExecutionProvider"]
    )
    for file in files:
        file.unlink()  # mapped, where it is needed
    return opened


def feeds(spec: ModelSpec, shape: Shape) -> dict[str, Any]:
    """Return inputs of real tokens, the same every time."""
    made = {name: np.zeros(shape, np.int64) for name in spec.inputs}
    made[INPUT_IDS][:] = np.random.default_rng(0).integers(0, spec.vocab_size, shape)
    for name in {ATTENTION_MASK, POOLING_MASK} & made.keys():
        made[name][:] = 1
    return made


def seconds(runner: Any, inputs: Feeds) -> float:
    """Run once and return the CPU time of it."""
    start = time.thread_time()
    runner.run(None, inputs)
    return time.thread_time() - start


def soonest(runners: Sequence[Any], inputs: Feeds, rounds: int) -> list[float]:
    """Run sessions in turns and return the least time of each by the clock, in seconds.

    The clock, since sessions of several threads spend more CPU time to be done sooner.
    """
    best = [float("inf") for _ in runners]
    for _ in range(rounds + 1):  # the first run packs and allocates
        for i, runner in enumerate(runners):
            start = time.perf_counter()
            runner.run(None, inputs)
            best[i] = min(best[i], time.perf_counter() - start)
    return best


def compare(
    base: Any, other: Any, inputs: Sequence[Feeds], guard: float, until: float, most_rounds: int
) -> Comparison:
    """Time two sessions in turns, until the answer is clear, ``most_rounds`` or the clock.

    ``guard`` is by how much a graph has to be faster. At least three rounds are run.
    """
    for one in inputs:
        seconds(base, one), seconds(other, one)  # the first run packs and allocates
    ratios: list[list[float]] = [[] for _ in inputs]
    best = [[float("inf"), float("inf")] for _ in inputs]
    rounds, ratio, low = 0, 1.0, 1.0
    while rounds < most_rounds and (rounds < 3 or time.monotonic() < until):
        for i, one in enumerate(inputs):
            pair = (seconds(base, one), seconds(other, one))
            best[i] = [min(old, new) for old, new in zip(best[i], pair, strict=True)]
            ratios[i].append(pair[0] / max(pair[1], 1e-9))
        rounds += 1
        by_best = statistics.geometric_mean(a / max(b, 1e-9) for a, b in best)
        by_median = statistics.geometric_mean(statistics.median(one) for one in ratios)
        ratio, low = by_best, min(by_best, by_median)
        clear = low > 1 + 2 * guard or max(by_best, by_median) < 1 - guard
        if rounds >= 5 and clear:
            break
    return Comparison(ratio, low > 1 + guard, rounds)
