"""HTTP as llhttp reads it, with a bound on what is not a body, and a full server's refusals."""

from __future__ import annotations

import asyncio
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from poolc.serve.middleware import is_stopping
from poolc.serve.refusals import Head, Refusals

# Of a request line with all header fields, and of the fields after a chunked body: what uvicorn's
# other parser allows.
MAX_HEAD_BYTES = 64 << 10


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's faster protocol, which alone keeps header fields however many come.

    Who asks to change to another protocol (``Upgrade``) is answered in this one, as RFC 9110 has
    it: Java's own client and curl's ``--http2`` ask at their first request.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # The application itself: what uvicorn puts around has no state.
        application: Any = self.config.app
        self._application = application
        self._refusals: Refusals | None = application.state.refusals
        self._unread_bytes = 0  # since a head, a part of a body or a message was complete
        self._in_head = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request; see uvicorn."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """End what was begun; see uvicorn."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()  # it would hold what is left of a broken one

    def data_received(self, data: bytes) -> None:
        """Read what came; close where a head does not end."""
        if not self._in_head:  # one has to be whole in time, however often a part of it comes
            self._unset_keepalive_if_required()
        self._unread_bytes += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self._refuse("Invalid HTTP request received.")
        else:
            if self._unread_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self.send_400_response("The header fields are too long.")
            elif self.cycle is None or self.cycle.response_complete:
                self._expect_head()

    def _expect_head(self) -> None:
        """Close the connection unless a request's head is whole in time."""
        if self.timeout_keep_alive_task is None and not self.transport.is_closing():
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _feed(self, data: bytes) -> None:
        """Let the parser read; raises what it raises for what is no HTTP."""
        rest = memoryview(data)
        while rest:
            try:
                self.parser.feed_data(rest)
            except httptools.HttpParserUpgrade as asked:
                if self.parser.get_method() == b"CONNECT":  # another protocol, whatever its fields
                    self._refuse("CONNECT is for proxies.")
                    return
                head = self._head_without_upgrade()
                self.parser = _parser_for(self)
                self.parser.feed_data(head)
                rest = rest[asked.args[0] :]
            else:
                return

    def _refuse(self, message: str) -> None:
        self.logger.warning(message)
        self.send_400_response(message)

    def _head_without_upgrade(self) -> bytes:
        """Return the head that was just read, as one that asks for no other protocol."""
        version = self.parser.get_http_version().encode()
        fields = [b"%b: %b\r\n" % field for field in self.headers if field[0] != b"upgrade"]
        line = b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, version)
        return b"".join((line, *fields, b"\r\n"))

    def on_message_begin(self) -> None:
        """Begin to read a head; see uvicorn."""
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Begin a request, see uvicorn, or refuse it."""
        if self.parser.should_upgrade():  # to be read once more, without asking for it
            return
        self._unread_bytes = 0
        self._in_head = False
        self._unset_keepalive_if_required()
        if self.config.root_path:
            self._put_root_path()
        # Replies leave in the order of their requests: others may be before this one.
        is_next = self.cycle is None or self.cycle.response_complete
        if self._refusals is None or not is_next or not self._refused(self._refusals):
            super().on_headers_complete()
            if is_stopping(self._application):
                self.stop_reading()

    def _put_root_path(self) -> None:
        """Let uvicorn put it before this path, unless a proxy has kept it there."""
        root_path = self.config.root_path
        kept = httptools.parse_url(self.url).path or b""
        self.root_path = "" if kept.startswith(root_path.encode() + b"/") else root_path
        self.scope["root_path"] = root_path

    def stop_reading(self) -> None:
        """Make this request the connection's last, and wait for no more of its body.

        Whoever reads the body gets what has come of it; see ``middleware.Shed``.
        """
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.keep_alive = cycle.waiting_for_100_continue = False
            if cycle.more_body:
                cycle.message_event.set()

    def on_body(self, body: bytes) -> None:
        """Keep a part of a body; see uvicorn."""
        self._unread_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request; see uvicorn."""
        if self.parser.should_upgrade():
            return
        self._unread_bytes = 0
        super().on_message_complete()

    def _refused(self, refusals: Refusals) -> bool:
        """Send the reply that a full server has for this request, if it has one."""
        parser = self.parser
        # Whoever waits for leave to send a body may send none: the next request would be taken
        # for it.
        is_last = (
            self.expect_100_continue
            or not parser.should_keep_alive()
            or parser.get_http_version() == "1.0"
            or is_stopping(self._application)
        )
        client = self.client[0] if self.client else "-"
        root_path = self.config.root_path
        head = Head(parser.get_method(), self.url, self.headers, client, is_last, root_path)
        reply = refusals.reply(head, self.server_state.default_headers)
        if reply is None:
            return False
        self.cycle = _ANSWERED  # uvicorn passes over what comes of the body
        self.transport.write(reply)
        if is_last:
            self.transport.close()
        self.on_response_complete()
        return True


def _parser_for(protocol: HttpToolsProtocol) -> httptools.HttpRequestParser:
    """Return a parser that is as lenient as uvicorn's first one."""
    parser = httptools.HttpRequestParser(protocol)
    # Bytes behind a request that is a connection's last one are passed over.
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser


class _Answered:
    """What uvicorn looks at in the last request of a connection, of one that was answered."""

    response_complete = True
    message_event = asyncio.Event()


_ANSWERED: Any = _Answered()
