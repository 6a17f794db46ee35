"""Until when a connection may wait for a request: which deadline stands after which bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvicorn
from uvicorn.server import ServerState

from poolc.serve.app import create_app
from poolc.serve.protocol import BoundedProtocol
from poolc.serve.settings import Settings
from tests.serve.conftest import MakeFake

HEAD = b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
BODY = b'{"input": "a"}'
REST = b"Content-Length: %d\r\n\r\n" % len(BODY)


class _Wire(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def deadline(protocol: BoundedProtocol) -> asyncio.TimerHandle | None:
    return protocol.timeout_keep_alive_task


@pytest.fixture
def connect(make_fake: MakeFake) -> Callable[[], BoundedProtocol]:
    app = create_app({"m": make_fake().engine}, Settings())

    def made() -> BoundedProtocol:
        config = uvicorn.Config(app, http=BoundedProtocol, lifespan="off", log_config=None)
        config.load()
        protocol = BoundedProtocol(config, ServerState(), {}, asyncio.get_running_loop())
        protocol.connection_made(_Wire())
        return protocol

    return made


def test_a_head_has_one_deadline_however_often_a_part_comes(
    connect: Callable[[], BoundedProtocol],
) -> None:
    async def main() -> None:
        protocol = connect()
        opened = deadline(protocol)
        assert opened is not None  # also for who sends nothing
        protocol.data_received(HEAD[:5])
        begun = deadline(protocol)
        assert begun is not None
        assert begun is not opened  # who waited long before has as long for it as anybody
        protocol.data_received(HEAD[5:])
        assert deadline(protocol) is begun
        protocol.timeout_keep_alive_handler()
        assert protocol.transport.is_closing()
        protocol.connection_lost(None)

    asyncio.run(main())


def test_a_request_in_work_has_no_deadline(connect: Callable[[], BoundedProtocol]) -> None:
    async def main() -> None:
        protocol = connect()
        wire = protocol.transport
        assert isinstance(wire, _Wire)
        protocol.data_received(HEAD)
        protocol.data_received(REST)
        assert deadline(protocol) is None
        protocol.data_received(BODY)
        # Nor has it one where half of the next head is there; that one waits from the reply on.
        protocol.data_received(HEAD)
        assert deadline(protocol) is None
        (working,) = protocol.tasks
        await working
        assert wire.written.startswith(b"HTTP/1.1 200 ")
        waiting = deadline(protocol)
        assert waiting is not None
        protocol.data_received(REST[:5])
        assert deadline(protocol) is waiting
        protocol.data_received(REST[5:] + BODY)
        assert deadline(protocol) is None
        (working,) = protocol.tasks
        await working
        protocol.connection_lost(ConnectionResetError())
        assert deadline(protocol) is None

    asyncio.run(main())
