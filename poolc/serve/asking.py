"""One request, from its body to its answer: what the routers of all dialects share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from fastapi import Request, Response
from pydantic import BaseModel

from poolc.runtime.chunking import chunks
from poolc.runtime.request import Item, Params
from poolc.serve.bodies import json_response, read_body, unless_client_leaves, validated
from poolc.serve.dialects import Dialect
from poolc.serve.errors import TimedOut
from poolc.serve.registry import Registry, Served
from poolc.serve.scheduler import Answer
from poolc.serve.schemas.common import (
    ErrorReply,
    MessageReply,
    PlainErrorReply,
    TeiErrorReply,
)
from poolc.serve.tracing import phases_of
from poolc.spec import Task

T = TypeVar("T")
ModelT = TypeVar("ModelT", bound=BaseModel)

_ERROR_REPLIES: Mapping[Dialect, type[BaseModel]] = {
    Dialect.OPENAI: ErrorReply,
    Dialect.COHERE: MessageReply,
    Dialect.TEI: TeiErrorReply,
    Dialect.OLLAMA: PlainErrorReply,
    Dialect.WEAVIATE: PlainErrorReply,
}
_ERROR_STATUSES = (400, 401, 404, 413, 429, 500, 503, 504)


async def body_of(request: Request, schema: type[ModelT]) -> ModelT:
    """Read a request's body as ``schema``; see ``bodies.read_body`` and ``validated``."""
    return await chosen_body(request, partial(validated, schema=schema))


async def chosen_body(request: Request, choose: Callable[[dict[str, Any]], T]) -> T:
    """Read a request's body where its fields decide what it is: ``choose`` validates."""
    return await read_body(request, request.app.state.settings.max_body_bytes, choose)


def registry_of(request: Request) -> Registry:
    """Return the server's models."""
    registry: Registry = request.app.state.registry
    return registry


async def ask(
    request: Request,
    model: Served,
    task: Task,
    items: Sequence[Item],
    params: Params,
    *,
    priority: int = 0,
) -> Answer:
    """Ask a model. Raises what ``Scheduler.ask`` raises, TimedOut, and ClientDisconnect."""
    settings = request.app.state.settings
    params = _cut(params, model, task, truncate=settings.truncate)
    limit_s = settings.request_timeout_s
    work = model.scheduler.ask(task, items, params, priority=priority)
    try:
        async with asyncio.timeout(limit_s):
            answer = await unless_client_leaves(request, work)
    except TimeoutError as error:
        raise TimedOut(
            f"the request was not answered within {limit_s:g} s: send fewer texts, or try again "
            "when the server has less to do"
        ) from error
    phases = phases_of(request.state)
    if phases is not None:
        phases.answered(model.names[0], answer)
    return answer


def _cut(params: Params, model: Served, task: Task, *, truncate: bool) -> Params:
    """Return ``params`` that say whether long texts are cut, if need be as the server says."""
    if params.truncate is not None:
        return params
    # A side of nothing is none: vLLM takes it too.
    without = replace(params, truncate=False, truncation_side=None)
    # Where long texts are embedded in windows, none is too long.
    if not truncate or chunks(model.engine.spec, task, without):
        return without
    return replace(params, truncate=True)


async def reply(
    request: Request,
    model: Served,
    answer: Answer | None,
    numbers: int,
    content: Callable[[], Any],
) -> Response:
    """Reply with ``content()`` as JSON; ``numbers`` says how large it is."""
    started_s = time.perf_counter()
    response = await json_response(numbers, content, reply_headers(model, answer))
    seconds = time.perf_counter() - started_s
    request.app.state.metrics.serialized(model.names[0], seconds)
    phases = phases_of(request.state)
    if phases is not None:
        phases.serialized(model.names[0], seconds)
    return response


def reply_headers(model: Served, answer: Answer | None) -> dict[str, str]:
    """Say which artifact answered, which space its vectors are in, and what took how long.

    The times are text-embeddings-inference's headers, in milliseconds.
    """
    artifact = model.engine.artifact
    headers = {"x-poolc-artifact": artifact.artifact_id, "x-poolc-space": artifact.space_id}
    if answer is not None:
        headers["x-tokenization-time"] = f"{1000 * answer.tokenize_s:.1f}"
        headers["x-queue-time"] = f"{1000 * answer.queue_s:.1f}"
        headers["x-inference-time"] = f"{1000 * answer.inference_s:.1f}"
    return headers


def documented(
    *requests: type[BaseModel],
    dialect: Dialect = Dialect.OPENAI,
    or_dialect: Dialect | None = None,
    also: Mapping[int | str, dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return the keywords of a route whose body is read by hand, so that OpenAPI tells of it.

    Several ``requests``: the body is one of them, and errors may be for ``or_dialect``. ``also``:
    replies that are no JSON.
    """
    schemas = [_inlined(request.model_json_schema()) for request in requests]
    schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
    content = {"application/json": {"schema": schema}}
    error: Any = _ERROR_REPLIES[dialect]
    if or_dialect is not None:
        error = error | _ERROR_REPLIES[or_dialect]
    return {
        "responses": errors_of(error, _ERROR_STATUSES) | dict(also or {}),
        "openapi_extra": {"requestBody": {"required": True, "content": content}},
    }


def errors_of(reply: Any, statuses: Sequence[int]) -> dict[int | str, dict[str, Any]]:
    """Return what OpenAPI is told of errors: ``reply`` is their model."""
    return {status: {"model": reply} for status in statuses}


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """Put definitions where they are referred to: OpenAPI resolves references elsewhere."""
    definitions = schema.pop("$defs", {})

    def put(value: Any) -> Any:
        if isinstance(value, dict):
            name = str(value.get("$ref", "")).rpartition("/")[2]
            return put(definitions[name]) if name else {key: put(v) for key, v in value.items()}
        return [put(one) for one in value] if isinstance(value, list) else value

    inlined: dict[str, Any] = put(schema)
    return inlined
