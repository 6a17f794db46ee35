"""HTTP as llhttp reads it, with a bound on what is not a body, and a full server's refusals."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from poolc.serve.refusals import Head, Refusals

# Of a request line with all header fields, and of the fields after a chunked body: what uvicorn's
# other parser allows.
MAX_HEAD_BYTES = 64 << 10


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's faster protocol, which alone keeps header fields however many come."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        app: Any = self.config.app  # the application itself: what uvicorn puts around has no state
        self._refusals: Refusals | None = app.state.refusals
        self._unread_bytes = 0  # since a head, a part of a body or a message was complete

    def data_received(self, data: bytes) -> None:
        """Read what came; close where a head does not end."""
        self._unread_bytes += len(data)
        super().data_received(data)
        if self._unread_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The header fields are too long.")

    def on_headers_complete(self) -> None:
        """Begin a request, see uvicorn, or refuse it."""
        self._unread_bytes = 0
        # Replies leave in the order of their requests: others may be before this one.
        is_next = self.cycle is None or self.cycle.response_complete
        if self._refusals is None or not is_next or not self._refused(self._refusals):
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Keep a part of a body; see uvicorn."""
        self._unread_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request; see uvicorn."""
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
        )
        client = self.client[0] if self.client else "-"
        head = Head(parser.get_method(), self.url, self.headers, client, is_last)
        reply = refusals.reply(head, self.server_state.default_headers)
        if reply is None:
            return False
        self.cycle = _ANSWERED  # uvicorn passes over what comes of the body
        self.transport.write(reply)
        if is_last:
            self.transport.close()
        self.on_response_complete()
        return True


class _Answered:
    """What uvicorn looks at in the last request of a connection, of one that was answered."""

    response_complete = True
    message_event = asyncio.Event()


_ANSWERED: Any = _Answered()
