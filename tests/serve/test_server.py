"""The process: its address, what it imports, and how it ends."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from poolc.errors import InvalidOption
from poolc.serve.listening import bind
from poolc.serve.settings import Settings
from tests.serve.processes import GATED, LOST, ROOT, ServerProcess, server_process

DEADLINE_S = 30


@contextmanager
def request_in_work(server: ServerProcess) -> Iterator[Future[httpx.Response]]:
    """Send a request to a gated server, and yield once its micro-batch runs."""
    with ThreadPoolExecutor(1) as threads:
        url = f"{server.url}/v1/embeddings"
        reply = threads.submit(httpx.post, url, json={"input": "text"}, timeout=DEADLINE_S)
        server.wait_for_micro_batch()
        yield reply


def status(server: ServerProcess, method: str, path: str) -> int:
    return httpx.request(method, server.url + path, json={"input": "text"}).status_code


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_stop_when_idle(tiny_embedder: Path, sign: signal.Signals) -> None:
    with server_process(tiny_embedder) as server:
        assert status(server, "GET", "/ready") == 200
        server.process.send_signal(sign)
        assert server.process.wait(DEADLINE_S) == 0


def test_stop_finishes_what_was_let_in(tiny_embedder: Path) -> None:
    with server_process(tiny_embedder, GATED) as server, request_in_work(server) as reply:
        server.process.send_signal(signal.SIGTERM)
        server.wait_for_log("stopping")
        assert status(server, "GET", "/ready") == 503
        assert status(server, "POST", "/v1/embeddings") == 503
        assert status(server, "GET", "/health") == 200
        server.open_gate()
        assert reply.result(DEADLINE_S).status_code == 200
        assert server.process.wait(DEADLINE_S) == 0


def test_stop_gives_up_at_the_deadline(tiny_embedder: Path) -> None:
    settings = "{'drain_timeout_s': 0.1}"
    with (
        server_process(tiny_embedder, GATED, settings=settings) as server,
        request_in_work(server) as reply,
    ):
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(DEADLINE_S) == 1
        assert reply.result(DEADLINE_S).status_code == 503


def test_stop_at_once_on_a_second_signal(tiny_embedder: Path) -> None:
    with server_process(tiny_embedder, GATED) as server, request_in_work(server) as reply:
        server.process.send_signal(signal.SIGTERM)
        server.wait_for_log("stopping")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(DEADLINE_S) == 128 + signal.SIGTERM
        assert isinstance(reply.exception(DEADLINE_S), httpx.TransportError)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/ready"])
def test_a_process_whose_device_is_lost_ends_for_another_to_be_started(
    tiny_embedder: Path, path: str
) -> None:
    """Also where nothing but the probe asks: who is not ready is sent nothing else."""
    method, expected = ("GET", 503) if path == "/ready" else ("POST", 500)
    with server_process(tiny_embedder, LOST) as server:
        assert status(server, method, path) == 200
        server.process.send_signal(signal.SIGUSR1)
        assert [status(server, method, path) for _ in range(3)] == [expected] * 3
        server.wait_for_log("cuda:0 is lost; only another process can use it again: this one ends")
        assert server.process.wait(DEADLINE_S) == 1


def test_bind_taken_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(InvalidOption, match=f"cannot listen on 127.0.0.1, port {port}: Addr"):
            bind(Settings(port=port))


def test_bind_unknown_host() -> None:
    with pytest.raises(InvalidOption, match=r"cannot listen on no\.such\.host\.invalid"):
        bind(Settings(host="no.such.host.invalid"))


def test_bind_localhost_is_ipv4() -> None:
    with bind(Settings(host="localhost", port=0)) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


def test_server_imports_no_compiler(tiny_embedder: Path) -> None:
    code = f"""
import sys, poolc, poolc.serve.server
from poolc.serve.app import create_app
from poolc.serve.settings import Settings
create_app({{"m": poolc.load({str(tiny_embedder)!r})}}, Settings())
heavy = ("torch", "transformers", "sentence_transformers", "poolc.compiler", "onnx")
print([name for name in heavy if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
