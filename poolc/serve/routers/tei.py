"""text-embeddings-inference's dialect. Its clients name no model: the one that fits best answers.

``/``, ``/rerank``, ``/tokenize`` and ``/invocations`` are several requests: see ``shared.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response

from poolc import __version__
from poolc.errors import InvalidOption
from poolc.runtime.outputs import Classification, Ragged
from poolc.runtime.request import Params
from poolc.runtime.sparse import SparseVectors
from poolc.runtime.spelling import Piece
from poolc.serve.asking import ask, body_of, documented, errors_of, registry_of, reply
from poolc.serve.bodies import check_finite, number_list
from poolc.serve.dialects import Dialect
from poolc.serve.registry import Served
from poolc.serve.schemas.common import TeiErrorReply
from poolc.serve.schemas.tei import (
    DecodeRequest,
    EmbedAllRequest,
    EmbedRequest,
    EmbedSparseRequest,
    Info,
    Prediction,
    PredictRequest,
    RerankRequest,
    SimilarityRequest,
    SparseValue,
    TokenizeRequest,
)
from poolc.spec import Kind, Similarity, Task

router = APIRouter(tags=["text-embeddings-inference"])
_TEI = Dialect.TEI
_ANY = tuple(Task)  # whatever a model does, it has a tokenizer and is something


@router.post("/embed", response_model=list[list[float]], **documented(EmbedRequest, dialect=_TEI))
async def embed(request: Request) -> Response:
    """Return one vector a text."""
    return await answer_embed(request, await body_of(request, EmbedRequest))


async def answer_embed(request: Request, asked: EmbedRequest) -> Response:
    """Answer ``/embed``."""
    model = registry_of(request).fit(asked.model, Task.EMBED)
    params = asked.params(normalize=asked.normalize, dimensions=asked.dimensions)
    answer = await ask(request, model, Task.EMBED, asked.inputs, params)
    vectors = np.asarray(answer.result)
    return await reply(request, model, answer, vectors.size, lambda: _finite(vectors))


@router.post(
    "/embed_all",
    response_model=list[list[list[float]]],
    **documented(EmbedAllRequest, dialect=_TEI),
)
async def embed_all(request: Request) -> Response:
    """Return one vector a token of each text."""
    asked = await body_of(request, EmbedAllRequest)
    model = registry_of(request).fit(asked.model, Task.ENCODE, Task.EMBED_TOKENS)
    whole = Task.EMBED_TOKENS in model.engine.spec.tasks
    task = Task.EMBED_TOKENS if whole else Task.ENCODE
    answer = await ask(request, model, task, asked.inputs, asked.params())
    if not isinstance(answer.result, Ragged):
        raise TypeError("token vectors are ragged; this is a bug in poolc")
    result = answer.result
    return await reply(request, model, answer, result.values.size, lambda: _finite(result))


@router.post(
    "/embed_sparse",
    response_model=list[list[SparseValue]],
    **documented(EmbedSparseRequest, dialect=_TEI),
)
async def embed_sparse(request: Request) -> Response:
    """Return the weights of each text by token id."""
    return await answer_embed_sparse(request, await body_of(request, EmbedSparseRequest))


async def answer_embed_sparse(request: Request, asked: EmbedSparseRequest) -> Response:
    """Answer ``/embed_sparse``."""
    model = registry_of(request).fit(asked.model, Task.EMBED_SPARSE)
    answer = await ask(request, model, Task.EMBED_SPARSE, asked.inputs, asked.params())
    if not isinstance(answer.result, SparseVectors):
        raise TypeError("sparse weights are sparse vectors; this is a bug in poolc")
    found = answer.result

    def content() -> list[Any]:
        check_finite(found.values)
        return [
            [
                {"index": index, "value": value}
                for index, value in zip(row.indices.tolist(), row.values.tolist(), strict=True)
            ]
            for row in found
        ]

    return await reply(request, model, answer, found.values.size, content)


@router.post(
    "/predict",
    response_model=list[Prediction] | list[list[Prediction]],
    **documented(PredictRequest, dialect=_TEI),
)
async def predict(request: Request) -> Response:
    """Return the labels of each text, the most probable first."""
    return await answer_predict(request, await body_of(request, PredictRequest))


async def answer_predict(request: Request, asked: PredictRequest) -> Response:
    """Answer ``/predict``."""
    model = registry_of(request).fit(asked.model, Task.CLASSIFY)
    params = Params(use_activation=not asked.raw_scores, **asked.cut())
    answer = await ask(request, model, Task.CLASSIFY, asked.inputs, params)
    if not isinstance(answer.result, Classification):
        raise TypeError("a classification was expected; this is a bug in poolc")
    found = answer.result

    def content() -> list[Any]:
        check_finite(found.probs)
        rows = [_predictions(row.tolist(), found.names) for row in found.probs]
        return rows[0] if asked.inputs.single else rows

    return await reply(request, model, answer, found.probs.size, content)


def _predictions(scores: Sequence[float], names: Sequence[str]) -> list[dict[str, Any]]:
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    return [{"score": scores[i], "label": names[i]} for i in order]


async def answer_rerank(request: Request, asked: RerankRequest) -> Response:
    """Answer ``/rerank`` with ``texts``: the best first, as clients count on."""
    model = registry_of(request).fit(asked.model, Task.SCORE)
    scored = bool(model.engine.spec.labels)
    params = Params(use_activation=not asked.raw_scores if scored else None, **asked.cut())
    pairs = [(asked.query, text) for text in asked.texts]
    answer = await ask(request, model, Task.SCORE, pairs, params)
    scores = np.asarray(answer.result)

    def content() -> list[dict[str, Any]]:
        check_finite(scores)
        return [
            {"index": i, "score": float(scores[i])}
            | ({"text": asked.texts[i]} if asked.return_text else {})
            for i in np.argsort(-scores, kind="stable").tolist()
        ]

    return await reply(request, model, answer, scores.size, content)


@router.post(
    "/similarity", response_model=list[float], **documented(SimilarityRequest, dialect=_TEI)
)
async def similarity(request: Request) -> Response:
    """Return the cosine similarity of each sentence to the source sentence."""
    return await answer_similarity(request, await body_of(request, SimilarityRequest))


async def answer_similarity(request: Request, asked: SimilarityRequest) -> Response:
    """Answer ``/similarity``."""
    model = registry_of(request).fit(asked.model, Task.EMBED)
    model.engine.require(Task.EMBED)
    options = asked.parameters
    name = options.prompt_name if options else None
    params = Params(
        similarity=Similarity.COSINE,
        prompt_name=name,
        prompt="" if name is None else None,
        **(options.cut() if options else {}),
    )
    pairs = [(asked.inputs.source_sentence, text) for text in asked.inputs.sentences]
    answer = await ask(request, model, Task.SCORE, pairs, params)
    scores = np.asarray(answer.result)
    return await reply(request, model, answer, scores.size, lambda: _finite(scores))


async def answer_tokenize(request: Request, asked: TokenizeRequest) -> Response:
    """Answer ``/tokenize`` with ``inputs``: every token of each text, and where it is."""
    model = registry_of(request).fit(asked.model, *_ANY)
    spec = model.engine.spec
    if asked.prompt_name is not None and asked.prompt_name not in spec.prompts:
        known = ", ".join(sorted(spec.prompts)) or "none"
        raise InvalidOption(
            f"prompt_name is {asked.prompt_name!r}; this model has: {known}", param="prompt_name"
        )
    prefix = spec.prompts.get(asked.prompt_name or "", "")
    texts = [prefix + text for text in asked.inputs]

    def content() -> list[Any]:
        found = model.engine.spelling.pieces(texts, special=asked.add_special_tokens)
        return [[_token(piece) for piece in pieces] for pieces in found]

    return await reply(request, model, None, sum(map(len, texts)), content)


@router.post("/decode", response_model=list[str], **documented(DecodeRequest, dialect=_TEI))
async def decode(request: Request) -> Response:
    """Return the texts of token ids."""
    asked = await body_of(request, DecodeRequest)
    model = registry_of(request).fit(asked.model, *_ANY)

    def content() -> list[str]:
        spelling = model.engine.spelling
        return [spelling.decode(ids, skip_special=asked.skip_special_tokens) for ids in asked.ids]

    return await reply(request, model, None, sum(map(len, asked.ids)), content)


@router.get("/info", responses=errors_of(TeiErrorReply, (400, 401, 404)))
async def info(request: Request, model: str | None = None) -> Info:
    """Describe a model and this server's limits."""
    served = registry_of(request).fit(model, *_ANY)
    settings, engine = request.app.state.settings, served.engine
    source = engine.artifact.manifest.source
    return Info(
        model_id=source.id,
        model_sha=source.revision,
        model_dtype="float32",
        served_model_name=served.names[0],
        model_type=_model_type(served),
        max_concurrent_requests=settings.max_queued_tokens,  # of one token each: the only bound
        max_input_length=engine.max_length,
        max_batch_tokens=max(engine.budget_tokens, engine.max_length),
        max_batch_requests=None,
        max_client_batch_size=settings.max_items,
        auto_truncate=settings.truncate,
        tokenization_workers=engine.streams,
        version=__version__,
        sha=None,
        docker_label=None,
    )


