"""Clients that mean harm or are broken: whatever they send, the next good request is answered."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import pytest

from poolc.runtime.engine import Engine
from tests.serve.processes import ServerProcess, server_process

DEADLINE_S = 30
# What a connection may cost the server while somebody misuses it.
MOST_GROWTH_BYTES = 200 << 20


@pytest.fixture(scope="module")
def server(tiny_embedder: Path) -> Iterator[ServerProcess]:
    with server_process(tiny_embedder) as server:
        yield server


@pytest.fixture
def connect(server: ServerProcess) -> Iterator[Callable[[], socket.socket]]:
    """Open connections that are closed when the test ends."""
    url, made = httpx.URL(server.url), list[socket.socket]()

    def make() -> socket.socket:
        made.append(socket.create_connection((url.host, url.port or 80), timeout=DEADLINE_S))
        return made[-1]

    yield make
    for connection in made:
        connection.close()


@pytest.fixture(autouse=True)
def _answers_afterwards(server: ServerProcess, embedder: Engine) -> Iterator[None]:
    """After every test: the same server answers correctly, and has not grown."""
    before = resident_bytes(server)
    yield
    response = httpx.post(
        f"{server.url}/v1/embeddings", json={"input": "a fox"}, timeout=DEADLINE_S
    )
    (entry,) = response.json()["data"]
    wanted = embedder.embed("a fox", prompt="")[0]
    assert np.array_equal(np.array(entry["embedding"], np.float32), wanted)
    assert resident_bytes(server) - before < MOST_GROWTH_BYTES


def resident_bytes(server: ServerProcess) -> float:
    """Return the memory that the server says it takes."""
    lines = httpx.get(f"{server.url}/metrics", timeout=DEADLINE_S).text.splitlines()
    (line,) = (one for one in lines if one.startswith("process_resident_memory_bytes "))
    return float(line.split()[1])


def head(length: int | str, *lines: str) -> bytes:
    """Return the head of a request for vectors."""
    fields = ("Host: poolc", "Content-Type: application/json", f"Content-Length: {length}", *lines)
    return "\r\n".join(("POST /v1/embeddings HTTP/1.1", *fields, "", "")).encode()


def status(connection: socket.socket) -> int:
    """Return the status of a reply; 0 where the server closed without one."""
    received = connection.recv(65536)
    return int(received.split()[1]) if received else 0


def post(server: ServerProcess, content: bytes) -> httpx.Response:
    headers = {"content-type": "application/json"}
    url = f"{server.url}/v1/embeddings"
    return httpx.post(url, content=content, headers=headers, timeout=DEADLINE_S)


def test_bodies_that_never_end(connect: Callable[[], socket.socket]) -> None:
    for _ in range(50):
        connect().sendall(head(1000) + b'{"input": "')


def test_body_that_is_half_closed(connect: Callable[[], socket.socket]) -> None:
    connection = connect()
    connection.sendall(head(1000) + b'{"input": "')
    connection.shutdown(socket.SHUT_WR)
    assert status(connection) in (0, 400)


def test_body_of_a_gigabyte_in_chunks(connect: Callable[[], socket.socket]) -> None:
    """Nothing says how long it will be."""
    connection = connect()
    fields = ("Host: poolc", "Content-Type: application/json", "Transfer-Encoding: chunked")
    connection.sendall("\r\n".join(("POST /embed HTTP/1.1", *fields, "", "")).encode())
    sent, piece = 0, b"100000\r\n" + b"x" * (1 << 20) + b"\r\n"
    with suppress(OSError):
        while sent < 1 << 30:
            connection.sendall(piece)
            sent += len(piece)
    assert sent < 1 << 28


def test_body_of_a_gigabyte(connect: Callable[[], socket.socket]) -> None:
    connection = connect()
    connection.sendall(head(1 << 30))
    piece = b"x" * (1 << 20)
    sent = 0
    with suppress(OSError):  # closed, once it was too much
        while sent < 1 << 30:
            connection.sendall(piece)
            sent += len(piece)
    assert sent < 1 << 28


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"input": NaN}',
        b'{"input": "a", "dimensions": 1e999}',
        b'{"input": "\xff\xfe"}',
        b'{"input": "\\ud800"}',
        b'{"input": 1e400}',
        json.dumps({"input": [""] * 100_000}).encode(),
        json.dumps({"input": ["a"] * 100_000}).encode(),
        json.dumps({"input": [[]] * 1000}).encode(),
        json.dumps({"input": [2**70]}).encode(),
        json.dumps({"input": "a", "priority": 10**30}).encode(),
        b"",
        b"null",
        b"\x00" * 1000,
    ],
    ids=lambda content: repr(bytes(content[:24])),
)
def test_bodies_that_are_refused(server: ServerProcess, content: bytes) -> None:
    response = post(server, content)
    assert response.status_code == 400, response.text[:200]
    assert response.json()["error"]["code"] == 400


def test_text_of_many_characters(server: ServerProcess) -> None:
    response = post(server, json.dumps({"input": "fox " * 1_000_000}).encode())
    assert response.status_code == 400
    body = {"input": "fox " * 1_000_000, "truncate_prompt_tokens": -1}
    assert post(server, json.dumps(body).encode()).status_code in (200, 400)


def test_flood_of_header_fields(connect: Callable[[], socket.socket]) -> None:
    connection = connect()
    fields = [f"X-Field-{i}: {'v' * 200}" for i in range(20_000)]
    with suppress(OSError):  # closed in the middle of it
        connection.sendall(head(13, *fields) + b'{"input":"a"}')
        assert status(connection) in (0, 400, 431)


def test_fields_without_an_end_behind_a_body(connect: Callable[[], socket.socket]) -> None:
    connection = connect()
    chunked = b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    fields = b"".join(b"X-%d: %s\r\n" % (i, b"v" * 200) for i in range(20_000))
    with suppress(OSError):  # closed in the middle of it
        connection.sendall(chunked + b'd\r\n{"input":"a"}\r\n0\r\n' + fields)
        assert status(connection) in (0, 200, 400, 431)


@pytest.mark.parametrize("sent", [b"X-Field: " + b"v" * (1 << 20), b"\r\n" * (1 << 20)])
def test_a_head_that_does_not_end(connect: Callable[[], socket.socket], sent: bytes) -> None:
    connection = connect()
    with suppress(OSError):
        connection.sendall(b"POST /v1/embeddings HTTP/1.1\r\n" + sent)
        assert status(connection) in (0, 400, 431)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01",  # TLS
        b"GET / HTTP/9.9\r\n\r\n",
        b"NONSENSE\r\n\r\n",
        b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\r\n" * 1000,
    ],
)
def test_what_is_no_request(connect: Callable[[], socket.socket], sent: bytes) -> None:
    connection = connect()
    connection.sendall(sent)
    connection.shutdown(socket.SHUT_WR)
    with suppress(ConnectionError):
        assert status(connection) in (0, 400, 404, 405, 415, 505)


CHUNKED = b"Transfer-Encoding: chunked"


def asking_for(protocol: str, *fields: bytes, connection: str = "Upgrade") -> bytes:
    """Return the head of a request for vectors that asks to change to another protocol."""
    own = f"POST /v1/embeddings HTTP/1.1\r\nHost: poolc\r\nUpgrade: {protocol}\r\n"
    own += f"Connection: {connection}\r\nContent-Type: application/json\r\n"
    return own.encode() + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


def replies(connection: socket.socket, sent: bytes) -> list[int]:
    """Send requests of which the last one ends the connection; return the status of each reply."""
    connection.sendall(sent)
    received = b""
    while part := connection.recv(65536):
        received += part
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d+) ", received)]


@pytest.mark.parametrize("protocol", ["h2c", "websocket", "TLS/1.0, other"])
@pytest.mark.parametrize("apart", [True, False])
def test_who_asks_for_another_protocol_is_answered_in_this_one(
    connect: Callable[[], socket.socket], protocol: str, apart: bool
) -> None:
    """And the body is a body, in whatever segment: what it holds is no request of its own."""
    inner = head(13, "Connection: close") + b'{"input":"z"}'
    first = asking_for(protocol, b"HTTP2-Settings: AAMAAABk", b"Content-Length: %d" % len(inner))
    connection = connect()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if apart:
        connection.sendall(first)
        first = b""
    last = b"GET /health HTTP/1.1\r\nHost: poolc\r\nConnection: close\r\n\r\n"
    assert replies(connection, first + inner + last) == [400, 200]


def test_who_asks_for_another_protocol_has_a_body_in_chunks_and_more_requests(
    connect: Callable[[], socket.socket],
) -> None:
    body = b'6\r\n{"inpu\r\n7\r\nt":"a"}\r\n0\r\n\r\n'
    get = b"GET /health HTTP/1.1\r\nHost: poolc\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"
    last = asking_for("h2c", CHUNKED, connection="Upgrade, close, HTTP2-Settings")
    sent = asking_for("h2c", CHUNKED) + body + get + head(13) + b'{"input":"b"}' + last + body
    # What comes behind the last one is passed over.
    assert replies(connect(), sent + get) == [200] * 4


def test_a_proxy_is_not_what_this_is(connect: Callable[[], socket.socket]) -> None:
    sent = b"CONNECT elsewhere.example:443 HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n"
    assert replies(connect(), sent) == [400]


@pytest.mark.parametrize("sent", [b"X-Field: " + b"v" * (1 << 20), b"X: y\r\n" * (1 << 18)])
def test_a_head_that_does_not_end_of_who_asks_for_another_protocol(
    connect: Callable[[], socket.socket], sent: bytes
) -> None:
    connection = connect()
    with suppress(OSError):
        connection.sendall(asking_for("h2c")[:-2] + sent)
        assert status(connection) in (0, 400, 431)


def test_clients_that_leave(server: ServerProcess, connect: Callable[[], socket.socket]) -> None:
    body = json.dumps({"input": ["a text of some length"] * 200}).encode()
    for _ in range(50):
        connection = connect()
        connection.sendall(head(len(body)) + body)
        connection.close()
    loads = httpx.get(f"{server.url}/load", timeout=DEADLINE_S).json()["server_load"]
    assert loads <= 50
