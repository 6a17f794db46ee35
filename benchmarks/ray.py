"""A bulk job by two workers of Ray on this machine, against the same job by one process.

    python -m benchmarks.ray [--model M] [--data FOLDER] [--rows 40960] [--rounds 2] [--json FILE]

To be run by a Python that has poolc and Ray. Runs alternate, alone and on Ray, each in a process of
its own with as many cores: one process on all of them, and workers that share them out. Both write
the same file, whose bytes are compared. ``overhead`` is about the seconds from the first row to the
output in place; ``start_s`` is what a command takes beyond it: on Ray a cluster that is started and
ended, and the model in two workers.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.bulk import endless, write_rows
from benchmarks.options import model_or_default, parser, write
from poolc import api
from poolc.runtime.cores import allowed_cores

ALONE, ON_RAY = "alone", "on_ray"


def main() -> None:
    """Run the rounds and print what they took."""
    options = parser("A bulk job on Ray against the same job by one process")
    options.add_argument("--rows", type=int, default=40_960)
    options.add_argument("--part-rows", type=int, default=2_048)
    options.add_argument("--rounds", type=int, default=2)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--output", type=Path, default=Path(".bench/ray"))
    arguments = options.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    artifact = api.locate(model_or_default(arguments.model)).path
    found = measure(artifact, arguments)
    print(table(found))
    write(found, arguments.json)
    if not found["same_bytes"]:
        raise SystemExit("the files differ")


def measure(artifact: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run both in turns; return every run, and the medians against each other."""
    inputs = arguments.output / f"rows-{arguments.rows}.jsonl"
    write_rows(inputs, endless("queries", arguments.data), arguments.rows)
    cores = allowed_cores()
    shares = ("--workers", str(arguments.workers), "--num-cpus", f"{cores / arguments.workers:g}")
    ways = {ALONE: (), ON_RAY: ("--engine", "ray", *shares)}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    digests = set()
    for _ in range(arguments.rounds):
        for name, extra in ways.items():
            output = arguments.output / f"{name}.npy"
            told = (str(artifact), str(inputs), "-o", str(output))
            runs[name].append(run(*told, "--part-rows", str(arguments.part_rows), *extra))
            digests.add(hashlib.sha256(output.read_bytes()).hexdigest())
    medians = {n: statistics.median(r["job_s"] for r in found) for n, found in runs.items()}
    return {
        "rows": arguments.rows,
        "part_rows": arguments.part_rows,
        "workers": arguments.workers,
        "cores": cores,
        "runs": runs,
        "same_bytes": len(digests) == 1,
        "overhead": medians[ON_RAY] / medians[ALONE] - 1,
    }


def run(*arguments: str) -> dict[str, Any]:
    """Run ``poolc embed``; return its seconds and its rate."""
    command = [sys.executable, "-m", "poolc", "embed", *arguments, "--json", "--restart"]
    start = time.perf_counter()
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    wall_s = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"poolc embed ended with exit code {done.returncode}: {done.stderr}")
    event = json.loads(done.stderr.splitlines()[-1])
    return {
        "job_s": event["seconds"],
        "start_s": round(wall_s - event["seconds"], 3),
        "tokens_per_second": round(event["tokens"] / event["seconds"], 1),
    }


def table(found: dict[str, Any]) -> str:
    """Return the figures as text."""
    lines = [
        f"{found['rows']:,} rows in parts of {found['part_rows']:,}; {found['cores']} cores, "
        f"{found['workers']} workers; the same bytes: {'yes' if found['same_bytes'] else 'NO'}",
        "",
        "| | job, s | start, s | tokens/s |",
        "| --- | --- | --- | --- |",
    ]
    for name, runs in found["runs"].items():
        for one in runs:
            rate = f"{one['tokens_per_second']:,.0f}"
            lines.append(f"| {name} | {one['job_s']:.1f} | {one['start_s']:.1f} | {rate} |")
    return "\n".join([*lines, "", f"overhead on Ray: {100 * found['overhead']:.1f} %"])


if __name__ == "__main__":
    main()
