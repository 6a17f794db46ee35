"""Where the time of poolc's graphs goes, by operator: one thread, the graph that the runtime opens.

    python -m benchmarks.profile [--model M] [--data DIR] [--systems poolc,poolc-int8]

Shares are of the medians of each node's time over the runs. Matrix products are what the machine's
peak bounds; what the others take is what could be won by other kernels.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.options import parser, write
from benchmarks.results import ANCHOR, Store
from benchmarks.subject import Subject, subject
from benchmarks.systems.poolc import artifact
from benchmarks.table import BY_NAME, system_names
from benchmarks.tables import profile_table
from poolc.model_cache.artifact import open_artifact
from poolc.model_cache.manifest import GraphInfo
from poolc.runtime.backends.onnxruntime import import_onnxruntime, session_options
from poolc.spec import MAIN_SET

SYSTEMS = (ANCHOR, "poolc-int8")
RUNS = 12
SHOWN = 8  # operators; the others are one row


def main() -> None:
    """Profile and print."""
    options = parser("Where the time goes, by operator")
    options.add_argument("--systems", type=system_names, default=",".join(SYSTEMS))
    arguments = options.parse_args()
    found = measure(subject(arguments.model, arguments.data), arguments.systems)
    print(profile_table(found))
    write({"profile": found}, arguments.json)


def run(target: Subject, systems: Sequence[str], store: Store) -> None:
    """Measure into ``store`` unless it is there."""
    if store.get("profile") is None:
        store.put(measure(target, systems), "profile")
    print(f"\nprofile:\n{profile_table(store.get('profile'))}", flush=True)


def measure(target: Subject, systems: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row a system and shape: milliseconds of a micro-batch, and each operator's."""
    rows = []
    for name in systems:
        target.prepare(name)
        opened = open_artifact(artifact(target.job(BY_NAME[name])))
        graph = opened.manifest.graphs[MAIN_SET]
        path = opened.file(graph.packed or graph.file)
        vocabulary = opened.manifest.spec.vocab_size
        for shape in ((4, 64), (1, min(256, target.model.max_length))):
            by_operator = _profile(path, graph, shape, vocabulary)
            total = sum(by_operator.values())
            first = dict(Counter(by_operator).most_common(SHOWN))
            rows.append(
                {
                    "system": name,
                    "texts": shape[0],
                    "tokens": shape[1],
                    "ms": total / 1000,
                    "shares": {op: us / total for op, us in first.items()},
                }
            )
    return rows


def _profile(
    path: Path, graph: GraphInfo, shape: tuple[int, int], vocabulary: int
) -> dict[str, float]:
    """Return the microseconds of each operator, of one run."""
    ort = import_onnxruntime()
    options = session_options(ort)
    with tempfile.TemporaryDirectory() as folder:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        feeds = {value.name: np.zeros(shape, np.int64) for value in graph.inputs}
        for name in feeds:
            if "mask" in name:
                feeds[name][:] = 1
        ids = np.random.default_rng(0).integers(0, vocabulary, shape)
        feeds["input_ids"][:] = ids
        for _ in range(RUNS):
            session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    by_node: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("kernel_time"):
            by_node[event["args"]["op_name"], event["name"]].append(event["dur"])
    total: dict[str, float] = defaultdict(float)
    for (operator, _), times in by_node.items():
        total[operator] += statistics.median(times)
    return total


if __name__ == "__main__":
    main()
