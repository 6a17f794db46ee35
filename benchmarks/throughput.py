"""Offline throughput: the same items for all, in rounds that alternate between processes.

    python -m benchmarks.throughput [--model M] [--data DIR] [--systems A,B] [--rounds 5]

Each system has a process, loads, and chooses its best setting on a sample of the workload; then
every round runs each of them once, in turn, so that a slow spell of the machine hits all alike.
Ratios are of medians, and the rows are compared with Sentence Transformers' so that nobody wins by
doing less. Without ``--systems``: poolc and Sentence Transformers.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import ceiling, slices
from benchmarks.environments import all_versions
from benchmarks.models import flops
from benchmarks.options import parser, write
from benchmarks.process import NotRun, Process
from benchmarks.results import ANCHOR, Store, difference, groups, throughput_rows, worst
from benchmarks.subject import Subject, subject
from benchmarks.table import BY_NAME, REFERENCE, system_names
from benchmarks.tables import throughput_table

SMALL_GROUP = 3  # systems beside poolc that fit the memory with a model of gigabytes
SMALL_GROUP_BYTES = 10**9  # weights from which that is so


def main() -> None:
    """Run the comparison and print a table."""
    options = parser("Throughput, alternating")
    options.add_argument("--systems", type=system_names, default=f"{ANCHOR},{REFERENCE}")
    options.add_argument(
        "--workloads", default="mixed", help="short,mixed,long,fixed-128,fixed-512"
    )
    options.add_argument("--texts", type=int, default=500, help="items of a workload, at most")
    options.add_argument("--rounds", type=int, default=5)
    arguments = options.parse_args()
    target = subject(arguments.model, arguments.data)
    workloads = [
        target.workload(name, arguments.rounds, arguments.texts)
        for name in arguments.workloads.split(",")
    ]
    systems = arguments.systems
    peak = ceiling.measure()
    results: dict[str, Any] = {}
    for name, group in measure_group(target, systems, workloads, arguments.rounds, peak):
        results[name] = group
        print(f"\n{name}:\n{throughput_table(throughput_rows(group))}")
    made = {"model": target.model.name, "throughput": results, "versions": all_versions(systems)}
    write(made, arguments.json)


def run(
    target: Subject,
    systems: Sequence[str],
    store: Store,
    rounds: int,
    texts: int | None = None,
    chosen: Sequence[str] | None = None,
) -> None:
    """Measure all workloads of a model into ``store``; what it holds of the same items stays."""
    workloads = [
        target.workload(name, rounds, texts) for name in chosen or slices.names(target.model)
    ]
    heavy = sum(f.stat().st_size for f in target.folder.glob("*.safetensors")) > SMALL_GROUP_BYTES
    size = SMALL_GROUP if heavy else len(systems)
    for group in groups(systems, size):
        key = " ".join(group)
        missing = [w for w in workloads if not _there(store.get("throughput", w.name, key), w)]
        if not missing:
            continue
        peak = ceiling.measure()
        store.put(peak, "ceiling", key)
        for name, result in measure_group(target, group, missing, rounds, peak):
            store.put(result, "throughput", name, key)
            print(f"\n{name}:\n{throughput_table(throughput_rows(result))}", flush=True)


def _there(found: Any, workload: slices.Workload) -> bool:
    return found is not None and found["digest"] == workload.digest


def measure_group(
    target: Subject,
    systems: Sequence[str],
    workloads: Sequence[slices.Workload],
    rounds: int,
    peak: dict[str, float],
) -> Any:
    """Yield each workload's name and result, as they come."""
    processes, reasons = target.start_all(systems)
    try:
        for workload in workloads:
            print(f"  {workload.name}: measuring", file=sys.stderr, flush=True)
            group = _Group(target, processes, dict(reasons))
            yield (
                workload.name,
                group.measure(workload, rounds)
                | {
                    "systems": list(systems),
                    "peak": {"fp32": peak["fp32_all"], "int8": peak["int8_all"]},
                },
            )
    finally:
        for process in processes.values():
            process.close()


class _Group:
    """Processes that alternate; one that fails is left out from then on, with the reason."""

    def __init__(
        self, target: Subject, processes: dict[str, Process], reasons: dict[str, str]
    ) -> None:
        self._target = target
        self._processes = dict(processes)
        self._reasons = reasons

    def measure(self, workload: slices.Workload, rounds: int) -> dict[str, Any]:
        files = [self._target.write(part) for part in workload.parts]
        tuning = self._target.write(workload.tuning)
        for name in list(self._processes):
            self._try(name, lambda process: process.tune(tuning))
        seconds: dict[str, list[float]] = {name: [] for name in self._processes}
        for i in range(rounds):
            part = i % len(files)
            for name in list(self._processes):
                output = self._target.rows(workload.digest, part, name)
                self._try(name, lambda p, o=output, f=files[part]: seconds[p.system.name].append(
                    p.ask("run", items=str(f), output=str(o))["seconds"]
                ))  # fmt: skip
        parts = range(min(rounds, len(files)))
        differences = {n: self._difference(workload, n, parts) for n in list(self._processes)}
        return self._facts(workload) | {
            "seconds": {name: seconds[name] for name in self._processes},
            "not_run": self._reasons,
            "difference": differences,
        }

    def _try(self, name: str, act: Any) -> None:
        """Let one process act while the others stand still."""
        try:
            act(self._processes[name])
            self._processes[name].signal(signal.SIGSTOP)
        except NotRun as error:
            self._reasons[name] = str(error)
            del self._processes[name]

    def _facts(self, workload: slices.Workload) -> dict[str, Any]:
        config = json.loads((self._target.folder / "config.json").read_text(encoding="utf-8"))
        names = self._processes
        return {
            "digest": workload.digest,
            "items": [len(part.items) for part in workload.parts],
            "tokens": [part.tokens for part in workload.parts],
            "flops": [flops(config, list(part.lengths)) for part in workload.parts],
            "int8": [name for name in names if BY_NAME[name].int8],
            "settings": {name: self._processes[name].setting for name in names},
            "tried": {name: self._processes[name].tried for name in names},
        }

    def _difference(
        self, workload: slices.Workload, name: str, parts: Sequence[int]
    ) -> dict[str, float]:
        """Compare with the reference's rows; those of another group of this model will do."""
        found = []
        for part in parts:
            files = [self._target.rows(workload.digest, part, s) for s in (name, REFERENCE)]
            if not all(file.exists() for file in files):
                return {}
            try:
                found.append(difference(*(np.load(file) for file in files)))
            except ValueError as error:
                self._reasons[name] = f"answers other items than asked: {error}"
                del self._processes[name]
                return {}
        return worst(found)


if __name__ == "__main__":
    main()
