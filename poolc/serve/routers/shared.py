"""Paths of several requests: the fields of the body decide which one it is, and whose.

``/`` is text-embeddings-inference's alone: what its model does, or a similarity.
``/rerank``: ``texts`` is text-embeddings-inference's, ``documents`` everybody else's.
``/tokenize``: ``inputs`` is text-embeddings-inference's, ``prompt`` vLLM's. ``/invocations``
(SageMaker) takes a request of any of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from poolc.serve.asking import ask, chosen_body, documented, registry_of, reply
from poolc.serve.bodies import check_finite, validated
from poolc.serve.dialects import Dialect, speak
from poolc.serve.errors import BadBody
from poolc.serve.routers import openai, tei, vllm
from poolc.serve.routers.vllm import score_params
from poolc.serve.schemas import tei as tei_schemas
from poolc.serve.schemas.openai import EmbeddingRequest
from poolc.serve.schemas.rerank import RerankReply, RerankRequest
from poolc.serve.schemas.tei import RERANK_REPLY, ROOT_REPLY, TOKENIZE_REPLY, SparseValue
from poolc.serve.schemas.vllm import (
    ClassifyRequest,
    PoolingRequest,
    ScoreRequest,
    TokenizeReply,
    TokenizeRequest,
)
from poolc.spec import Task

router = APIRouter(tags=["shared"])
_Schema = type[BaseModel]
_OfModel = Callable[[Request, dict[str, Any]], _Schema]
_Schemas = Mapping[str, _Schema | _OfModel]


# What text-embeddings-inference does with ``inputs``: the first that the model does.
_BY_TASK: Mapping[Task, _Schema] = {
    Task.EMBED: tei_schemas.EmbedRequest,
    Task.CLASSIFY: tei_schemas.PredictRequest,
    Task.EMBED_SPARSE: tei_schemas.EmbedSparseRequest,
}


def _of_inputs(request: Request, plain: dict[str, Any]) -> _Schema:
    """Return what ``inputs`` are for: huggingface_hub sends all of its tasks to one address."""
    speak(request, Dialect.TEI)
    if isinstance(plain.get("inputs"), dict):
        return tei_schemas.SimilarityRequest
    name = plain.get("model")
    model = registry_of(request).fit(name if isinstance(name, str) else None, *_BY_TASK)
    tasks = model.engine.spec.tasks
    return next((_BY_TASK[task] for task in _BY_TASK if task in tasks), tei_schemas.EmbedRequest)


def _of_input(request: Request, plain: dict[str, Any]) -> _Schema:
    """Return what ``input`` is for: vLLM tries what the model can do, with the same fields."""
    name = plain.get("model")
    tasks = registry_of(request).find(name if isinstance(name, str) else None).engine.spec.tasks
    if Task.EMBED in tasks:
        return EmbeddingRequest
    return ClassifyRequest if Task.CLASSIFY in tasks else PoolingRequest


# The field that tells whose a request is -> what it is; the first that is there decides, "" is any.
_ROOT: _Schemas = {"texts": tei_schemas.RerankRequest, "": _of_inputs}
_RERANK: _Schemas = {"texts": tei_schemas.RerankRequest, "documents": RerankRequest}
_TOKENIZE: _Schemas = {
    "inputs": tei_schemas.TokenizeRequest,
    "prompt": TokenizeRequest,
    "messages": TokenizeRequest,
}
_SCORES = ("text_1", "queries", "data_1")
_INVOCATIONS: _Schemas = {
    **_RERANK,
    **dict.fromkeys(_SCORES, ScoreRequest),
    "inputs": _of_inputs,
    "prompt": TokenizeRequest,
    "task": PoolingRequest,
    "input": _of_input,
    "messages": _of_input,
}


@router.post(
    "/",
    response_model=ROOT_REPLY | list[list[SparseValue]],
    **documented(
        *_BY_TASK.values(),
        tei_schemas.RerankRequest,
        tei_schemas.SimilarityRequest,
        dialect=Dialect.TEI,
    ),
)
async def root(request: Request) -> Response:
    """Embed, predict, rerank or compare: what the model does and the fields say."""
    return await _answer(request, _ROOT)


@router.post(
    "/rerank",
    response_model=RerankReply | RERANK_REPLY,
    **documented(RerankRequest, tei_schemas.RerankRequest, or_dialect=Dialect.TEI),
)
async def rerank(request: Request) -> Response:
    """Rank documents, or ``texts`` as text-embeddings-inference does."""
    return await _answer(request, _RERANK)


@router.post("/v1/rerank", response_model=RerankReply, **documented(RerankRequest))
@router.post("/v2/rerank", response_model=RerankReply, **documented(RerankRequest))
async def rerank_documents(request: Request) -> Response:
    """Rank documents."""
    return await _answer(request, {"": RerankRequest})


@router.post(
    "/tokenize",
    response_model=TokenizeReply | TOKENIZE_REPLY,
    **documented(TokenizeRequest, tei_schemas.TokenizeRequest, or_dialect=Dialect.TEI),
)
async def tokenize(request: Request) -> Response:
    """Return the tokens of a ``prompt``, or of ``inputs`` with their places."""
    return await _answer(request, _TOKENIZE)


@router.post(
    "/invocations",
    response_model=None,
    **documented(
        *(EmbeddingRequest, ClassifyRequest, RerankRequest, ScoreRequest, PoolingRequest),
        *(TokenizeRequest, tei_schemas.RerankRequest, tei_schemas.SimilarityRequest),
        *_BY_TASK.values(),
        or_dialect=Dialect.TEI,
    ),
)
async def invocations(request: Request) -> Response:
    """Answer whatever request the body is."""
    return await _answer(request, _INVOCATIONS)


async def _answer(request: Request, schemas: _Schemas) -> Response:
    """Answer whichever request the body is."""
    asked = await chosen_body(request, lambda plain: _chosen(request, plain, schemas))
    return await _ANSWERS[type(asked)](request, asked)


def _chosen(request: Request, plain: dict[str, Any], schemas: _Schemas) -> BaseModel:
    """Return a body as what its fields say that it is."""
    for field, found in schemas.items():
        if not field or field in plain:
            schema = found if isinstance(found, type) else found(request, plain)
            if schema in _OF_TEI:  # before it is validated: refusals have its form too
                speak(request, Dialect.TEI)
            return validated(plain, schema)
    raise BadBody(f"the body has none of: {', '.join(schemas)}")


async def answer_rerank(request: Request, asked: RerankRequest) -> Response:
    """Answer a request for ranked documents, with the keys of vLLM, Cohere and Jina."""
    model = registry_of(request).find(asked.model)
    params = score_params(asked, model)
    pairs = [(asked.query, document) for document in asked.documents]
    answer = await ask(request, model, Task.SCORE, pairs, params, priority=asked.priority)
    scores = np.asarray(answer.result)

    def content() -> dict[str, Any]:
        check_finite(scores)
        order = np.argsort(-scores, kind="stable").tolist()[: asked.top_n or None]
        return {
            "id": asked.reply_id("score", request.state.request_id),
            "model": model.shown_name(asked.model),
            "usage": {"prompt_tokens": answer.num_tokens, "total_tokens": answer.num_tokens},
            "results": _results(asked, scores.tolist(), order),
            "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
        }

    return await reply(request, model, answer, scores.size, content)


def _results(
    asked: RerankRequest, scores: Sequence[float], order: Sequence[int]
) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = [{"index": i, "relevance_score": scores[i]} for i in order]
    if asked.return_documents:
        for result in results:
            result["document"] = {"text": asked.documents[result["index"]]}
    return results


_OF_TEI: Mapping[type[BaseModel], Callable[[Request, Any], Awaitable[Response]]] = {
    tei_schemas.EmbedRequest: tei.answer_embed,
    tei_schemas.EmbedSparseRequest: tei.answer_embed_sparse,
    tei_schemas.PredictRequest: tei.answer_predict,
    tei_schemas.RerankRequest: tei.answer_rerank,
    tei_schemas.SimilarityRequest: tei.answer_similarity,
    tei_schemas.TokenizeRequest: tei.answer_tokenize,
}
_ANSWERS: Mapping[type[BaseModel], Callable[[Request, Any], Awaitable[Response]]] = {
    EmbeddingRequest: openai.answer_embeddings,
    ClassifyRequest: vllm.answer_classify,
    PoolingRequest: vllm.answer_pooling,
    ScoreRequest: vllm.answer_score,
    TokenizeRequest: vllm.answer_tokenize,
    RerankRequest: answer_rerank,
    **_OF_TEI,
}
