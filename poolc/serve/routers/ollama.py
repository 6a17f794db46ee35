"""Ollama's dialect: ``/api/embed``."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response

from poolc.runtime.request import Params
from poolc.serve.asking import ask, body_of, documented, registry_of, reply
from poolc.serve.bodies import check_finite, number_list
from poolc.serve.dialects import Dialect
from poolc.serve.routers.openai import check_matryoshka
from poolc.serve.schemas.ollama import EmbedReply, EmbedRequest
from poolc.spec import Task

router = APIRouter(tags=["Ollama"])


@router.post(
    "/api/embed", response_model=EmbedReply, **documented(EmbedRequest, dialect=Dialect.OLLAMA)
)
async def embed(request: Request) -> Response:
    """Return one vector a text."""
    started_ns = time.perf_counter_ns()
    asked = await body_of(request, EmbedRequest)
    model = registry_of(request).find(asked.model)
    check_matryoshka(model, asked.model, asked.dimensions)
    params = Params(dimensions=asked.dimensions, truncate=asked.truncate, prompt="")
    answer = await ask(request, model, Task.EMBED, asked.input, params)
    vectors = np.asarray(answer.result)

    def content() -> dict[str, Any]:
        check_finite(vectors)
        return {
            "model": model.shown_name(asked.model),
            "embeddings": list(map(number_list, vectors)),
            "total_duration": time.perf_counter_ns() - started_ns,
            "load_duration": 0,
            "prompt_eval_count": answer.num_tokens,
        }

    return await reply(request, model, answer, vectors.size, content)
