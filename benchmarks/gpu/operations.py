"""What operating on a GPU takes: memory, a device that is lost, a server, the command line.

What is about memory runs here, the rest in processes of its own: a device that is lost stays lost
for the process. What the server needs (the extra ``serve``) is not on every machine with a GPU;
without it that is said, and the rest is done.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.gpu import speed
from benchmarks.resident import free_port
from poolc.model_cache.artifact import open_artifact
from poolc.runtime.backends.cuda import CudaBackend
from poolc.spec import MAIN_SET, SENTENCE_EMBEDDING

Say = speed.Say
_SERVE = ("fastapi", "uvicorn", "httptools", "orjson", "prometheus_client")
_CLIENTS = "1,8,64,256"
_SERVED_SECONDS = 3.0
_START_S, _ANSWER_S, _COMMAND_S = 60.0, 20.0, 90.0
_LEFT_BYTES = tuple(1 << shift for shift in (31, 30, 29, 28, 27, 26))


def operate(
    artifacts: Sequence[Path],
    long_texts: Sequence[str],
    say: Say,
    is_over: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Try a small and a large artifact; return what was found, and say it as it is found.

    A part that fails does not take the others along; none is begun once time is up.
    """
    small, large = artifacts
    parts: dict[str, Callable[[], Any]] = {
        "doctor": lambda: _doctor(say),
        "weights_once": lambda: weights_once(large, say),
        "out_of_memory": lambda: out_of_memory(large, say),
    }
    lacking = [name for name in _SERVE if importlib.util.find_spec(name) is None]
    if lacking:
        say(f"{', '.join(lacking)}: not installed, nothing is served")
    else:
        parts["lost_device"] = lambda: lost_device(small, say)
        parts["served"] = lambda: serve(artifacts, say)
    for artifact in artifacts:
        for kind, texts in (("short texts", None), ("long texts", long_texts)):
            measure = partial(_bench_model, artifact, texts, say)
            parts[f"bench model {artifact.name}, {kind}"] = measure
    found: dict[str, Any] = {}
    for name, run in parts.items():
        if is_over():
            say(f"{name}: time is up, it was not tried")
            continue
        try:
            found[name] = run()
        except Exception as error:
            found[name] = {"failed": f"{type(error).__name__}: {error}"[-2000:]}
            say(f"{name}: FAILED {found[name]['failed']}")
    return found


def weights_once(artifact: Path, say: Say) -> dict[str, int]:
    """Return the bytes of the weights, and those of the device that every graph takes together:
    a lone text of each, which is recorded, and 32 texts of 16 tokens.
    """
    import torch

    opened = open_artifact(artifact)
    torch.cuda.synchronize()
    before_bytes = torch.cuda.mem_get_info()[0]
    backend = CudaBackend(opened)
    for output_set in opened.manifest.graphs:
        for lengths in ([7], [16] * 32):
            backend.run(output_set, speed.random_feeds(opened, lengths, 0))
    found = {
        "weights_bytes": opened.file("model.onnx.data").stat().st_size,
        "device_bytes": before_bytes - torch.cuda.mem_get_info()[0],
        "graphs": len(opened.manifest.graphs),
    }
    backend.close()
    say(f"the weights on the device once: {json.dumps(found)}")
    return found


def out_of_memory(artifact: Path, say: Say) -> list[dict[str, Any]]:
    """Run one micro-batch of 32 texts with less and less memory left on the device.

    Halves of it have to give the vectors that the whole gave.
    """
    import torch

    found = []
    feeds = speed.random_feeds(open_artifact(artifact), [512] * 32, 0)
    backend = CudaBackend(open_artifact(artifact), graphs=False)
    wanted = backend.run(MAIN_SET, feeds)[SENTENCE_EMBEDDING]
    for left_bytes in _LEFT_BYTES:
        backend.close()
        del backend
        gc.collect()
        torch.cuda.empty_cache()
        backend = CudaBackend(open_artifact(artifact), graphs=False)
        runs = _count_runs(backend)
        taken_bytes = max(0, torch.cuda.mem_get_info()[0] - left_bytes)
        taken = torch.empty(taken_bytes, dtype=torch.uint8, device="cuda")
        one: dict[str, Any] = {"left_bytes": torch.cuda.mem_get_info()[0]}
        try:
            made = backend.run(MAIN_SET, feeds)[SENTENCE_EMBEDDING]
            one["worst_difference"] = float(np.abs(made - wanted).max())
        except Exception as error:
            one["refused"] = f"{type(error).__name__}: {error}"[-900:]  # the cause comes last
        one["runs"] = len(runs)
        del taken
        found.append(one)
        say(f"{one['left_bytes'] / 1e6:,.0f} MB left on the device: {json.dumps(one)}")
    backend.close()
    del backend
    gc.collect()
    torch.cuda.empty_cache()
    return found