def _model_type(served: Served) -> dict[str, Any]:
    """Say what a model is: one key, which is what clients look at."""
    spec = served.engine.spec
    if spec.labels and spec.kind in (Kind.CLASSIFIER, Kind.TOKEN_CLASSIFIER):
        labels = {
            "id2label": {str(i): label for i, label in enumerate(spec.labels)},
            "label2id": {label: i for i, label in enumerate(spec.labels)},
        }
        single = spec.kind is Kind.CLASSIFIER and len(spec.labels) == 1
        return {"reranker" if single else "classifier": labels}
    if spec.kind is Kind.SPARSE:
        return {"embedding": {"pooling": "splade"}}
    pooling = "_".join(spec.pooling) or "none"
    names = {"last": "last_token"}
    return {"embedding": {"pooling": names.get(pooling, pooling)}}


def _token(piece: Piece) -> dict[str, Any]:
    start, stop = (None, None) if piece.special else (piece.start, piece.stop)
    plain = {"id": piece.id, "text": piece.text, "special": piece.special}
    return {**plain, "start": start, "stop": stop}


def _finite(rows: Any) -> list[Any]:
    values = rows.values if isinstance(rows, Ragged) else rows
    check_finite(values)
    return [number_list(row) if np.ndim(row) else float(row) for row in rows]
