"""Connections of the load generator: kept, given up, and broken in every way a server can."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from poolc.bench.connections import Connections, NoConnection, Target, run
from poolc.errors import InvalidOption

DONE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Replies:
    """A server that answers each request with the next bytes of a list, then with ``DONE``."""

    def __init__(self, *replies: bytes | None) -> None:
        self.replies = list(replies)  # None: nothing is answered
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.connections = 0
        self.closes = False  # after each reply
        self.url = ""
        self._open: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            for writer in tuple(self._open):
                writer.close()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                length = int(head.lower().partition(b"content-length:")[2].split()[0])
                self.bodies.append(await reader.readexactly(length))
                reply = self.replies.pop(0) if self.replies else DONE
                if reply is not None:
                    writer.write(reply)
                if self.closes:
                    break
        self._open.discard(writer)
        writer.close()


def talk(
    server: Replies, ask: Callable[[Connections], Awaitable[None]], timeout_s: float = 20.0
) -> None:
    """Run ``ask`` with connections to ``server``."""

    async def main() -> None:
        async with server.listening() as url:
            connections = Connections(Target(f"{url}/prefix/", {"X-Own": "a"}, timeout_s))
            try:
                await ask(connections)
            finally:
                connections.close()
                await asyncio.sleep(0)

    run(main())


def test_one_connection_is_enough_for_one_at_a_time() -> None:
    server = Replies()

    async def ask(connections: Connections) -> None:
        assert [await connections.post("/embed", b"body") for _ in range(3)] == [200] * 3
        assert server.connections == 1
        assert await asyncio.gather(*(connections.post("/embed", b"") for _ in range(2)))
        assert server.connections == 2

    talk(server, ask)
    assert server.bodies == [b"body"] * 3 + [b""] * 2
    line, *fields = server.heads[0].decode().splitlines()
    assert line == "POST /prefix/embed HTTP/1.1"
    assert "X-Own: a" in fields and any(field.startswith("Host: 127.0.0.1:") for field in fields)


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n", 429),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 200),
        (b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + DONE, 200),
    ],
    ids=["empty", "chunked", "hints"],
)
def test_answers_that_leave_the_connection_open(reply: bytes, status: int) -> None:
    server = Replies(reply)

    async def ask(connections: Connections) -> None:
        assert await connections.post("/", b"") == status
        assert await connections.post("/", b"") == 200

    talk(server, ask)
    assert server.connections == 1


@pytest.mark.parametrize(
    "reply",
    [b"HTTP/1.0 200 OK\r\n\r\n{}", b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", DONE],
    ids=["1.0", "told", "untold"],
)
def test_answers_after_which_the_server_closes(reply: bytes) -> None:
    server = Replies(*[reply] * 3)
    server.closes = True

    async def ask(connections: Connections) -> None:
        for _ in range(3):
            assert await connections.post("/", b"") == 200
            # Whoever sends on a connection that is being closed gets no answer.
            while any(kept.is_open for kept in connections._idle):
                await asyncio.sleep(0)

    talk(server, ask)
    assert server.connections == 3


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}",
        b"\x15\x03\x03\x00\x02\x02\x16",
    ],
    ids=["nothing", "head", "body", "chunk", "no HTTP"],
)
def test_answers_that_are_not_complete(reply: bytes) -> None:
    server = Replies(DONE, reply)  # on a connection whose answer before was complete

    async def ask(connections: Connections) -> None:
        assert await connections.post("/", b"") == 200
        server.closes = True
        with pytest.raises(NoConnection):
            await connections.post("/", b"")

    talk(server, ask)


def test_what_comes_too_late_is_nobody_elses() -> None:
    server = Replies(None)

    async def ask(connections: Connections) -> None:
        with pytest.raises(TimeoutError):
            await connections.post("/", b"")
        assert await connections.post("/", b"") == 200

    talk(server, ask, timeout_s=0.2)
    assert server.connections == 2


def test_nobody_listens() -> None:
    async def main() -> None:
        async with Replies().listening() as url:
            pass
        with pytest.raises(NoConnection):
            await Connections(Target(url)).post("/", b"")

    run(main())


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("127.0.0.1:8000", {}),
        ("ftp://host", {}),
        ("http://", {}),
        ("http://host:port", {}),
        ("http://host:99999", {}),
        ("http://[::1", {}),
        ("http://user:secret@host", {}),
        ("http://host", {"Authorization": "a\r\nX: b"}),
        ("http://host", {"Authorization": "Bearer \u20ac"}),
        ("http://host", {"a b": "c"}),
    ],
)
def test_addresses_and_fields_that_cannot_be_sent(url: str, headers: dict[str, str]) -> None:
    with pytest.raises(InvalidOption):
        Connections(Target(url, headers))
