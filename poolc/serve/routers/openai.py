"""OpenAI's dialect: embeddings and the list of models, with and without ``/v1``."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Request, Response

from poolc.errors import InvalidDimensions
from poolc.runtime.outputs import Float32
from poolc.serve.bodies import (
    base64_float32,
    check_finite,
    float_list,
    json_response,
    read_body,
    unless_client_leaves,
)
from poolc.serve.registry import Registry, Served
from poolc.serve.schemas import (
    EmbeddingReply,
    EmbeddingRequest,
    EncodingFormat,
    ErrorReply,
    ModelCard,
    ModelList,
)
from poolc.spec import Task

router = APIRouter(tags=["OpenAI"])

_STARTED_S = int(time.time())

# The body is read by hand, so OpenAPI is told what it is.
_REQUEST_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": EmbeddingRequest.model_json_schema()}},
    }
}
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorReply} for status in (400, 404, 413, 429, 500, 503)
}


@router.post(
    "/v1/embeddings",
    response_model=EmbeddingReply,
    responses=_ERRORS,
    openapi_extra=_REQUEST_BODY,
)
@router.post("/embeddings", include_in_schema=False)
async def embeddings(request: Request) -> Response:
    """Return one vector a text. No prompt is put before a text unless the request asks for one."""
    registry: Registry = request.app.state.registry
    asked = await read_body(request, EmbeddingRequest, request.app.state.settings.max_body_bytes)
    model = registry.find(asked.model)
    _check(model, asked)
    work = model.scheduler.ask(Task.EMBED, asked.input, asked.params(model.engine.max_length))
    answer = await unless_client_leaves(request, work)
    vectors = np.asarray(answer.result, dtype=np.float32)  # [texts, dim]

    def content() -> dict[str, Any]:
        check_finite(vectors)
        return {
            "id": f"embd-{uuid.uuid4().hex}",
            "object": "list",
            "created": int(time.time()),
            "model": model.shown_name(asked.model),
            "data": _data(vectors, answer.truncated, asked.encoding_format or "float"),
            "usage": _usage(answer.num_tokens),
        }

    return await json_response(vectors.size, content, identity_headers(model))


@router.get("/v1/models")
@router.get("/models", include_in_schema=False)
async def models(request: Request) -> ModelList:
    """List every name of every model."""
    registry: Registry = request.app.state.registry
    return ModelList(data=[_card(name, m) for m in registry.models for name in m.names])


@router.get("/v1/models/{name:path}", responses={404: {"model": ErrorReply}})
@router.get("/models/{name:path}", include_in_schema=False)
async def model_card(request: Request, name: str) -> ModelCard:
    """Describe the model of this name."""
    registry: Registry = request.app.state.registry
    return _card(name, registry.named(name))


def identity_headers(model: Served) -> Mapping[str, str]:
    """Say which artifact answered, and which space its vectors are in."""
    artifact = model.engine.artifact
    return {"x-poolc-artifact": artifact.artifact_id, "x-poolc-space": artifact.space_id}


def _check(model: Served, asked: EmbeddingRequest) -> None:
    """Refuse what can be refused before any work, in this dialect's words."""
    engine = model.engine
    engine.require(Task.EMBED)
    if asked.dimensions is not None and not engine.spec.matryoshka.enabled:
        # Word for word what vLLM's users know; it names the model, which the engine cannot.
        raise InvalidDimensions(
            f'Model "{model.shown_name(asked.model)}" does not support matryoshka representation, '
            "changing output dimensions will lead to poor results."
        )


def _data(
    vectors: Float32, truncated: npt.NDArray[np.bool_], encoding_format: EncodingFormat
) -> list[dict[str, Any]]:
    encode = base64_float32 if encoding_format == "base64" else float_list
    data: list[dict[str, Any]] = [
        {"index": index, "object": "embedding", "embedding": encode(vector)}
        for index, vector in enumerate(vectors)
    ]
    # Not in OpenAI's reply: only there where it says something.
    for index in np.flatnonzero(truncated):
        data[index]["truncated"] = True
    return data


def _usage(num_tokens: int) -> dict[str, int | None]:
    return {
        "prompt_tokens": num_tokens,
        "total_tokens": num_tokens,
        "completion_tokens": 0,
        "prompt_tokens_details": None,
    }


def _card(name: str, model: Served) -> ModelCard:
    return ModelCard(
        id=name, created=_STARTED_S, root=model.names[0], max_model_len=model.engine.max_length
    )
