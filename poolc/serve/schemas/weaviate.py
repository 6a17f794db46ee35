"""Inference containers of Weaviate's text2vec-transformers (its t2v-transformers-models)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field, model_validator

from poolc.serve.schemas.common import ModelRequest


class VectorConfig(BaseModel):
    """``task_type`` picks the model's prompt of that side, where it has one."""

    pooling_strategy: str | None = Field(None, description="the model's own is used")
    task_type: Literal["query", "passage"] | None = None
    dimensions: int | None = None


class VectorRequest(ModelRequest):
    """One ``text``, or ``texts``."""

    text: str | None = None
    texts: list[str] | None = None
    config: VectorConfig | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> VectorRequest:
        if (self.text is None) == (self.texts is None):
            raise ValueError("allowed: exactly one of text and texts")
        return self


class VectorReply(BaseModel):
    """The vector of one text, or those of several."""

    text: str | None = None
    vector: list[float] | None = None
    vectors: list[list[float]] | None = None
    dim: int


class Meta(BaseModel):
    """What Weaviate shows of the model: its configuration."""

    model: dict[str, Any]
    model_path: str
