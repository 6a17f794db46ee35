"""Latency of a lone request: one text at a time, p50 and p99, in rounds that alternate.

    python -m benchmarks.latency [--model M] [--data DIR] [--systems A,B] [--requests 200]

In process, without HTTP: what the model and its tokenizer cost, and nothing of the wire.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from benchmarks.options import parser, write
from benchmarks.process import NotRun, Process
from benchmarks.results import ANCHOR, Store, percentile, spread
from benchmarks.slices import Part
from benchmarks.subject import Subject, subject
from benchmarks.table import REFERENCE, system_names
from benchmarks.tables import latency_table
from benchmarks.workload import documents, queries

KINDS = ("query", "document")
POOL = 200  # different texts


def main() -> None:
    """Measure and print."""
    options = parser("Latency of a lone request")
    options.add_argument("--systems", type=system_names, default=f"{ANCHOR},{REFERENCE}")
    options.add_argument("--requests", type=int, default=200, help="of each kind, in all rounds")
    options.add_argument("--rounds", type=int, default=4)
    arguments = options.parse_args()
    target = subject(arguments.model, arguments.data)
    found = measure(target, arguments.systems, arguments.requests, arguments.rounds)
    print(latency_table(rows(found)))
    write({"model": target.model.name, "latency": found}, arguments.json)


def run(target: Subject, systems: Sequence[str], store: Store, requests: int, rounds: int) -> None:
    """Measure into ``store`` unless it is there."""
    if store.get("latency") is None and target.model.task == "embed":
        store.put(measure(target, systems, requests, rounds), "latency")
    if store.get("latency") is not None:
        print(f"\nlatency:\n{latency_table(rows(store.get('latency')))}", flush=True)


def measure(target: Subject, systems: Sequence[str], requests: int, rounds: int) -> dict[str, Any]:
    """Return the seconds of every request, by system and kind, or why a system did not run."""
    files = {kind: target.write(part) for kind, part in _parts(target).items()}
    processes, reasons = target.start_all(systems)
    seconds: dict[str, dict[str, list[list[float]]]] = {
        name: {kind: [] for kind in KINDS} for name in processes
    }
    for (_, kind), name in itertools.product(
        itertools.product(range(rounds), KINDS), list(processes)
    ):
        if name in reasons:
            continue
        try:
            found = _ask(processes[name], str(files[kind]), max(1, requests // rounds))
            seconds[name][kind].append(found)
        except NotRun as error:
            reasons[name] = str(error)
    for process in processes.values():
        process.close()
    measured = {name: kinds for name, kinds in seconds.items() if name not in reasons}
    return {"systems": list(systems), "seconds": measured, "not_run": reasons}


def _ask(process: Process, items: str, count: int) -> list[float]:
    found: list[float] = process.ask("each", items=items, count=count)["seconds"]
    return found


def _parts(target: Subject) -> dict[str, Part]:
    sources = {"query": queries(target.data), "document": documents(target.data)}
    counter = target.counter()
    return {kind: counter.part(itertools.islice(sources[kind], POOL)) for kind in KINDS}


def rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row a system and kind: p50 and p99 in milliseconds, and the ratio of p50s."""
    made: list[dict[str, Any]] = []
    for name, kind in itertools.product(found["systems"], KINDS):
        if name not in found["seconds"]:
            if kind == KINDS[0]:
                made.append({"system": name, "not_run": found["not_run"].get(name, "")})
            continue
        values = [1000 * s for part in found["seconds"][name][kind] for s in part]
        row = {
            "system": name,
            "kind": kind,
            "p50_ms": percentile(values, 50),
            "p99_ms": percentile(values, 99),
        }
        made.append(row | _ratio(found["seconds"], name, kind))
    return made


def _ratio(seconds: dict[str, Any], name: str, kind: str) -> dict[str, float]:
    """Return how much longer than the anchor's the median request took, over the rounds."""
    if ANCHOR not in seconds:
        return {}
    pairs = zip(seconds[ANCHOR][kind], seconds[name][kind], strict=True)
    by_round = [percentile(theirs, 50) / percentile(ours, 50) for ours, theirs in pairs]
    return dict(zip(("ratio", "ratio_low", "ratio_high"), spread(by_round), strict=True))


if __name__ == "__main__":
    main()
