"""Reranking as vLLM, Cohere (v1, v2) and Jina ask for it: a query, documents, the best first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from pydantic import BaseModel, Field, model_validator

from poolc.serve.schemas.common import Text, Texts
from poolc.serve.schemas.vllm import PairFields


class RerankRequest(PairFields):
    """``documents`` are texts or objects with ``text``; all of them are ranked."""

    query: Text
    documents: Texts
    top_n: int | None = Field(None, ge=0, description="how many are returned; 0 or none: all")
    return_documents: bool = Field(True, description="whether results hold their document's text")
    rank_fields: list[str] | None = Field(
        None, description="Cohere's v1: keys of documents that are objects, joined by newlines"
    )

    @model_validator(mode="before")
    @classmethod
    def _joined(cls, plain: dict[str, Any]) -> dict[str, Any]:
        names, documents = plain.get("rank_fields"), plain.get("documents")
        if not isinstance(names, list) or not isinstance(documents, list):
            return plain
        if not all(isinstance(name, str) for name in names):
            raise ValueError("rank_fields: allowed: a list of keys, which are strings")
        return {**plain, "documents": [_fields(document, names) for document in documents]}

    def _budget(self, field: str, max_length: int) -> int | None:
        """Return the tokens that a text may have.

        Of documents, no more than the model takes: Cohere's clients send what its own models take,
        whatever model answers.
        """
        if field == "max_tokens_per_doc":
            return min(self.max_tokens_per_doc, max_length - 1) or None
        return super()._budget(field, max_length)


def _fields(document: Any, names: Sequence[str]) -> Any:
    """Return the values of a document that is an object, one a line; null is none."""
    if not isinstance(document, dict):
        return document
    values = (document.get(name) for name in names)
    return "\n".join(_spelled(value) for value in values if value is not None)


def _spelled(value: Any) -> str:
    """Return a value as the request spells it."""
    try:
        return value if isinstance(value, str) else orjson.dumps(value).decode()
    except orjson.JSONEncodeError as error:  # it writes less deep than it reads
        raise ValueError(f"documents: a value in rank_fields cannot be written: {error}") from error


class Document(BaseModel):
    """A document that was ranked."""

    text: str


class Ranked(BaseModel):
    """A document's place in the request and its score."""

    index: int
    relevance_score: float
    document: Document | None = None


class RerankUsage(BaseModel):
    """Tokens that were computed."""

    prompt_tokens: int
    total_tokens: int


class RerankReply(BaseModel):
    """The reply to all three: each client finds its keys."""

    id: str
    model: str
    usage: RerankUsage
    results: list[Ranked]
    meta: dict[str, Any]
