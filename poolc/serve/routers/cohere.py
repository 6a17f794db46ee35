"""Cohere's dialect: embeddings of v1 and v2. Its reranking is everybody's: see ``shared.py``."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Request, Response

from poolc.runtime.outputs import check_dtype, convert_dtype, l2_normalize
from poolc.serve.asking import ask, body_of, documented, registry_of, reply
from poolc.serve.bodies import base64_vector, check_finite, number_list
from poolc.serve.dialects import Dialect
from poolc.serve.routers.openai import check_matryoshka
from poolc.serve.schemas.cohere import CohereType, EmbedReply, EmbedRequest
from poolc.spec import Task

router = APIRouter(tags=["Cohere"])

_QUANTIZED = ("int8", "uint8", "binary", "ubinary")


@router.post(
    "/v2/embed",
    response_model=EmbedReply,
    **documented(EmbedRequest, dialect=Dialect.COHERE),
)
async def embed_v2(request: Request) -> Response:
    """Return vectors of each type that was asked for."""
    asked = await body_of(request, EmbedRequest)
    return await _embed(request, asked, by_type=True, version="2")


@router.post(
    "/v1/embed",
    response_model=EmbedReply,
    **documented(EmbedRequest, dialect=Dialect.COHERE),
)
async def embed_v1(request: Request) -> Response:
    """Return vectors: a plain list where no types were asked for."""
    asked = await body_of(request, EmbedRequest)
    return await _embed(request, asked, by_type=asked.embedding_types is not None, version="1")


async def _embed(request: Request, asked: EmbedRequest, *, by_type: bool, version: str) -> Response:
    model = registry_of(request).find(asked.model)
    check_matryoshka(model, asked.model, asked.output_dimension)
    spec, texts = model.engine.spec, asked.all_texts()
    types = tuple(dict.fromkeys(asked.embedding_types or ("float",)))
    size = asked.output_dimension or spec.default_dimensions or spec.embedding_size
    for kind in set(types) & {*_QUANTIZED}:
        check_dtype(kind, size)
    answer = await ask(
        request, model, Task.EMBED, texts, asked.params(spec, "float32"), priority=asked.priority
    )
    vectors = np.asarray(answer.result, dtype=np.float32)

    def content() -> dict[str, Any]:
        check_finite(vectors)
        lists = {kind: _encoded(vectors, kind) for kind in types}
        kind = "embeddings_by_type" if by_type else "embeddings_floats"
        return {
            "id": str(uuid.uuid4()),
            "embeddings": lists if by_type else lists["float"],
            "texts": texts,
            "meta": {
                "api_version": {"version": version},
                "billed_units": {"input_tokens": answer.num_tokens},
            },
            "response_type": kind,
        }

    return await reply(request, model, answer, vectors.size * len(types), content)


def _encoded(vectors: npt.NDArray[np.float32], kind: CohereType) -> list[Any]:
    if kind in _QUANTIZED:
        # int8 counts 127ths of a unit vector: of others it would be out of range.
        unit = l2_normalize(vectors) if kind.endswith("int8") else vectors
        return list(map(number_list, convert_dtype(unit, kind)))
    return list(map(_ENCODERS[kind], vectors))


_ENCODERS: Mapping[str, Callable[[npt.NDArray[Any]], Any]] = {
    "float": number_list,
    "base64": base64_vector,
}
