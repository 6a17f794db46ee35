"""A ledger of a million parts: its size, the time and memory to open it, and random kills.

    python -m benchmarks.ledger [--parts 1000000] [--kills 6] [--folder D] [--disk D] [--json F]

Runs ``poolc/runtime/bulk/ledger.py`` and its shelf as a job does, without a model: a part is
committed that stands for 32,768 vectors, as a file of that size without blocks, and a line of the
ledger. Writers are killed with SIGKILL at random parts; each one that follows opens the ledger and
goes on. Then bytes are cut off the end, as a machine that loses power may leave it. ``--folder`` is
best in memory, where flushing costs nothing; what a flush costs is measured apart, in ``--disk``.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.options import write
from poolc.runtime.bulk import ledger
from poolc.runtime.bulk.ledger import Begun, Done
from poolc.runtime.bulk.parts import PART_ROWS
from poolc.runtime.bulk.records import Position
from poolc.runtime.bulk.shelf import LocalShelf, Stored, ledger_line

SEED = 20261127
_VECTOR_BYTES = 384 * 4
_INPUT_FILES = 10_000
_DURABLE = 1_000  # commits that are flushed to a disk
_CUTS = 3
_OPENS = 2
_LEDGER = Path("_poolc") / "ledger.jsonl"


@dataclass(frozen=True, slots=True)
class Opened:
    """What a process found that opened the ledger: ``peak_bytes`` is its resident memory.

    ``cpu_seconds`` do not depend on what else the machine does.
    """

    parts: int
    seconds: float
    cpu_seconds: float
    peak_bytes: int


def main() -> None:
    """Measure, or be one of the processes that are."""
    options = argparse.ArgumentParser(description="A ledger of a million parts")
    options.add_argument("--parts", type=int, default=1_000_000)
    options.add_argument("--kills", type=int, default=6)
    options.add_argument("--folder", type=Path, default=None)
    options.add_argument("--disk", type=Path, default=Path(".bench/ledger"))
    options.add_argument("--json", type=Path, default=None)
    options.add_argument("--child", choices=("write", "open"), help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.child:
        child(arguments.folder, arguments.parts if arguments.child == "write" else 0)
        return
    memory = Path("/dev/shm")
    parent = arguments.folder or (memory if memory.is_dir() else None)
    folder = Path(tempfile.mkdtemp(prefix="poolc-ledger-", dir=parent))
    try:
        found = measure(folder, arguments.parts, arguments.kills)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    found["durable"] = durable(arguments.disk)
    print(json.dumps(found, indent=1))
    write(found, arguments.json)


def child(folder: Path, num_parts: int) -> None:
    """Open the ledger, say what was found, and commit what is missing of ``num_parts``."""
    start, start_cpu = time.perf_counter(), time.process_time()
    shelf = LocalShelf(folder / _LEDGER.parent, folder)
    begun = begin(shelf)
    seconds, cpu_s = time.perf_counter() - start, time.process_time() - start_cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(asdict(Opened(len(begun.parts), seconds, cpu_s, peak))), flush=True)
    for number in range(len(begun.parts), num_parts):
        done = part(number)
        stand_in(folder, done)
        ledger.commit(shelf, done)
    shelf.close()


def begin(shelf: LocalShelf) -> Begun:
    """Open the ledger of the job that is simulated."""
    return ledger.begin(shelf, header(), any_host=False, restart=False)


def header() -> dict[str, Any]:
    """Return what the job was told, with as many inputs as one of this size has."""
    files = [f"documents/{i:05d}.parquet" for i in range(_INPUT_FILES)]
    inputs = [[name, 1 << 30, 10**18] for name in files]
    return {"host": {"cpu": "simulated"}, "inputs": inputs, "task": "embed"}


def part(number: int) -> Done:
    """Return a part as a job commits it: full, in Parquet, with a few rows that failed."""
    digest = f"{number:032x}"
    size = PART_ROWS * _VECTOR_BYTES + number % 4096
    return Done(
        number,
        PART_ROWS,
        PART_ROWS,
        0,
        PART_ROWS * 120 + number % 999,
        PART_ROWS * 123 + number % 999,
        PART_ROWS * 600 + number % 999,
        Position(number * _INPUT_FILES // 1_000_000, number % 1000 * PART_ROWS),
        digest,
        Stored(f"part-{number:05d}.parquet", size, digest[::-1]),
        None,
        None,
        (PART_ROWS, 384),
        "float32",
    )


def stand_in(folder: Path, done: Done) -> None:
    """Make the file of a part in its size, without blocks; put is what takes time otherwise."""
    if done.file is None:
        return
    descriptor = os.open(folder / done.file.name, os.O_CREAT | os.O_WRONLY, 0o666)
    os.ftruncate(descriptor, done.file.num_bytes)
    os.close(descriptor)


def measure(folder: Path, num_parts: int, num_kills: int) -> dict[str, Any]:
    """Commit all parts in processes that are killed; then open what is there, whole and cut."""
    chosen = random.Random(SEED)
    targets = sorted(chosen.sample(range(1, num_parts), num_kills))
    start = time.perf_counter()
    kills = [_killed(folder, num_parts, target) for target in targets]
    _run(folder, num_parts, "write")
    took = time.perf_counter() - start
    path = folder / _LEDGER
    size = path.stat().st_size
    opened = [_run(folder, num_parts, "open") for _ in range(_OPENS)]
    cuts = [_cut(folder, num_parts, chosen.randrange(2, 200)) for _ in range(_CUTS)]
    with path.open("rb") as file:
        first = len(file.readline())
    return {
        "parts": num_parts,
        "rows_a_part": PART_ROWS,
        "input_files": _INPUT_FILES,
        "ledger_bytes": size,
        "first_line_bytes": first,
        "bytes_a_part": (size - first) / num_parts,
        "write_seconds": took,
        "open_seconds": statistics.median(one.seconds for one in opened),
        "open_cpu_seconds": statistics.median(one.cpu_seconds for one in opened),
        "open_peak_bytes": max(one.peak_bytes for one in opened),
        "opened_parts": min(one.parts for one in opened),
        "empty_peak_bytes": _empty_peak(),
        "kills": kills,
        "cuts": cuts,
        "lost_parts": sum(one["whole_lines"] - one["resumed"] for one in [*kills, *cuts]),
    }


def _killed(folder: Path, num_parts: int, target: int) -> dict[str, Any]:
    """Kill a writer when about ``target`` parts are there; return what the next one finds."""
    path = folder / _LEDGER
    process = subprocess.Popen(_command(folder, num_parts, "write"), stdout=subprocess.DEVNULL)
    size = _expected_bytes(target)
    while process.poll() is None and not (path.exists() and path.stat().st_size >= size):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return _resumed(folder, num_parts)


def _cut(folder: Path, num_parts: int, num_bytes: int) -> dict[str, Any]:
    path = folder / _LEDGER
    os.truncate(path, path.stat().st_size - num_bytes)
    return _resumed(folder, num_parts)


def _resumed(folder: Path, num_parts: int) -> dict[str, Any]:
    """Count the whole lines here, by the byte, and let a process open the ledger."""
    with (folder / _LEDGER).open("rb") as file:
        blocks = iter(lambda: file.read(1 << 24), b"")
        lines = sum(block.count(b"\n") for block in blocks)
    found = _run(folder, num_parts, "open")
    return {"whole_lines": max(lines - 1, 0), "resumed": found.parts, "seconds": found.seconds}


def _expected_bytes(num_parts: int) -> int:
    return len(ledger_line(header())) + num_parts * len(ledger_line(part(num_parts).entry()))


def _empty_peak() -> int:
    """Return the memory of a process that opens a ledger without parts."""
    with tempfile.TemporaryDirectory() as folder:
        return _run(Path(folder), 0, "open").peak_bytes


def durable(folder: Path) -> dict[str, float]:
    """Return what a commit takes that is flushed to the disk of ``folder``, in milliseconds."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shelf = LocalShelf(folder / _LEDGER.parent, folder)
    begin(shelf)
    took = []
    for number in range(_DURABLE):
        done = part(number)
        start = time.perf_counter()
        ledger.commit(shelf, done)
        took.append(1000 * (time.perf_counter() - start))
    shelf.close()
    shutil.rmtree(folder, ignore_errors=True)
    cuts = statistics.quantiles(took, n=100)
    return {"commits": _DURABLE, "p50_ms": cuts[49], "p99_ms": cuts[98]}


def _run(folder: Path, num_parts: int, kind: str) -> Opened:
    command = _command(folder, num_parts, kind)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Opened(**json.loads(done.stdout.splitlines()[0]))


def _command(folder: Path, num_parts: int, kind: str) -> Sequence[str]:
    arguments = ("--folder", str(folder), "--parts", str(num_parts), "--child", kind)
    return [sys.executable, "-m", "benchmarks.ledger", *arguments]


if __name__ == "__main__":
    main()
