"""vLLM's dialect beside embeddings: pooling, classify, score, and what its clients ask of a server.

``/rerank``, ``/tokenize`` and ``/invocations`` are shared with others: see ``shared.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response

from poolc import __version__
from poolc.llm.answers import values
from poolc.llm.tasks import task_named
from poolc.runtime.calls import as_pairs
from poolc.runtime.outputs import Classification
from poolc.runtime.request import Params
from poolc.serve.asking import ask, body_of, documented, registry_of, reply
from poolc.serve.bodies import check_finite, number_list
from poolc.serve.registry import Served
from poolc.serve.routers.encoded import OCTETS_REPLY, encoded_reply, reply_body
from poolc.serve.routers.openai import check_matryoshka
from poolc.serve.schemas.vllm import (
    ClassifyReply,
    ClassifyRequest,
    DetokenizeReply,
    DetokenizeRequest,
    Load,
    PoolingReply,
    PoolingRequest,
    ScoreReply,
    ScoreRequest,
    TokenizeRequest,
    Version,
)
from poolc.spec import Kind, ModelSpec, Task

router = APIRouter(tags=["vLLM"])

# What ``/pooling`` answers where a request names no task: vLLM's choice for the kind of model.
_POOLING_TASKS: Mapping[Kind, Task] = {
    Kind.EMBEDDING: Task.EMBED,
    Kind.HYBRID: Task.EMBED,
    Kind.CLASSIFIER: Task.CLASSIFY,
    Kind.TOKEN_CLASSIFIER: Task.CLASSIFY_TOKENS,
    Kind.REWARD: Task.REWARD,
    Kind.SPARSE: Task.EMBED_SPARSE,
    Kind.MULTI_VECTOR: Task.EMBED_TOKENS,
}
_DENSE = (Task.EMBED, Task.EMBED_TOKENS, Task.ENCODE)
_ACTIVATED = (Task.CLASSIFY, Task.CLASSIFY_TOKENS, Task.REWARD)


@router.post(
    "/pooling", response_model=PoolingReply, **documented(PoolingRequest, also=OCTETS_REPLY)
)
async def pooling(request: Request) -> Response:
    """Return what the model makes of each text: a vector, probabilities, or a row a token."""
    return await answer_pooling(request, await body_of(request, PoolingRequest))


async def answer_pooling(request: Request, asked: PoolingRequest) -> Response:
    """Answer ``/pooling``."""
    model = registry_of(request).find(asked.model)
    spec = model.engine.spec
    task = _POOLING_TASKS[spec.kind] if asked.task is None else task_named(asked.task, spec, "task")
    if asked.dimensions is not None:
        check_matryoshka(model, asked.model, asked.dimensions)
    answer = await ask(
        request,
        model,
        task,
        asked.items(model.engine.chat_prompt),
        _pooling_params(asked, task, spec),
        priority=asked.priority,
    )
    rows = [np.atleast_1d(np.asarray(value)) for value in values(answer.result)]
    reply_id = asked.reply_id("pooling", request.state.request_id)
    return await encoded_reply(
        *(request, model, asked, answer, rows),
        kind="pooling",
        body=lambda data: reply_body(reply_id, model, asked.model, data, answer),
    )


def _pooling_params(asked: PoolingRequest, task: Task, spec: ModelSpec) -> Params:
    params = Params(prompt="", add_special_tokens=asked.special_tokens)
    activated = asked.activated()
    if task in _DENSE:
        params = replace(params, dimensions=asked.dimensions, normalize=activated)
    elif task in _ACTIVATED:
        params = replace(params, use_activation=activated)
    if task is Task.CLASSIFY_TOKENS:
        params = replace(params, aggregation="none")
    if asked.task == "token_classify" and spec.kind is Kind.HYBRID:
        params = replace(params, by_token=True)
    return asked.cut(params, spec.max_length)


@router.post("/classify", response_model=ClassifyReply, **documented(ClassifyRequest))
@router.post("/v1/classify", include_in_schema=False)
async def classify(request: Request) -> Response:
    """Return the label of each text and the probabilities of all labels."""
    return await answer_classify(request, await body_of(request, ClassifyRequest))


async def answer_classify(request: Request, asked: ClassifyRequest) -> Response:
    """Answer ``/classify``."""
    model = registry_of(request).find(asked.model)
    params = asked.params(model.engine.max_length)
    items = asked.items(model.engine.chat_prompt)
    answer = await ask(request, model, Task.CLASSIFY, items, params, priority=asked.priority)
    if not isinstance(answer.result, Classification):
        raise TypeError("a classification was expected; this is a bug in poolc")
    found = answer.result
    reply_id = asked.reply_id("classify", request.state.request_id)

    def content() -> dict[str, Any]:
        check_finite(found.probs)
        data = [
            {"index": i, "label": label, "probs": number_list(row), "num_classes": len(row)}
            for i, (label, row) in enumerate(zip(found.labels, found.probs, strict=True))
        ]
        return reply_body(reply_id, model, asked.model, data, answer)

    return await reply(request, model, answer, found.probs.size, content)


@router.post("/score", response_model=ScoreReply, **documented(ScoreRequest))
@router.post("/v1/score", response_model=ScoreReply, **documented(ScoreRequest))
async def score(request: Request) -> Response:
    """Return one score a pair of texts."""
    return await answer_score(request, await body_of(request, ScoreRequest))


async def answer_score(request: Request, asked: ScoreRequest) -> Response:
    """Answer ``/score``."""
    model = registry_of(request).find(asked.model)
    params = score_params(asked, model)
    answer = await ask(
        request,
        model,
        Task.SCORE,
        as_pairs(asked.left, asked.right),
        params,
        priority=asked.priority,
    )
    scores = np.asarray(answer.result)
    reply_id = asked.reply_id("score", request.state.request_id)

    def content() -> dict[str, Any]:
        check_finite(scores)
        data = [
            {"index": i, "object": "score", "score": value}
            for i, value in enumerate(scores.tolist())
        ]
        return reply_body(reply_id, model, asked.model, data, answer)

    return await reply(request, model, answer, scores.size, content)


def score_params(asked: Any, model: Served) -> Params:
    """Return the parameters of a request for scores; vectors are compared by their cosine."""
    engine = model.engine
    engine.require(Task.SCORE)
    params: Params = asked.pair_params(engine.max_length, scored=bool(engine.spec.labels))
    return params if engine.spec.labels else replace(params, prompt="")


async def answer_tokenize(request: Request, asked: TokenizeRequest) -> Response:
    """Answer ``/tokenize`` of vLLM; no text is too long for it."""
    model = registry_of(request).find(asked.model)
    text = asked.text(model.engine.chat_prompt)

    def content() -> dict[str, Any]:
        (pieces,) = model.engine.spelling.pieces([text], special=asked.special_tokens)
        return {
            "count": len(pieces),
            "max_model_len": model.engine.max_length,
            "tokens": [piece.id for piece in pieces],
            "token_strs": [piece.text for piece in pieces] if asked.return_token_strs else None,
        }

    return await reply(request, model, None, len(text), content)


@router.post("/detokenize", response_model=DetokenizeReply, **documented(DetokenizeRequest))
async def detokenize(request: Request) -> Response:
    """Return the text of token ids."""
    asked = await body_of(request, DetokenizeRequest)
    model = registry_of(request).find(asked.model)

    def content() -> dict[str, Any]:
        return {"prompt": model.engine.spelling.decode(asked.tokens, skip_special=False)}

    return await reply(request, model, None, len(asked.tokens), content)


@router.get("/version")
async def version() -> Version:
    """Return the version of poolc."""
    return Version(version=__version__)


@router.get("/load")
async def load(request: Request) -> Load:
    """Return how many requests are in work."""
    return Load(server_load=sum(m.scheduler.open for m in registry_of(request).models))
