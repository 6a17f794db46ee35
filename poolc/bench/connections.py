"""Connections to one server that are kept between requests: what a load generator sends through.

HTTP/1.1 as llhttp reads it, and nothing beside: no redirects, cookies or compression. It has to
cost little, since who measures a server on the same machine takes its cores from it. Knows nothing
about what is asked, and counts nothing.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import SplitResult, urlsplit

from poolc.errors import InvalidOption, MissingDependency, PoolcError
from poolc.serve.descriptors import allow_many

if TYPE_CHECKING:
    import httptools

T = TypeVar("T")

_PORTS = {"http": 80, "https": 443}
_FIELD = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, section 5.6.2
_VALUE = re.compile(r"[\x20-\x7e\x80-\xff\t]*")  # section 5.5, as Latin-1


@dataclass(frozen=True, slots=True)
class Target:
    """The server, and what every request carries."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 60.0


class NoConnection(Exception):
    """No complete answer came: nothing listened, or the connection broke before its end."""


class Connections:
    """As many connections as there are requests at a time; the one used last is used next."""

    def __init__(self, target: Target) -> None:
        """Raise InvalidOption for an address or header fields that no request can carry."""
        self._url = target.url
        url = _address(target.url)
        self._host, self._port = str(url.hostname), url.port or _PORTS[url.scheme]
        self._tls = ssl.create_default_context() if url.scheme == "https" else None
        self._prefix = url.path.rstrip("/")
        self._fields = _fields({"Host": url.netloc, **target.headers})
        self._timeout_s = target.timeout_s
        self._parser = _parser()
        self._peer: tuple[str, int] | None = None  # what the name resolved to and answered
        self._idle: list[_Connection] = []
        self._opening: set[asyncio.Task[None]] = set()  # kept, or they could be collected

    def post(self, path: str, body: bytes) -> asyncio.Future[int]:
        """Send a request now; return what becomes its status once the whole answer is there.

        It fails with NoConnection, or with TimeoutError once the target's time is over.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[int] = loop.create_future()
        late = loop.call_later(self._timeout_s, _fail, answer, TimeoutError())
        answer.add_done_callback(lambda _: late.cancel())
        head = f"POST {self._prefix}{path} HTTP/1.1\r\n{self._fields}Content-Length: {len(body)}"
        content = b"%b\r\n\r\n%b" % (head.encode("latin-1"), body)
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                connection.send(content, answer)
                return answer
        opening = loop.create_task(self._open(content, answer))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)
        return answer

    async def check(self) -> None:
        """Connect, and keep the connection. Raises PoolcError where nothing answers."""
        try:
            async with asyncio.timeout(self._timeout_s):
                self._idle.append(await self._connected())
        except OSError as error:
            said = str(error) or f"not within {self._timeout_s:g} s"
            raise PoolcError(
                f"nothing answers at {self._url}: start the server, or give its address ({said})"
            ) from error

    def close(self) -> None:
        """Close connections that wait for nothing."""
        while self._idle:
            self._idle.pop().close()

    async def _open(self, content: bytes, answer: asyncio.Future[int]) -> None:
        try:
            connection = await self._connected()
        except OSError as error:
            _fail(answer, NoConnection(str(error)))
            return
        if answer.done():  # it took too long
            connection.close()
        else:
            connection.send(content, answer)

    async def _connected(self) -> _Connection:
        loop = asyncio.get_running_loop()
        # A name is looked up once: it would be done on a thread each time.
        host, port = self._peer or (self._host, self._port)
        name = self._host if self._tls else None
        transport, connection = await loop.create_connection(
            lambda: _Connection(self._parser, self._idle.append),
            host, port, ssl=self._tls, server_hostname=name,
        )  # fmt: skip
        host, port, *scope = transport.get_extra_info("peername")
        self._peer = None if any(scope) else (host, port)
        return connection


class _Connection(asyncio.Protocol):
    """One request at a time; ``kept`` is told when it can take the next one."""

    def __init__(
        self, parser: Callable[[object], httptools.HttpResponseParser],
        kept: Callable[[_Connection], None],
    ) -> None:  # fmt: skip
        self.is_open = False
        self._make_parser, self._kept = parser, kept
        self._parser = parser(self)
        self._transport: asyncio.Transport
        self._answer: asyncio.Future[int] | None = None
        self._has_head = False
        self._has_length = False  # whether a field says where the body ends

    def send(self, content: bytes, answer: asyncio.Future[int]) -> None:
        """Send a whole request; ``answer`` becomes the status of its reply."""
        self._answer = answer
        self._has_head = self._has_length = False
        answer.add_done_callback(self._given_up)
        self._transport.write(content)

    def close(self) -> None:
        """Close; nothing more is sent or read."""
        self.is_open = False
        self._transport.abort()

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self.is_open = cast("asyncio.Transport", transport), True

    def data_received(self, data: bytes) -> None:
        if self._answer is None:  # nobody asked: a server that closes may say why
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except Exception as error:  # httptools' errors; whatever it is, somebody waits
            self._broken(f"not HTTP: {error!r}")

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        if error is None and self._has_head and not self._has_length:
            self._done(self._parser.get_status_code())
        else:
            self._broken(str(error or "closed before the answer was complete"))

    # Called by the parser.

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._has_length = True

    def on_headers_complete(self) -> None:
        self._has_head = True

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:  # the answer itself is still to come
            return
        kept = self._parser.should_keep_alive()
        self._done(status)
        if not kept:
            self.close()
        elif self.is_open:
            self._kept(self)

    def _done(self, status: int) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_result(status)

    def _broken(self, said: str) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            _fail(answer, NoConnection(said))
            self.close()

    def _given_up(self, answer: asyncio.Future[int]) -> None:
        if answer is self._answer:  # its time is over: what comes now would be taken for the next
            self._answer = None
            self.close()


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a load on the event loop that costs least of those that are there."""
    allow_many()
    try:
        import uvloop
    except ModuleNotFoundError:  # not made for every platform
        return asyncio.run(coroutine)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(coroutine)


def _fail(answer: asyncio.Future[int], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)


def _address(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        known = parts.scheme in _PORTS and parts.hostname and parts.username is None
        if known and (parts.port or 1) > 0:
            return parts
    except ValueError:  # of the port, or of brackets
        pass
    raise InvalidOption(
        f"the server's address is {url!r}; allowed: http://HOST:PORT or https://HOST:PORT",
        param="url",
    )


def _fields(headers: Mapping[str, str]) -> str:
    for name, value in headers.items():
        if not _FIELD.fullmatch(name) or not _VALUE.fullmatch(value):
            raise InvalidOption(
                f"the header field {name} holds characters that no request can carry (a line "
                "break, or a script other than Latin-1)",
                param="headers",
            )
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())


def _parser() -> Callable[[object], httptools.HttpResponseParser]:
    try:
        import httptools
    except ModuleNotFoundError as error:
        raise MissingDependency(
            'load needs httptools, which is not installed: pip install "poolc[bench]"'
        ) from error
    return httptools.HttpResponseParser
