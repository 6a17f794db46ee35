"""HTTP as llhttp reads it, with a bound on what is not a body."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Of a request line with all header fields, and of the fields after a chunked body: what uvicorn's
# other parser allows.
MAX_HEAD_BYTES = 64 << 10


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's faster protocol, which alone keeps header fields however many come."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._unread_bytes = 0  # since a head, a part of a body or a message was complete

    def data_received(self, data: bytes) -> None:
        """Read what came; close where a head does not end."""
        self._unread_bytes += len(data)
        super().data_received(data)
        if self._unread_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The header fields are too long.")

    def on_headers_complete(self) -> None:
        """Begin a request; see uvicorn."""
        self._unread_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Keep a part of a body; see uvicorn."""
        self._unread_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request; see uvicorn."""
        self._unread_bytes = 0
        super().on_message_complete()
