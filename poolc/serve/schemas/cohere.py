"""Cohere's embeddings, v1 and v2 (docs.cohere.com/reference/embed)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field, model_validator

from poolc.errors import InvalidOption
from poolc.runtime.request import Params
from poolc.serve.schemas.common import ModelRequest, PriorityFields
from poolc.spec import ModelSpec

CohereType = Literal["float", "int8", "uint8", "binary", "ubinary", "base64"]
Truncate = Literal["NONE", "START", "END", "LEFT", "RIGHT"]

# Cohere's names of what texts are for, and those that other models have prompts under.
_INPUT_TYPES = {
    "search_query": "query",
    "search_document": "document",
    "classification": "classification",
    "clustering": "clustering",
}
_SIDES = {"START": "left", "LEFT": "left", "END": "right", "RIGHT": "right"}


class EmbedRequest(ModelRequest, PriorityFields):
    """Exactly one of ``texts`` and ``inputs``; images are refused by name."""

    texts: list[str] | None = None
    inputs: list[dict[str, Any]] | None = Field(None, description="objects with text parts")
    images: list[Any] | None = Field(None, description="refused: this server reads text only")
    input_type: str | None = Field(None, description="search_query, search_document, ...")
    embedding_types: list[CohereType] | None = Field(None, description="float unless given")
    output_dimension: int | None = Field(None, description="Matryoshka size of the vectors")
    truncate: Truncate = "END"
    max_tokens: int | None = Field(None, ge=1, description="cut texts to this many tokens")

    @model_validator(mode="after")
    def _one_kind(self) -> EmbedRequest:
        if self.images:
            raise ValueError("images: this server reads text only")
        if bool(self.texts) == bool(self.inputs):
            raise ValueError("allowed: exactly one of texts and inputs, not empty")
        self.all_texts()
        return self

    def all_texts(self) -> list[str]:
        """Return the texts. Raises ValueError for parts that are none."""
        return self.texts if self.texts else [_text_of(one) for one in self.inputs or ()]

    def params(self, spec: ModelSpec, dtype: str) -> Params:
        """Return what the engine needs to know for vectors of ``dtype``.

        Raises InvalidOption for an ``input_type`` that a model with prompts does not have.
        """
        name = self._prompt_name(spec)
        cut: dict[str, Any] = {"max_length": self._max_length(spec)}
        cut["truncate"] = self.truncate != "NONE"
        if cut["truncate"]:
            cut["truncation_side"] = _SIDES[self.truncate]
        return Params(
            dimensions=self.output_dimension,
            prompt_name=name,
            prompt="" if name is None else None,
            output_dtype=dtype,
            **cut,
        )

    def _max_length(self, spec: ModelSpec) -> int | None:
        return None if self.max_tokens is None else min(self.max_tokens, spec.max_length)

    def _prompt_name(self, spec: ModelSpec) -> str | None:
        """Return the model's prompt for the input type; None where the model has none at all."""
        asked = self.input_type
        if asked is None or not any(spec.prompts.values()):
            return None
        for name in (asked, _INPUT_TYPES.get(asked, "")):
            if name in spec.prompts:
                return name
        if asked in _INPUT_TYPES:
            return None
        known = ", ".join(sorted({*spec.prompts, *_INPUT_TYPES}))
        raise InvalidOption(f"input_type is {asked!r}; allowed: {known}", param="input_type")


def _text_of(one: dict[str, Any]) -> str:
    """Join the text parts of an input."""
    content = one.get("content")
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise ValueError("an input has no content: allowed: a text or a list of text parts")
    parts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        if kind != "text" or not isinstance(part.get("text"), str):
            raise ValueError(f"a part of type {kind!r}: this server reads text only")
        parts.append(part["text"])
    return "".join(parts)


class EmbedReply(BaseModel):
    """Vectors: a list under v1 without types, else one list a type."""

    id: str
    embeddings: dict[str, list[Any]] | list[list[float]]
    texts: list[str]
    meta: dict[str, Any]
    response_type: Literal["embeddings_by_type", "embeddings_floats"]
