"""Request bodies in, arrays out as JSON: what every dialect shares and none of their fields.

Arrays are serialised row by row, so that a big reply lets go of the interpreter between rows.
"""

from __future__ import annotations

import asyncio
import base64
import re
import reprlib
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import orjson
from fastapi import Request, Response
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from poolc.errors import BackendError
from poolc.serve.dialects import Dialect, dialect_of
from poolc.serve.errors import JSON, BadBody, BodyTooLarge

T = TypeVar("T")
ModelT = TypeVar("ModelT", bound=BaseModel)

# Below these a thread costs more than what it would take off the event loop.
_LARGE_BODY_BYTES = 64 << 10
_LARGE_REPLY_NUMBERS = 32 << 10
# Ollama's documentation has curl -d, which sends a form's type; Weaviate's client sends none.
_ANY_TYPE = (Dialect.OLLAMA, Dialect.WEAVIATE)


async def read_body(request: Request, max_bytes: int, make: Callable[[dict[str, Any]], T]) -> T:
    """Read the request's body, which must be a JSON object, and return what ``make`` makes of it.

    ``make`` gets no fields that are null: clients send them for what their caller left out.
    Raises BadBody, BodyTooLarge, or ClientDisconnect.
    """
    _check_headers(request)
    body = await _read(request, max_bytes)
    return await off_loop_if(len(body) > _LARGE_BODY_BYTES, lambda: make(_parse(body)))


def validated(plain: dict[str, Any], schema: type[ModelT]) -> ModelT:
    """Return a body as ``schema``. Raises BadBody that names the field."""
    try:
        return schema.model_validate(plain)
    except ValidationError as error:
        raise _first_problem(error) from error


async def unless_client_leaves(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await ``work``; cancel it and raise ClientDisconnect when the client leaves before.

    The request's body must have been read.
    """
    task = asyncio.ensure_future(work)
    left = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((task, left), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        left.cancel()


async def off_loop_if(large: bool, work: Callable[[], T]) -> T:
    """Do ``work`` on a thread if it is large, else right here."""
    return await asyncio.to_thread(work) if large else work()


async def json_response(
    numbers: int, content: Callable[[], Any], headers: Mapping[str, str]
) -> Response:
    """Reply with ``content()``, made and serialised off the loop where it holds many numbers."""
    body = await off_loop_if(numbers > _LARGE_REPLY_NUMBERS, lambda: orjson.dumps(content()))
    return Response(body, headers=dict(headers), media_type=JSON)


def number_list(row: npt.NDArray[Any]) -> orjson.Fragment:
    """Return an array as JSON: of float32, the shortest decimals that read back as the same."""
    return orjson.Fragment(
        orjson.dumps(np.ascontiguousarray(row), option=orjson.OPT_SERIALIZE_NUMPY)
    )


def base64_vector(row: npt.NDArray[Any]) -> str:
    """Return an array's numbers as base64, little-endian: what OpenAI's clients decode."""
    little = row.astype(row.dtype.newbyteorder("<"), copy=False)
    return base64.b64encode(little.tobytes()).decode("ascii")


def usage(num_tokens: int) -> dict[str, int | None]:
    """Return the usage object of OpenAI's and vLLM's replies."""
    return {
        "prompt_tokens": num_tokens,
        "total_tokens": num_tokens,
        "completion_tokens": 0,
        "prompt_tokens_details": None,
    }


def check_finite(values: npt.NDArray[Any]) -> None:
    """Raise BackendError for NaN and infinities: JSON has no way to say them."""
    if not np.isfinite(values).all():
        raise BackendError("the model returned numbers that are not finite")


def _check_headers(request: Request) -> None:
    """Raise BadBody for a body that its headers call something other than plain JSON.

    A missing type passes, and a form's on the paths of ``_ANY_TYPE``: a web page elsewhere can
    send these without asking first (CORS' simple requests). It gains nothing: it cannot read the
    reply, there are no cookies that would speak for the browser's user, API keys are in headers
    that have to be asked for, and what changes the server wants such a key or a Unix socket.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", ""):
        raise BadBody(f"the Content-Encoding header is {encoding!r}: send the body uncompressed")
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type not in (JSON, "") and dialect_of(request) not in _ANY_TYPE:
        raise BadBody(f"the Content-Type header is {content_type!r}; allowed: {JSON}")


async def _read(request: Request, max_bytes: int) -> bytes:
    announced = request.headers.get("content-length", "0")
    body = bytearray()
    # What is announced is not waited for.
    if not announced.isdecimal() or int(announced) <= max_bytes:
        async for chunk in request.stream():
            body += chunk
            if len(body) > max_bytes:
                break
        else:
            return bytes(body)
    raise BodyTooLarge(f"the body has more than {max_bytes} bytes: send fewer texts in a request")


def _parse(body: bytes) -> dict[str, Any]:
    try:
        # orjson is strict where pydantic's own parser is not: NaN, lone surrogates.
        plain = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadBody(f"the body is not valid JSON: {error}") from error
    if not isinstance(plain, dict):
        raise BadBody("the body must be a JSON object")
    return {name: value for name, value in plain.items() if value is not None}


def _first_problem(error: ValidationError) -> BadBody:
    """Name the first wrong field, what was given and what is allowed."""
    first = error.errors(include_url=False, include_context=False)[0]
    param = ".".join(map(str, first["loc"]))
    if not param:  # of the fields together: the message names them
        message = first["msg"].removeprefix("Value error, ")
        named = re.match(r"\w+(?=:| is )", message)
        return BadBody(message, param=named.group() if named else None)
    if first["type"] == "missing":
        return BadBody(f"{param} is missing", param=param)
    message = first["msg"].removeprefix("Value error, ")
    given = reprlib.repr(first["input"])
    return BadBody(f"{param}: {message}, not {given} ({first['type']})", param=param)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
