"""The process: its address, what it imports, and how it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from poolc.errors import InvalidOption
from poolc.serve.listening import bind, bound
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


def test_replies_of_a_server_that_stops_end_their_connections(tiny_embedder: Path) -> None:
    with (
        server_process(tiny_embedder, GATED) as server,
        httpx.Client(base_url=server.url) as client,
        request_in_work(server) as reply,
    ):
        assert "connection" not in client.get("/health").headers
        server.process.send_signal(signal.SIGTERM)
        server.wait_for_log("stopping")
        for refused in (
            client.post("/v1/embeddings", json={"input": "text"}),
            client.get("/ready"),
        ):
            assert (refused.status_code, refused.headers["connection"]) == (503, "close")
        server.open_gate()
        assert reply.result(DEADLINE_S).headers["connection"] == "close"
        assert server.process.wait(DEADLINE_S) == 0


def test_stop_waits_for_no_request_that_is_still_sent(tiny_embedder: Path) -> None:
    """They were not let in; half of them come while it stops."""
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n"
    half = head + b"Content-Type: application/json\r\n\r\n{"
    with server_process(tiny_embedder, GATED, settings="{'drain_timeout_s': 1e6}") as server:
        url = httpx.URL(server.url)

        def connect(sent: bytes) -> socket.socket:
            made = socket.create_connection((url.host, url.port or 80), timeout=DEADLINE_S)
            made.sendall(sent)
            return made

        with ExitStack() as kept, request_in_work(server) as reply:
            early = [kept.enter_context(connect(sent)) for sent in (half, head, b"")]
            assert status(server, "GET", "/health") == 200  # by now what was sent is read
            server.process.send_signal(signal.SIGTERM)
            server.wait_for_log("stopping")
            late = kept.enter_context(connect(half))
            for one in (early[0], late):
                received = one.makefile("rb").read()  # to its end
                assert received.startswith(b"HTTP/1.1 503 ")
                assert b"\r\nconnection: close\r\n" in received
            server.open_gate()
            assert reply.result(DEADLINE_S).status_code == 200
            assert server.process.wait(DEADLINE_S) == 0
        assert server.process.stderr is not None
        assert "Traceback" not in server.process.stderr.read()


@pytest.mark.parametrize("put", ["", "/pool"])
def test_paths_behind_a_proxy(tiny_embedder: Path, put: str) -> None:
    """One that keeps what it puts before every path, and one that takes it away again."""
    settings = "{'root_path': '/pool', 'api_keys': ('k',)}"
    with (
        server_process(tiny_embedder, settings=settings) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        assert client.get(f"{put}/health").status_code == 200
        assert client.get(f"{put}/v1/models").status_code == 401
        client.headers["x-api-key"] = "k"
        assert client.post(f"{put}/embed", json={"inputs": "a fox"}).status_code == 200
        assert "/pool/openapi.json" in client.get(f"{put}/docs").text
        # Somewhere else: back to where the client sees it.
        assert client.get(f"{put}/version/").headers["location"].endswith("/pool/version")
        described = client.get(f"{put}/openapi.json").json()
        assert described["servers"] == [{"url": "/pool"}]
        assert "/v1/embeddings" in described["paths"]


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


# Unix sockets.


@pytest.fixture
def path() -> Iterator[str]:
    """Return where a socket can be: pytest's own folders have names that are too long."""
    with tempfile.TemporaryDirectory() as folder:
        yield f"{folder}/socket"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_unix_socket_is_taken_again(tiny_embedder: Path, path: str, workers: int) -> None:
    """After a stop, which takes its file away, and after a kill, which cannot."""
    settings = f"{{'uds': {path!r}, 'workers': {workers}}}"

    def asked() -> int:
        with httpx.Client(transport=httpx.HTTPTransport(uds=path)) as client:
            return client.get("http://poolc/health", timeout=DEADLINE_S).status_code

    with server_process(tiny_embedder, settings=settings) as server:
        assert asked() == 200
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(DEADLINE_S) == 0
        assert not os.path.lexists(path)
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(path)
    with server_process(tiny_embedder, settings=settings):
        assert asked() == 200


def test_bind_to_a_unix_socket_of_a_server_that_lives(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()
        with pytest.raises(InvalidOption, match=f"on {path}: a server listens there already; "):
            bind(Settings(uds=path))
        assert os.path.lexists(path)


def test_bind_to_what_is_no_unix_socket(path: str) -> None:
    Path(path).write_text("kept", encoding="utf-8")
    with pytest.raises(InvalidOption, match=f"on {path}: it is there, and no socket; choose"):
        bind(Settings(uds=path))
    assert Path(path).read_text(encoding="utf-8") == "kept"


def test_bind_to_a_unix_socket_in_no_folder(path: str) -> None:
    with pytest.raises(InvalidOption, match=f"there is no folder {path}; choose another --uds"):
        bind(Settings(uds=f"{path}/socket"))


def test_a_unix_socket_that_another_server_took_is_left_to_it(path: str) -> None:
    """Before the first one listened, nothing told it from one that was left behind."""
    with bound(Settings(uds=path)) as first, ExitStack() as longer:
        first.check_ours()
        longer.enter_context(bound(Settings(uds=path))).check_ours()
        with pytest.raises(InvalidOption, match="another server was started on it"):
            first.check_ours()
        rest = longer.pop_all()
    assert os.path.lexists(path)
    rest.close()
    assert not os.path.lexists(path)


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
