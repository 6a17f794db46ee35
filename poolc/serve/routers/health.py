"""Probes: ``/health`` says that the event loop runs, ``/ready`` that every model answers.

And ``/metrics``, what has happened so far.
"""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response

from poolc.errors import PoolcError
from poolc.serve.errors import Draining, NotReady
from poolc.serve.metrics import CONTENT_TYPE, Metrics
from poolc.serve.registry import Registry
from poolc.serve.schemas.common import ErrorReply, Status

router = APIRouter(tags=["probes"])


@router.get("/health")
@router.get("/ping")
@router.get("/", include_in_schema=False)  # text-embeddings-inference's
@router.post("/ping", include_in_schema=False)
@router.head("/health", include_in_schema=False)
@router.head("/ping", include_in_schema=False)
@router.head("/", include_in_schema=False)
async def health() -> Status:
    """Live: 200 while the process answers, whatever the models do."""
    return Status(status="ok")


@router.get("/ready", responses={503: {"model": ErrorReply}})
@router.head("/ready", include_in_schema=False)
async def ready(request: Request) -> Status:
    """Ready: 200 once every model has just answered a short text; 503 if not, or while stopping."""
    await check_ready(request)
    return Status(status="ready")


@router.head("/.well-known/ready", status_code=204, include_in_schema=False)
async def weaviate_ready(request: Request) -> Response:
    """Ready, as Weaviate asks; its GET is with the rest of its dialect."""
    await check_ready(request)
    return Response(status_code=204)


@router.head("/.well-known/live", status_code=204, include_in_schema=False)
async def weaviate_live() -> Response:
    """Live, as Weaviate asks."""
    return Response(status_code=204)


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Everything that is counted, in Prometheus' text format."""
    found: Metrics = request.app.state.metrics
    return Response(found.exposition(), media_type=CONTENT_TYPE)


async def check_ready(request: Request) -> None:
    """Raise NotReady, or Draining, where a model does not answer."""
    registry: Registry = request.app.state.registry
    try:
        await asyncio.gather(*(model.scheduler.probe() for model in registry.models))
    except Draining:
        raise
    except PoolcError as error:
        raise NotReady("a model does not answer; the server's log says why") from error
