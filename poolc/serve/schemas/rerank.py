"""Reranking as vLLM, Cohere (v1, v2) and Jina ask for it: a query, documents, the best first."""

from __future__ import annotations

from typing import Any

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
        return {**plain, "documents": [_fields(document, names) for document in documents]}


def _fields(document: Any, names: list[Any]) -> Any:
    if not isinstance(document, dict):
        return document
    return "\n".join(str(document[name]) for name in names if name in document)


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
