"""The one table from errors to HTTP statuses; ``dialects.py`` says what their bodies look like."""

from __future__ import annotations

import logging
import math
from http import HTTPStatus

import orjson
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from poolc.errors import InputError, Overloaded, PoolcError
from poolc.serve.dialects import Dialect, dialect_of, error_content

log = logging.getLogger("poolc.serve")

JSON = "application/json"


class BadBody(InputError):
    """The request's body or its content type cannot be read as this route's JSON."""


class Unauthorized(InputError):
    """The request carries none of this server's keys."""


class BodyTooLarge(InputError):
    """The request's body is longer than this server accepts."""


class UnknownModel(InputError):
    """No model of this server answers to the name."""


class NameTaken(InputError):
    """The models of this server do not allow the change that was asked for."""


class CannotLoad(InputError):
    """A model that was to be added cannot be loaded, or does not answer."""


class Draining(Overloaded):
    """The server is stopping and takes no new work."""

    def __init__(self) -> None:
        super().__init__("the server is stopping and takes no new requests", retry_after_s=1.0)


class TimedOut(PoolcError):
    """A request took longer than this server lets them."""


class NotReady(PoolcError):
    """A model of this server does not answer now."""


# The first row whose class an error is an instance of decides, so subclasses stand first.
STATUSES: tuple[tuple[type[PoolcError], HTTPStatus, str], ...] = (
    (UnknownModel, HTTPStatus.NOT_FOUND, "NotFoundError"),
    (Unauthorized, HTTPStatus.UNAUTHORIZED, "AuthenticationError"),
    (NameTaken, HTTPStatus.CONFLICT, "ConflictError"),
    (BodyTooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "RequestTooLargeError"),
    (InputError, HTTPStatus.BAD_REQUEST, "BadRequestError"),
    (Draining, HTTPStatus.SERVICE_UNAVAILABLE, "ServiceUnavailableError"),
    (NotReady, HTTPStatus.SERVICE_UNAVAILABLE, "ServiceUnavailableError"),
    (TimedOut, HTTPStatus.GATEWAY_TIMEOUT, "TimeoutError"),
    (Overloaded, HTTPStatus.TOO_MANY_REQUESTS, "OverloadedError"),
    (PoolcError, HTTPStatus.INTERNAL_SERVER_ERROR, "InternalServerError"),
)
# For what the web framework refuses by itself.
_FRAMEWORK_TYPES = {404: "NotFoundError", 405: "MethodNotAllowedError"}
# Details of a failure inside are for the log: a message may hold paths of this machine.
_INTERNAL = "the server failed on this request; its log says why"
# What the engine's messages advise -> what a request can say.
_ADVICE = "ask for truncation (truncate=True)"
_TRUNCATION = {
    Dialect.OPENAI: (_ADVICE, "send truncate_prompt_tokens -1 to cut it"),
    Dialect.COHERE: (_ADVICE, "send truncate END to cut it"),
    Dialect.TEI: (_ADVICE, "send truncate true to cut it"),
    Dialect.OLLAMA: (_ADVICE, "send truncate true to cut it"),
    Dialect.WEAVIATE: (_ADVICE, "shorten it"),
}
# Nobody reads it: the client left. The number keeps such requests apart in access logs.
_CLIENT_LEFT = 499


def add_error_handlers(app: FastAPI) -> None:
    """Make every error of ``app`` answer in the one shape."""
    app.add_exception_handler(PoolcError, _on_poolc_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(ClientDisconnect, _on_client_left)
    app.add_exception_handler(Exception, _on_unforeseen)


def error_response(error: PoolcError, dialect: Dialect = Dialect.OPENAI) -> Response:
    """Return the reply that an error of ours gets, by the table."""
    status, kind = next((s, k) for cls, s, k in STATUSES if isinstance(error, cls))
    if status is HTTPStatus.INTERNAL_SERVER_ERROR:
        return _response(dialect, _INTERNAL, kind, status)
    param = error.param if isinstance(error, InputError) else None
    headers = {}
    if isinstance(error, BodyTooLarge):
        headers["Connection"] = "close"  # or the rest of the body would be read, and thrown away
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, Overloaded):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    message = str(error).replace(*_TRUNCATION[dialect])
    return _response(dialect, message, kind, status, param=param, headers=headers)


def _response(
    dialect: Dialect,
    message: str,
    kind: str,
    status: int,
    *,
    param: str | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    content = error_content(dialect, message, kind, int(status), param)
    return Response(orjson.dumps(content), status, headers, JSON)


async def _on_poolc_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, PoolcError):
        raise error
    request.app.state.metrics.rejected(type(error).__name__)
    response = error_response(error, dialect_of(request))
    foreseen = isinstance(error, Draining | TimedOut)
    if response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR and not foreseen:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return response


async def _on_http_exception(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    status = error.status_code
    message = str(error.detail)
    if status == HTTPStatus.NOT_FOUND:
        message = f"there is no {request.url.path} here"
    elif status == HTTPStatus.METHOD_NOT_ALLOWED:
        message = f"{request.url.path} does not take {request.method}"
    kind = _FRAMEWORK_TYPES.get(
        status, HTTPStatus(status).phrase.title().replace(" ", "") + "Error"
    )
    return _response(dialect_of(request), message, kind, status, headers=dict(error.headers or {}))


async def _on_client_left(request: Request, error: Exception) -> Response:
    return Response(status_code=_CLIENT_LEFT)


async def _on_unforeseen(request: Request, error: Exception) -> Response:
    # The framework raises the error again once this is sent, and the server logs its traceback.
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    return _response(dialect_of(request), _INTERNAL, "InternalServerError", status)
