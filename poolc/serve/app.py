"""The application: which routers there are and how errors answer. Starts nothing by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from poolc import __version__
from poolc.runtime.engine import Engine
from poolc.serve.errors import add_error_handlers
from poolc.serve.metrics import Metrics
from poolc.serve.middleware import RequestLog, RequireKey, Shed
from poolc.serve.refusals import Refusals
from poolc.serve.registry import Registry
from poolc.serve.routers import admin, cohere, health, ollama, openai, shared, tei, vllm, weaviate
from poolc.serve.routers.admin import Load
from poolc.serve.settings import Settings
from poolc.serve.token_ids import TokenIds
from poolc.serve.tracing import Traced, open_tracer

# FastAPI's own spans and counts: ours say more, and it looks for its providers at every request.
_NO_TELEMETRY: Any = {"tracing": False, "metrics": False, "logs": False}


def create_app(
    engines: Mapping[str, Engine], settings: Settings, load: Load | None = None
) -> FastAPI:
    """Return the ASGI application over loaded engines, by the name each was given.

    ``app.state`` holds ``registry``, ``metrics``, ``token_ids``, ``refusals`` and ``settings``, and
    ``stopping`` once the server is; paths behind a proxy (``root_path``) are the server's matter;
    ``load`` is how a model is loaded that is added later. Raises InvalidOption for names that do
    not fit the engines, and for cl100k without its vocabulary.
    """
    app = FastAPI(title="poolc", version=__version__, telemetry=_NO_TELEMETRY)
    registry = Registry(engines, settings)
    metrics = Metrics(registry.gauges, shared=settings.workers > 1)
    for model in registry.models:
        model.scheduler.watch = metrics.watch(model.names[0])
    app.state.registry, app.state.metrics, app.state.settings = registry, metrics, settings
    app.state.token_ids = TokenIds(settings)
    # Web pages are told more, and spans are of every request.
    plain = not settings.allowed_origins and not settings.traces
    app.state.refusals = Refusals(registry, metrics) if plain else None
    add_error_handlers(app)
    # The last one that is added sees a request first.
    app.add_middleware(Shed, registry=registry)
    if settings.api_keys:
        app.add_middleware(RequireKey, keys=settings.api_keys)
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
        )
    app.add_middleware(RequestLog, metrics=metrics)
    if settings.traces:
        app.add_middleware(Traced, tracer=open_tracer())
    if settings.admin and load is not None:
        app.state.load, app.state.loading = load, asyncio.Lock()
        app.include_router(admin.router)
    for dialect in (openai, vllm, shared, cohere, tei, ollama, weaviate, health):
        app.include_router(dialect.router)
    return app