def _count_runs(backend: CudaBackend) -> list[int]:
    """Let a backend keep how many rows each of its runs had, those that fail too."""
    model, rows = backend._model(MAIN_SET), list[int]()
    run = model.run

    def counted(feeds: Any) -> Any:
        rows.append(len(next(iter(feeds.values()))))
        return run(feeds)

    model.run = counted  # type: ignore[method-assign]
    return rows


def serve(artifacts: Sequence[Path], say: Say) -> dict[str, Any]:
    """Serve artifacts together on the device, and put load on each."""
    found: dict[str, Any] = {}
    with _server(["poolc", "serve", *map(str, artifacts)]) as (url, _):
        for artifact in artifacts:
            with TemporaryDirectory() as folder:
                output = Path(folder) / "load.json"
                _command(
                    "bench", "serve", url, "--clients", _CLIENTS, "--model", str(artifact),
                    "--seconds", str(_SERVED_SECONDS), "--json", str(output),
                )  # fmt: skip
                found[artifact.name] = json.loads(output.read_text(encoding="utf-8"))
            for load, one in found[artifact.name].items():
                latency = one["latency_ms"]
                say(
                    f"served {artifact.name}, {load}: {one['requests_per_s']:,.0f} requests/s, "
                    f"p50 {latency['p50']:.1f} ms, p99 {latency['p99']:.1f} ms, {one['statuses']}"
                )
    return found


def lost_device(artifact: Path, say: Say) -> dict[str, Any]:
    """Break the device of a server's process.

    Readiness has to turn red, and once the model cannot be opened anew the process has to end by
    itself, with status 1, for whoever watches over it to start another.
    """
    found: dict[str, Any] = {}
    body = {"model": artifact.name, "input": "what is lost"}
    with _server(["benchmarks.gpu.losing", str(artifact)]) as (url, process):
        found["before"] = [_status(f"{url}/v1/embeddings", body), _status(f"{url}/ready")]
        assert process.stdin is not None
        process.stdin.write("lose\n")
        process.stdin.flush()
        until_s = time.monotonic() + _START_S
        found["ready"] = 200
        while found["ready"] == 200 and time.monotonic() < until_s:
            time.sleep(0.2)  # PyTorch takes seconds to get there
            found["ready"] = _status(f"{url}/ready")
        found["asked"] = [_status(f"{url}/v1/embeddings", body) for _ in range(8)]
        try:
            found["exit_code"] = process.wait(_ANSWER_S)
        except subprocess.TimeoutExpired:
            found["exit_code"] = "it did not end"
            found["live"] = _status(f"{url}/health")
    say(f"device lost: {json.dumps(found)}")
    return found


@contextmanager
def _server(command: Sequence[str]) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start a module that serves, with a port of its own; yield its address once it is ready."""
    port = free_port()
    asked = [sys.executable, "-m", *command, "--port", str(port), "--log-level", "warning"]
    process = subprocess.Popen(asked, stdin=subprocess.PIPE, text=True)
    url = f"http://127.0.0.1:{port}"
    try:
        until_s = time.monotonic() + _START_S
        while _status(f"{url}/ready") != 200:
            if process.poll() is not None or time.monotonic() > until_s:
                raise RuntimeError(f"{' '.join(asked)} is not ready, {process.poll()}")
            time.sleep(0.1)
        yield url, process
    finally:
        process.terminate()
        try:
            process.wait(_ANSWER_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _status(url: str, body: Any = None) -> int | str:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=_ANSWER_S) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError as error:
        return type(error).__name__


def _doctor(say: Say) -> str:
    told = _command("doctor")
    say(f"poolc doctor:\n{told}")
    return told


def _bench_model(artifact: Path, texts: Sequence[str] | None, say: Say) -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        output, file = Path(folder) / "found.json", Path(folder) / "texts.jsonl"
        options = []
        if texts is not None:
            lines = (json.dumps({"text": text}) for text in texts)
            file.write_text("\n".join(lines) + "\n", encoding="utf-8")
            options = ["--texts", str(file)]
        told = _command(
            "bench", "model", str(artifact), "--seconds", "3", "--json", str(output), *options
        )
        kind = "short texts" if texts is None else "long texts"
        say(f"poolc bench model {artifact.name}, {kind}:\n{told}")
        found: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
        return {"model": artifact.name, "kind": kind, **found}


def _command(*arguments: str) -> str:
    asked = [sys.executable, "-m", "poolc", *arguments]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=_COMMAND_S, check=False)
    if done.returncode and arguments != ("doctor",):
        raise RuntimeError(f"{' '.join(asked)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout
