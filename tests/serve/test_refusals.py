"""A full server's refusals on a real socket: what they say, and what becomes of the connection."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.client import HTTPResponse
from io import BytesIO
from typing import Any, NamedTuple

import pytest
import uvicorn
from fastapi import FastAPI
from uvicorn.server import ServerState

from poolc.serve.app import create_app
from poolc.serve.protocol import BoundedProtocol
from poolc.serve.settings import Settings
from tests.serve.conftest import MakeFake, client_of
from tests.serve.fakes import PATIENCE_S, FakeEngine

BODY = b'{"input": "a text"}'


class Reply(NamedTuple):
    status: int
    fields: dict[str, str]
    body: Any


class Wire:
    """A connection on which a test writes bytes and reads replies."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, path: str = "/v1/embeddings", *fields: str, body: bytes = BODY) -> None:
        self.send_head(path, *fields, length=len(body))
        self.writer.write(body)

    def send_head(self, path: str, *fields: str, length: int, version: str = "1.1") -> None:
        own = ("Host: a", "Content-Type: application/json", f"Content-Length: {length}")
        lines = (f"POST {path} HTTP/{version}", *own, *fields, "", "")
        self.writer.write("\r\n".join(lines).encode())

    async def reply(self) -> Reply:
        async with asyncio.timeout(PATIENCE_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            parsed = HTTPResponse(_Read(head))  # type: ignore[arg-type]
            parsed.begin()
            body = await self.reader.readexactly(int(parsed.headers["content-length"]))
        fields = {name.lower(): value for name, value in parsed.getheaders()}
        return Reply(parsed.status, fields, json.loads(body))

    async def is_closed(self) -> bool:
        async with asyncio.timeout(PATIENCE_S):
            return not await self.reader.read()


class _Read(BytesIO):
    def makefile(self, mode: str) -> BytesIO:
        return self


def app_of(fake: FakeEngine, *, full: bool = True, **settings: Any) -> FastAPI:
    app = create_app({"m": fake.engine}, Settings(max_queued_tokens=50, **settings))
    if full:
        app.state.registry.models[0].scheduler.admission.queued_tokens = 50
    return app


@asynccontextmanager
async def connected(app: FastAPI, **options: Any) -> AsyncIterator[Wire]:
    config = uvicorn.Config(app, http=BoundedProtocol, lifespan="off", log_config=None, **options)
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: BoundedProtocol(config, state, {}), "127.0.0.1", 0
    )  # fmt: skip
    wire = Wire(*await asyncio.open_connection(*server.sockets[0].getsockname()))
    try:
        yield wire
    finally:
        wire.writer.close()
        server.close()
        while state.connections:
            await asyncio.sleep(0)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embed?truncate=1", "/v2/embed", "/api/embed"])
def test_a_refusal_by_the_head_is_what_the_application_says(make_fake: MakeFake, path: str) -> None:
    app = app_of(make_fake(), served_model_names=("m",))

    async def main() -> None:
        async with connected(app) as wire, client_of(app) as client:
            wire.send(path, "X-Request-Id: mine")
            reply = await wire.reply()
            wanted = await client.post(path, content=BODY, headers={"x-request-id": "mine"})
        assert reply.status == wanted.status_code == 429
        assert reply.body == wanted.json()
        assert reply.fields == dict(wanted.headers)

    asyncio.run(main())
    assert not app.state.registry.models[0].scheduler.open


def test_the_connection_goes_on_behind_a_body_that_comes_later(make_fake: MakeFake) -> None:
    async def main() -> None:
        async with connected(app_of(make_fake())) as wire:
            wire.send_head("/embed", length=len(BODY))
            first = await wire.reply()
            wire.writer.write(BODY)
            wire.send("/embed")
            second = await wire.reply()
            wire.writer.write(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await wire.reply()).body == {"status": "ok"}
        assert (first.status, second.status) == (429, 429)
        assert first.fields["x-request-id"] != second.fields["x-request-id"]
        assert int(first.fields["retry-after"]) >= 1

    asyncio.run(main())


