"""What happens to every request before and after its route: an id, a key, a line, a count.

Plain ASGI: Starlette's own base class copies every body once more.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from http import HTTPStatus
from typing import Any

from starlette.requests import Request

from poolc.errors import PoolcError
from poolc.serve.dialects import dialect_of, path_of
from poolc.serve.errors import Draining, Unauthorized, error_response
from poolc.serve.logs import log_reply
from poolc.serve.metrics import Metrics
from poolc.serve.registry import Registry

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

REQUEST_ID = "x-request-id"
_MOST_ID_CHARS = 128
# Probes come from machines that hold no key.
OPEN_PATHS = ("/health", "/ready", "/ping", "/.well-known/ready", "/.well-known/live")
# On this path they ask without a body; with one it is a request for vectors.
_OPEN_TO_GET = "/"
OTHER_PATHS = "(other)"  # of paths that no route has: anybody can make up any number of them


class RequestLog:
    """Gives every request an id, its own or a new one, and logs and counts its reply."""

    def __init__(self, app: App, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_s = time.perf_counter()
        request_id = scope.setdefault("state", {})["request_id"] = request_id_of(
            Request(scope).headers.get(REQUEST_ID, "")
        )
        status = 0
        done = False

        def finish() -> None:
            nonlocal done
            if not done:
                done = True
                self._done(scope, request_id, status, time.perf_counter() - started_s)

        async def with_id(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", ()),
                    (REQUEST_ID.encode(), request_id.encode()),
                ]
            elif message["type"] == "http.response.body" and not message.get("more_body", False):
                finish()  # before the last bytes leave: whoever has a reply finds it counted
            await send(message)

        try:
            await self._app(scope, receive, with_id)
        except BaseException as error:
            # The framework's own answer to what nobody foresaw is sent around this one: it would
            # have no id. Who raised logs the error itself.
            if status == 0 and isinstance(error, Exception):
                response = error_response(PoolcError(), dialect_of(Request(scope)))
                await response(scope, receive, with_id)
            status = HTTPStatus.INTERNAL_SERVER_ERROR.value  # also where a reply was cut off
            raise
        finally:
            finish()  # also where nobody was left to read it

    def _done(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        path = getattr(scope.get("route"), "path", OTHER_PATHS)
        self._metrics.replied(path, status, seconds)
        log_reply(
            {
                "client": (scope.get("client") or ("-",))[0],
                "method": scope["method"],
                # As it was sent: what stands behind a % could look like another line.
                "path": scope.get("raw_path", b"").decode("latin-1") or scope["path"],
                "status": status,
                "ms": 1000 * seconds,
                "request_id": request_id,
            }
        )


class Shed:
    """Refuses requests unread while the server is full: they would be refused, and cost more.

    And those that are not wholly read once it stops: it waits for what was let in alone.
    """

    def __init__(self, app: App, registry: Registry) -> None:
        self._app, self._registry = app, registry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            error = self._registry.overloaded()
            if error is not None and path_of(request := Request(scope)) not in OPEN_PATHS:
                response = error_response(error, dialect_of(request))
                request.app.state.metrics.rejected(type(error).__name__)
                await response(scope, receive, send)
                return
            receive = _unless_stopping(scope["app"], receive)
        await self._app(scope, receive, send)


class RequireKey:
    """Refuses requests without one of the keys, but for probes and CORS' preflight."""

    def __init__(self, app: App, keys: Sequence[str]) -> None:
        self._app = app
        self._digests = [_digest(key) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._allowed(request := Request(scope)):
            error = Unauthorized("this server asks for an API key: Authorization: Bearer KEY")
            response = error_response(error, dialect_of(request))
            request.app.state.metrics.rejected(type(error).__name__)
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _allowed(self, request: Request) -> bool:
        path, method = path_of(request), request.method
        if path in OPEN_PATHS or method == "OPTIONS":
            return True
        if path == _OPEN_TO_GET and method in ("GET", "HEAD"):
            return True
        given = request.headers.get("authorization", "") or request.headers.get("x-api-key", "")
        kind, _, rest = given.partition(" ")
        # LlamaIndex' client for text-embeddings-inference sends the bare key.
        found = _digest(rest.strip() if kind.lower() == "bearer" else given)
        # All of them, whichever it is: how long it takes tells nothing.
        return sum(hmac.compare_digest(found, digest) for digest in self._digests) > 0


def is_stopping(app: Any) -> bool:
    """Return whether an application was told, by ``app.state.stopping``, to take nothing new."""
    return getattr(app.state, "stopping", False)


def _unless_stopping(app: Any, receive: Receive) -> Receive:
    async def received() -> MutableMapping[str, Any]:
        message = await receive()
        if message.get("more_body", False) and is_stopping(app):
            raise Draining()
        return message

    return received


def request_id_of(given: str) -> str:
    """Return the id that a request brought, or a new one where it cannot be used."""
    fit = 0 < len(given) <= _MOST_ID_CHARS and given.isascii() and given.isprintable()
    return given if fit else os.urandom(16).hex()


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
