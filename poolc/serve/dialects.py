"""Whose clients speak on which path, and what an error looks like to them: the one table.

Where two dialects share a path, the fields of the body decide (docs/serving.md has the table), and
the router says so with ``speak``; until it has read them, the path's own dialect answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from fastapi import Request


class Dialect(StrEnum):
    """A family of clients that expect one form of error."""

    OPENAI = "openai"  # and vLLM, Jina, and everything that is only ours
    COHERE = "cohere"
    TEI = "tei"
    OLLAMA = "ollama"
    WEAVIATE = "weaviate"


_PATHS: Mapping[str, Dialect] = {
    "/": Dialect.TEI,
    "/embed": Dialect.TEI,
    "/embed_all": Dialect.TEI,
    "/embed_sparse": Dialect.TEI,
    "/predict": Dialect.TEI,
    "/similarity": Dialect.TEI,
    "/decode": Dialect.TEI,
    "/info": Dialect.TEI,
    "/v1/embed": Dialect.COHERE,
    "/v2/embed": Dialect.COHERE,
    "/api/embed": Dialect.OLLAMA,
    "/vectors": Dialect.WEAVIATE,
    "/meta": Dialect.WEAVIATE,
}


def speak(request: Request, dialect: Dialect) -> None:
    """Say that errors of this request are for clients of ``dialect``."""
    request.state.dialect = dialect


def dialect_of(request: Request) -> Dialect:
    """Return whose error a request gets."""
    chosen: Dialect | None = getattr(request.state, "dialect", None)
    if chosen is not None:
        return chosen
    return dialect_of_path(path_of(request))


def dialect_of_path(path: str) -> Dialect:
    """Return whose path it is, without what a proxy puts before it."""
    return _PATHS.get(path, Dialect.OPENAI)


def path_of(request: Request) -> str:
    """Return the path that was asked for, without what a proxy puts before it."""
    path, root = str(request.scope["path"]), str(request.scope.get("root_path", ""))
    return (path.removeprefix(root) or "/") if path.startswith(f"{root}/") else path


def error_content(
    dialect: Dialect, message: str, kind: str, status: int, param: str | None
) -> dict[str, Any]:
    """Return the body of an error."""
    return _BODIES[dialect](message, kind, status, param)


def _openai(message: str, kind: str, status: int, param: str | None) -> dict[str, Any]:
    error = {"object": "error", "message": message, "type": kind, "param": param, "code": status}
    # vLLM's 2025-09 page has the keys at the top level; OpenAI's clients look under ``error``.
    return {**error, "error": error}


def _tei(message: str, kind: str, status: int, param: str | None) -> dict[str, Any]:
    return {"error": message, "error_type": TEI_TYPES.get(status, "Validation")}


def _message(message: str, kind: str, status: int, param: str | None) -> dict[str, Any]:
    return {"message": message}


def _error(message: str, kind: str, status: int, param: str | None) -> dict[str, Any]:
    return {"error": message}


# text-embeddings-inference's names (router/src/http/types.rs, ErrorType), by our statuses.
TEI_TYPES: Mapping[int, str] = {
    429: "Overloaded",
    500: "Backend",
    503: "Unhealthy",
    504: "Overloaded",
}
_BODIES: Mapping[Dialect, Callable[[str, str, int, str | None], dict[str, Any]]] = {
    Dialect.OPENAI: _openai,
    Dialect.COHERE: _message,
    Dialect.TEI: _tei,
    Dialect.OLLAMA: _error,
    Dialect.WEAVIATE: _error,
}
