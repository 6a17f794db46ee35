"""Several processes behind one port: they start, count, fail and stop as one server."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from poolc.errors import InvalidOption
from poolc.runtime import cores
from poolc.runtime.engine import Engine
from poolc.serve.settings import Settings
from tests.serve.processes import ROOT, ServerProcess, server_process

PATIENCE_S = 30.0  # for what happens at once unless something is broken
Process = subprocess.Popen[str]


@contextmanager
def workers(work: str, **variables: str) -> Iterator[Process]:
    command = [sys.executable, "-m", "tests.serve.working", work]
    environment = {**os.environ, **variables}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ready(process: Process, count: int = 1) -> dict[int, int]:
    """Return the process ids of workers that said that they work, by which they are."""
    assert process.stdout is not None
    lines = [process.stdout.readline().split() for _ in range(count)]
    return {int(index): int(pid) for index, pid in lines}


def wait_for_end(pid: int) -> None:
    """Wait until a process that is not a child has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        found, _, _ = select.select([descriptor], [], [], PATIENCE_S)
        assert found, f"process {pid} still runs"
    finally:
        os.close(descriptor)


def test_one_signal_stops_all() -> None:
    with workers("waits") as process:
        assert set(ready(process, 2)) == {0, 1}
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


def test_a_worker_that_stops_badly_is_told() -> None:
    with workers("waits", STATUS="3") as process:
        ready(process, 2)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 1


def test_a_second_signal_ends_at_once() -> None:
    with workers("waits", STUBBORN="1") as process:
        pids = ready(process, 2)
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 128 + signal.SIGTERM
        for pid in pids.values():
            wait_for_end(pid)


def test_a_worker_that_dies_is_replaced() -> None:
    with workers("waits") as process:
        pids = ready(process, 2)
        os.kill(pids[1], signal.SIGKILL)
        replaced = ready(process)
        assert set(replaced) == {1}
        assert replaced[1] not in pids.values()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


def test_a_worker_that_cannot_start_ends_all() -> None:
    with workers("ends") as process:
        assert process.wait(PATIENCE_S) == 1


def test_workers_do_not_outlive_their_parent() -> None:
    with workers("waits") as process:
        pids = ready(process, 2)
        process.kill()
        for pid in pids.values():
            wait_for_end(pid)


# A server of several workers.


def embed(server: ServerProcess, text: str) -> list[float]:
    """Ask over a connection of its own: the kernel chooses the worker."""
    body = json.dumps({"input": text}).encode()
    headers = {"Content-Type": "application/json"}
    asked = urllib.request.Request(f"{server.url}/v1/embeddings", body, headers)
    with urllib.request.urlopen(asked, timeout=PATIENCE_S) as response:
        (entry,) = json.load(response)["data"]
    vector: list[float] = entry["embedding"]
    return vector


def counted(server: ServerProcess, pattern: str) -> float:
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=PATIENCE_S) as response:
        text = response.read().decode()
    (number,) = re.findall(rf"^{pattern} (\S+)$", text, re.MULTILINE)
    return float(number)


def children(pid: int) -> list[int]:
    """Return the workers below a server: they were started by spawning."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


def test_a_server_of_workers(tiny_embedder: Path, embedder: Engine) -> None:
    with server_process(tiny_embedder, settings="{'workers': 2}") as server:
        server.wait_for_log(r"running on (\S+),")  # the other one
        sent = 12
        for _ in range(sent):
            wanted = embedder.embed("a river", prompt="")[0]
            assert np.array_equal(np.array(embed(server, "a river"), np.float32), wanted)
        # Whichever worker is asked, it answers for both.
        replies = r'poolc_requests_total\{path="/v1/embeddings",status="200"\}'
        assert {counted(server, replies) for _ in range(6)} == {sent}
        tokens = len(embedder.tokenize("a river"))
        assert counted(server, r'poolc_tokens_total\{model="[^"]+"\}') == sent * tokens
        assert counted(server, r'poolc_queue_tokens\{model="[^"]+"\}') == 0
        assert counted(server, "process_resident_memory_bytes") > 0

        before = children(server.process.pid)
        assert len(before) == 2
        os.kill(before[0], signal.SIGKILL)
        server.wait_for_log(r"running on (\S+),")
        assert before[1] in children(server.process.pid)
        embed(server, "a river")
        assert counted(server, replies) == sent + 1

        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE_S) == 0
        for pid in before:
            wait_for_end(pid)


def test_settings_of_workers() -> None:
    with pytest.raises(InvalidOption, match="workers is 0"):
        Settings(workers=0)
    with pytest.raises(InvalidOption, match="admin changes the models of one process") as error:
        Settings(workers=2, admin=True, api_keys=("k",))
    assert error.value.param == "workers"


def test_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "_processes", 1)
    monkeypatch.setattr(cores, "_cgroup_quota", lambda: None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(9)))
    try:
        cores.share_cores(2)
        assert cores.allowed_cores() == 5
        cores.share_cores(20)
        assert cores.allowed_cores() == 1
    finally:
        monkeypatch.undo()
        cores.allowed_cores.cache_clear()
