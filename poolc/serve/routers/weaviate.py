"""Weaviate's text2vec-transformers: ``/vectors``, ``/meta`` and its probes."""

from __future__ import annotations

from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response

from poolc.runtime.request import Params
from poolc.serve.asking import ask, body_of, documented, errors_of, registry_of, reply
from poolc.serve.bodies import check_finite, number_list
from poolc.serve.dialects import Dialect
from poolc.serve.routers.health import check_ready
from poolc.serve.routers.openai import check_matryoshka
from poolc.serve.schemas.common import PlainErrorReply
from poolc.serve.schemas.weaviate import Meta, VectorConfig, VectorReply, VectorRequest
from poolc.spec import Task

router = APIRouter(tags=["Weaviate"])

_SIDES = {"query": "query", "passage": "document"}


@router.post(
    "/vectors", response_model=VectorReply, **documented(VectorRequest, dialect=Dialect.WEAVIATE)
)
async def vectors(request: Request) -> Response:
    """Return the vector of a text, or of each; what is too long is cut, as Weaviate expects."""
    asked = await body_of(request, VectorRequest)
    config = asked.config or VectorConfig(pooling_strategy=None)
    model = registry_of(request).fit(asked.model, Task.EMBED)
    check_matryoshka(model, asked.model, config.dimensions)
    side = _SIDES.get(config.task_type or "")
    params = Params(
        dimensions=config.dimensions,
        side=side,
        prompt="" if side is None else None,
        truncate=True,
    )
    texts = [asked.text] if asked.text is not None else asked.texts or []
    answer = await ask(request, model, Task.EMBED, texts, params)
    rows = np.asarray(answer.result)

    def content() -> dict[str, Any]:
        check_finite(rows)
        dim = {"dim": int(rows.shape[1])}
        if asked.text is not None:
            return {"text": asked.text, "vector": number_list(rows[0]), **dim}
        return {"vectors": list(map(number_list, rows)), **dim}

    return await reply(request, model, answer, rows.size, content)


@router.get("/meta", responses=errors_of(PlainErrorReply, (400, 401)))
async def meta(request: Request) -> Meta:
    """Describe the model."""
    model = registry_of(request).fit(None, Task.EMBED)
    spec = model.engine.spec
    described = {"model_type": spec.model_type, "architectures": [spec.architecture]}
    sizes = {"hidden_size": spec.hidden_size, "max_length": spec.max_length}
    return Meta(model={**described, **sizes}, model_path=model.names[0])


@router.get("/.well-known/ready", status_code=204)
@router.get("/.well-known/live", status_code=204)
async def well_known(request: Request) -> Response:
    """Ready: 204 once every model has answered a short text."""
    if request.url.path.endswith("/ready"):
        await check_ready(request)
    return Response(status_code=204)
