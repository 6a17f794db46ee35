"""Cost per million tokens against one thing at a time, in core-seconds and in dollars.

    python -m benchmarks.sweep [--model M] [--data DIR] [--systems A,B] [--rounds 3]

``batch``: texts of 128 tokens, so many in a call; ``length``: texts of one length, the same tokens
in every call; ``texts``: mixed texts, so many in a call; ``cores``: the mixture on so many cores.
Cost is seconds x cores: what a machine is rented for. Dollars are at a price that is stated, by
default 0.05 for a core and an hour.
"""

from __future__ import annotations

import itertools
import os
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.options import parser, write
from benchmarks.process import NotRun, Process
from benchmarks.results import ANCHOR, Store
from benchmarks.slices import Counter, Part
from benchmarks.subject import Subject, subject
from benchmarks.table import REFERENCE, system_names
from benchmarks.tables import sweep_table
from benchmarks.workload import documents

BATCHES = (1, 2, 4, 8, 16, 32, 64)
LENGTHS = (8, 16, 32, 64, 128, 256, 512)
TEXTS = (1, 4, 16, 64, 128)
LENGTH_OF_BATCHES = 128
TOKENS_OF_CALLS = 1024
TOKENS_OF_LENGTHS = 2048
PRICE = 0.05  # dollars for a core and an hour


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement: a call with these items, its tokens, on so many cores."""

    axis: str
    value: int
    part: Part
    cores: int


def main() -> None:
    """Measure and print."""
    options = parser("Cost per million tokens")
    options.add_argument("--systems", type=system_names, default=f"{ANCHOR},{REFERENCE}")
    options.add_argument("--rounds", type=int, default=3)
    arguments = options.parse_args()
    target = subject(arguments.model, arguments.data)
    found = measure(target, arguments.systems, arguments.rounds)
    print(sweep_table(found))
    write({"model": target.model.name, "sweep": found}, arguments.json)


def run(target: Subject, systems: Sequence[str], store: Store, rounds: int) -> None:
    """Measure into ``store`` unless it is there."""
    if store.get("sweep") is None and target.model.task == "embed":
        store.put(measure(target, systems, rounds), "sweep")
    if store.get("sweep") is not None:
        print(f"\ncost per million tokens:\n{sweep_table(store.get('sweep'))}", flush=True)


def measure(target: Subject, systems: Sequence[str], rounds: int) -> dict[str, Any]:
    """Return core-seconds per million tokens: the median of rounds that alternate."""
    made = list(points(target))
    rows: list[dict[str, Any]] = []
    reasons: dict[str, str] = {}
    for cores in sorted({point.cores for point in made}, reverse=True):
        chosen = [point for point in made if point.cores == cores]
        rows += _on_cores(target, systems, chosen, rounds, reasons)
    return {"systems": list(systems), "rows": rows, "not_run": reasons, "price": PRICE}


def points(target: Subject) -> Iterator[Point]:
    """Yield what is measured; lengths up to the model's limit."""
    cores = len(os.sched_getaffinity(0))
    counter = target.counter()
    limit = target.model.max_length
    fixed = _fixed(target, counter, min(LENGTH_OF_BATCHES, limit), max(BATCHES))
    for size in BATCHES:
        yield Point("batch", size, Part(fixed.items[:size], fixed.lengths[:size]), cores)
    for length in (n for n in LENGTHS if n <= limit):
        part = _fixed(target, counter, length, TOKENS_OF_LENGTHS // length)
        yield Point("length", length, part, cores)
    mixed = target.workload("mixed", 1, max(TEXTS)).parts[0]
    for count in TEXTS:
        yield Point("texts", count, Part(mixed.items[:count], mixed.lengths[:count]), cores)
    for count in range(1, cores + 1):
        part = Part(mixed.items[:64], mixed.lengths[:64])
        yield Point("cores", count, part, count)


def _fixed(target: Subject, counter: Counter, length: int, count: int) -> Part:
    cut = (counter.cut(text, length) for text in documents(target.data))
    return counter.part(itertools.islice(filter(None, cut), count))


def _on_cores(
    target: Subject,
    systems: Sequence[str],
    chosen: Sequence[Point],
    rounds: int,
    reasons: dict[str, str],
) -> list[dict[str, Any]]:
    available = sorted(os.sched_getaffinity(0))[: chosen[0].cores]
    processes: dict[str, Process] = {}
    for name in (name for name in systems if name not in reasons):
        try:
            processes[name] = target.start(name, available)
        except NotRun as error:
            reasons[name] = str(error)
    rows = [
        {"axis": p.axis, "value": p.value, "core_seconds": _costs(target, processes, p, rounds)}
        for p in chosen
    ]
    for process in processes.values():
        process.close()
    return rows


def _costs(
    target: Subject, processes: dict[str, Process], point: Point, rounds: int
) -> dict[str, float]:
    """Return core-seconds per million tokens by system, of calls of a point's texts.

    Small calls are repeated: one alone finds the caches full of another system's numbers.
    """
    items = str(target.write(point.part))
    calls = max(1, TOKENS_OF_CALLS // point.part.tokens)
    seconds: dict[str, list[float]] = {name: [] for name in processes}
    for process in processes.values():
        _prefer(process, point)
        process.ask("run", items=items)  # a warm-up, which the batch size just set may need
    for _, (name, process) in itertools.product(range(rounds), processes.items()):
        found = [process.ask("run", items=items)["seconds"] for _ in range(calls)]
        seconds[name].append(statistics.median(found))
    scale = point.cores * 1e6 / point.part.tokens
    return {name: statistics.median(values) * scale for name, values in seconds.items()}


def _prefer(process: Process, point: Point) -> None:
    """Set the batch size: that of the call where batches are the axis, else the usual 32."""
    if "batch_size" in process.setting:
        size = point.value if point.axis == "batch" else 32
        process.ask("use", setting={"batch_size": size})


if __name__ == "__main__":
    main()
