"""Replies of a full server, as bytes, by no more of a request than its head.

They say what ``middleware.Shed`` says, at a fraction of its price: where far too many requests
come, refusing them must not take the time of answering. Knows nothing about sockets.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import NamedTuple

from poolc.errors import Overloaded
from poolc.serve.dialects import Dialect, dialect_of_path
from poolc.serve.errors import error_response
from poolc.serve.logs import is_access_logged, log_reply
from poolc.serve.metrics import Metrics
from poolc.serve.middleware import OPEN_PATHS, OTHER_PATHS, REQUEST_ID, request_id_of
from poolc.serve.registry import Registry

Fields = Sequence[tuple[bytes, bytes]]

_STATUS = HTTPStatus.TOO_MANY_REQUESTS
_STATUS_LINE = f"HTTP/1.1 {_STATUS.value} {_STATUS.phrase}\r\n".encode()
_FORWARDED = b"x-forwarded-for"  # uvicorn's middleware alone knows whom to believe it
# How long the same words are said: to write them anew costs more than to send them.
_FRESH_S = 0.1


class Head(NamedTuple):
    """What is known of a request before its body."""

    method: bytes
    url: bytes
    fields: Fields  # names in small letters
    client: str
    is_last: bool  # the connection is closed after the reply
    root_path: str = ""  # what a proxy may have put before the path


class Refusals:
    """Decides by a request's head whether it is refused, and writes the reply."""

    def __init__(self, registry: Registry, metrics: Metrics) -> None:
        self._registry, self._metrics = registry, metrics
        self._written: dict[Dialect, tuple[float, bytes, bytes]] = {}  # when, fields, body

    def reply(self, head: Head, own_fields: Fields) -> bytes | None:
        """Return the whole reply to a request that is refused; None where it has to be read.

        ``own_fields`` are those that every reply of this server has.
        """
        if head.method != b"POST" or head.url[:1] != b"/" or b"%" in head.url:
            return None
        path = head.url.partition(b"?")[0].decode("latin-1")
        inner = path.removeprefix(head.root_path) if path.startswith(f"{head.root_path}/") else path
        if inner in OPEN_PATHS or not self._registry.is_full():
            return None
        logged = is_access_logged()
        given = dict(head.fields)
        if logged and _FORWARDED in given:
            return None
        request_id = request_id_of(given.get(REQUEST_ID.encode(), b"").decode("latin-1"))
        fields, body = self._words(dialect_of_path(inner))
        self._metrics.rejected(Overloaded.__name__)
        self._metrics.replied(OTHER_PATHS, _STATUS.value, 0.0)
        if logged:
            log_reply(
                {
                    "client": head.client,
                    "method": "POST",
                    "path": path,
                    "status": _STATUS.value,
                    "ms": 0.0,
                    "request_id": request_id,
                }
            )
        ending: Fields = ((b"connection", b"close"),) if head.is_last else ()
        ending = (*ending, (REQUEST_ID.encode(), request_id.encode()))
        return b"".join((_STATUS_LINE, _lines(own_fields), fields, _lines(ending), b"\r\n", body))

    def _words(self, dialect: Dialect) -> tuple[bytes, bytes]:
        """Return the fields that are this reply's alone, and its body."""
        now_s = time.monotonic()
        written_s, fields, body = self._written.get(dialect, (-math.inf, b"", b""))
        error = self._registry.overloaded() if now_s - written_s >= _FRESH_S else None
        if error is not None:
            response = error_response(error, dialect)
            fields, body = _lines(response.raw_headers), bytes(response.body)
            self._written[dialect] = (now_s, fields, body)
        return fields, body


def _lines(fields: Fields) -> bytes:
    return b"".join([b"%b: %b\r\n" % field for field in fields])
