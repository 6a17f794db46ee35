"""Resident memory: each system's process after loading and after requests, and a whole server's.

    python -m benchmarks.resident [--model M] [--data DIR] [--systems A,B] [--requests 1000]

Figures are proportional set sizes: pages that processes share count once. Requests are single
queries; poolc's server is measured as users run it, through HTTP. ``memory.py`` is about the peak
at 8,192 tokens instead.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.environments import ROOT, python_of, why_missing
from benchmarks.options import parser, write
from benchmarks.process import OFFLINE, NotRun, proportional_bytes
from benchmarks.results import ANCHOR, Store
from benchmarks.slices import Part
from benchmarks.subject import Subject, subject
from benchmarks.systems.protocol import Job
from benchmarks.table import BY_NAME, REFERENCE, system_names
from benchmarks.tables import resident_table
from benchmarks.workload import queries

SERVED = {"poolc": "poolc serve, fp32", "poolc-int8": "poolc serve, int8"}
START_TIMEOUT_S = 60.0


def main() -> None:
    """Measure and print."""
    options = parser("Resident memory")
    options.add_argument("--systems", type=system_names, default=f"{ANCHOR},{REFERENCE}")
    options.add_argument("--requests", type=int, default=1000)
    arguments = options.parse_args()
    target = subject(arguments.model, arguments.data)
    found = measure(target, arguments.systems, arguments.requests)
    print(resident_table(found))
    write({"model": target.model.name, "resident": found}, arguments.json)


def run(target: Subject, systems: Sequence[str], store: Store, requests: int) -> None:
    """Measure into ``store`` unless it is there."""
    if store.get("resident") is None and target.model.task == "embed":
        store.put(measure(target, systems, requests), "resident")
    if store.get("resident") is not None:
        print(f"\nresident memory:\n{resident_table(store.get('resident'))}", flush=True)


def measure(target: Subject, systems: Sequence[str], requests: int) -> list[dict[str, Any]]:
    """Return a row a system: bytes after loading and after so many single requests."""
    texts = list(itertools.islice(queries(target.data), 200))
    made = []
    for name in systems:
        try:
            made.append(_process(target, name, texts, requests))
            if name in SERVED:
                made.append(_server(target, name, texts, requests))
        except NotRun as error:
            made.append({"system": name, "not_run": str(error)})
    return made


def _process(target: Subject, name: str, texts: list[str], requests: int) -> dict[str, Any]:
    items = target.write(Part(tuple(texts), (1,) * len(texts)))
    with closing(target.start(name)) as process:
        loaded = process.memory_bytes()
        process.ask("each", items=str(items), count=requests)
        return {
            "system": name,
            "loaded_bytes": loaded,
            "after_bytes": process.memory_bytes(),
            "requests": requests,
        }


def _server(target: Subject, name: str, texts: list[str], requests: int) -> dict[str, Any]:
    target.prepare(name)
    system, port = BY_NAME[name], free_port()
    python = python_of(system.environment)
    if python is None:
        raise NotRun(why_missing(system.environment))
    artifact = str(artifact_folder(target.job(system)))
    with subprocess.Popen(
        [python, "-m", "poolc", "serve", artifact, "--port", str(port)],
        env={**os.environ, **OFFLINE, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            _wait(server, port)
            loaded = proportional_bytes(server.pid)
            for text in itertools.islice(itertools.cycle(texts), requests):
                _post(port, text)
            after = proportional_bytes(server.pid)
        finally:
            server.terminate()
    measured = {"loaded_bytes": loaded, "after_bytes": after, "requests": requests}
    return {"system": SERVED[name], **measured}


def artifact_folder(job: Job) -> Path:
    """Return where poolc's artifact of a job lies."""
    return Path(job.folder) / f"artifact-{job.variant}"


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _wait(server: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise NotRun(f"poolc serve ended with exit code {server.returncode}")
        try:
            _post(port, "a text")
            return
        except OSError:
            time.sleep(0.1)
    raise NotRun(f"poolc serve did not answer within {START_TIMEOUT_S:.0f} s")


def _post(port: int, text: str) -> None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/embeddings",
        json.dumps({"input": text, "model": "m"}).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            response.read()
    except urllib.error.HTTPError as error:
        raise NotRun(f"poolc serve answered {error.code}: {error.read()[:200]!r}") from error


if __name__ == "__main__":
    main()