def test_replies_keep_the_order_of_their_requests(make_fake: MakeFake) -> None:
    """The second is refused, but not before the first is answered."""
    fake = make_fake(streams=1)
    fake.hold()

    async def main() -> None:
        app = app_of(fake, full=False)
        async with connected(app) as wire, connected(app) as other:
            wire.send()
            await asyncio.to_thread(fake.wait_until_started, 1)
            app.state.registry.models[0].scheduler.admission.queued_tokens += 50
            wire.send()
            wire.send("/embed")
            other.send()
            assert (await other.reply()).status == 429  # by now both were read
            fake.release()
            assert [(await wire.reply()).status for _ in range(3)] == [200, 429, 429]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("version", "fields"),
    [("1.0", ()), ("1.1", ("Connection: close",)), ("1.1", ("Expect: 100-continue",))],
)
def test_connections_that_end_with_the_refusal(
    make_fake: MakeFake, version: str, fields: tuple[str, ...]
) -> None:
    async def main() -> None:
        async with connected(app_of(make_fake())) as wire:
            wire.send_head("/embed", *fields, length=10, version=version)
            reply = await wire.reply()
            assert (reply.status, reply.fields["connection"]) == (429, "close")
            assert await wire.is_closed()

    asyncio.run(main())


@pytest.mark.parametrize("full", [False, True])
def test_nobody_is_asked_for_a_body_by_a_server_that_stops(make_fake: MakeFake, full: bool) -> None:
    async def main() -> None:
        app = app_of(make_fake(), full=full)
        app.state.stopping = True
        async with connected(app) as wire:
            wire.send_head("/embed", "Expect: 100-continue", length=10)
            reply = await wire.reply()
            assert (reply.status, reply.fields["connection"]) == (429 if full else 503, "close")
            assert await wire.is_closed()

    asyncio.run(main())


def test_probes_are_answered_by_a_full_server(make_fake: MakeFake) -> None:
    async def main() -> None:
        async with connected(app_of(make_fake())) as wire:
            wire.send("/ping")
            assert (await wire.reply()).status == 200

    asyncio.run(main())


@pytest.mark.parametrize("put", ["", "/pool"])
def test_paths_behind_a_proxy(make_fake: MakeFake, put: str) -> None:
    """One that keeps what stands before a path, and one that takes it away."""

    async def main() -> None:
        async with connected(app_of(make_fake()), root_path="/pool") as wire:
            wire.send(f"{put}/ping")
            assert (await wire.reply()).status == 200
            wire.send(f"{put}/embed")
            assert (await wire.reply()).body["error_type"] == "Overloaded"
            wire.writer.write(f"GET {put}/health HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            assert (await wire.reply()).status == 200

    asyncio.run(main())


def test_refusals_are_counted_and_logged(
    make_fake: MakeFake, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "poolc.access")

    async def main() -> None:
        app = app_of(make_fake())
        async with connected(app) as wire:
            wire.send("/embed", "X-Request-Id: mine")
            wire.send("/embed", "X-Request-Id: other", "X-Forwarded-For: 10.1.2.3")
            assert [(await wire.reply()).status for _ in range(2)] == [429, 429]
        shown = app.state.metrics.exposition().decode()
        assert 'poolc_rejections_total{reason="Overloaded"} 2.0' in shown
        assert 'poolc_requests_total{path="(other)",status="429"} 2.0' in shown

    asyncio.run(main())
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("127.0.0.1 POST /embed 429 ") and first.endswith(" mine")
    assert second.startswith("10.1.2.3 POST /embed 429 ") and second.endswith(" other")


def test_web_pages_may_read_their_refusals(make_fake: MakeFake) -> None:
    async def main() -> None:
        app = app_of(make_fake(), allowed_origins=("https://page.example",))
        async with connected(app) as wire:
            wire.send("/embed", "Origin: https://page.example")
            reply = await wire.reply()
        assert reply.status == 429
        assert reply.fields["access-control-allow-origin"] == "https://page.example"

    asyncio.run(main())
