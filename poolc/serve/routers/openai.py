"""OpenAI's dialect: embeddings (Jina's too) and the list of models, with and without ``/v1``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Request, Response

from poolc.errors import InvalidDimensions
from poolc.runtime.late_chunking import (
    check_late_chunking,
    chunk_vectors,
    joined,
    parted,
    truncated,
)
from poolc.runtime.outputs import Ragged
from poolc.runtime.prompts import resolve_prompt
from poolc.runtime.request import Item, Params
from poolc.serve.asking import ask, body_of, documented, registry_of
from poolc.serve.registry import Served
from poolc.serve.routers.encoded import OCTETS_REPLY, encoded_reply, reply_body
from poolc.serve.scheduler import Answer
from poolc.serve.schemas.common import ErrorReply
from poolc.serve.schemas.openai import EmbeddingReply, EmbeddingRequest, ModelCard, ModelList
from poolc.spec import Task

router = APIRouter(tags=["OpenAI"])

_STARTED_S = int(time.time())


@router.post(
    "/v1/embeddings",
    response_model=EmbeddingReply,
    **documented(EmbeddingRequest, also=OCTETS_REPLY),
)
@router.post("/embeddings", include_in_schema=False)
async def embeddings(request: Request) -> Response:
    """Return one vector a text. No prompt is put before a text unless the request asks for one."""
    return await answer_embeddings(request, await body_of(request, EmbeddingRequest))


async def answer_embeddings(request: Request, asked: EmbeddingRequest) -> Response:
    """Answer ``/v1/embeddings``."""
    model = registry_of(request).find(asked.model)
    check_matryoshka(model, asked.model, asked.dimensions)
    items = request.app.state.token_ids.items(asked.items(model.engine.chat_prompt))
    params = asked.params(model.engine.spec)
    if asked.late_chunking:
        answer, vectors = await _late_chunked(request, model, items, params, asked.priority)
    else:
        answer = await ask(request, model, Task.EMBED, items, params, priority=asked.priority)
        vectors = np.asarray(answer.result)  # [texts, dim]
    reply_id = asked.reply_id("embd", request.state.request_id)
    return await encoded_reply(
        *(request, model, asked, answer, vectors),
        kind="embedding",
        body=lambda data: reply_body(reply_id, model, asked.model, data, answer),
        # Not in OpenAI's reply: only there where it says something.
        truncated=np.flatnonzero(answer.truncated).tolist(),
    )


async def _late_chunked(
    request: Request, model: Served, texts: Sequence[Item], params: Params, priority: int
) -> tuple[Answer, npt.NDArray[Any]]:
    """Run texts as one; return how that went, and a vector for each, [texts, dim]."""
    engine = model.engine
    check_late_chunking(engine.spec)
    whole = joined(texts, resolve_prompt(engine.spec, params))
    special = bool(params.add_special_tokens)
    pieces = partial(engine.spelling.pieces, [whole.text], special=special)
    (found,) = await asyncio.to_thread(pieces)
    alone = Params(
        prompt="",
        truncate=params.truncate,
        truncation_side=params.truncation_side,
        max_length=params.max_length,
        add_special_tokens=special,
    )
    answer = await ask(request, model, Task.ENCODE, [whole.text], alone, priority=priority)
    if not isinstance(answer.result, Ragged):
        raise TypeError("a row a token was expected; this is a bug in poolc")
    states = answer.result[0]
    side = params.truncation_side or engine.spec.truncation_side
    left, cut = parted(found, len(states), side)
    vectors = chunk_vectors(engine.spec, params, whole, left, states)
    return replace(answer, truncated=truncated(whole, cut)), vectors


@router.get("/v1/models")
@router.get("/models", include_in_schema=False)
async def models(request: Request) -> ModelList:
    """List every name of every model."""
    registry = registry_of(request)
    return ModelList(data=[_card(name, m) for m in registry.models for name in m.names])


@router.get("/v1/models/{name:path}", responses={404: {"model": ErrorReply}})
@router.get("/models/{name:path}", include_in_schema=False)
async def model_card(request: Request, name: str) -> ModelCard:
    """Describe the model of this name."""
    return _card(name, registry_of(request).named(name))


def check_matryoshka(model: Served, asked: str | None, dimensions: int | None) -> None:
    """Refuse another size of a model that has one only, in vLLM's words."""
    engine = model.engine
    engine.require(Task.EMBED)
    if dimensions is not None and not engine.spec.matryoshka.enabled:
        # Word for word what vLLM's users know; it names the model, which the engine cannot.
        raise InvalidDimensions(
            f'Model "{model.shown_name(asked)}" does not support matryoshka representation, '
            "changing output dimensions will lead to poor results."
        )


def _card(name: str, model: Served) -> ModelCard:
    return ModelCard(
        id=name, created=_STARTED_S, root=model.names[0], max_model_len=model.engine.max_length
    )
