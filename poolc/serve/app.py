"""The application: which routers there are and how errors answer. Starts nothing by itself."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import FastAPI

from poolc import __version__
from poolc.runtime.engine import Engine
from poolc.serve.errors import add_error_handlers
from poolc.serve.registry import Registry
from poolc.serve.routers import cohere, health, ollama, openai, shared, tei, vllm, weaviate
from poolc.serve.settings import Settings


def create_app(engines: Mapping[str, Engine], settings: Settings) -> FastAPI:
    """Return the ASGI application over loaded engines, by the name each was given.

    ``app.state`` holds ``registry`` and ``settings``. Raises InvalidOption for names that do not
    fit the engines.
    """
    app = FastAPI(title="poolc", version=__version__)
    app.state.registry = Registry(engines, settings)
    app.state.settings = settings
    add_error_handlers(app)
    for dialect in (openai, vllm, shared, cohere, tei, ollama, weaviate, health):
        app.include_router(dialect.router)
    return app
