"""Ollama's embeddings (its docs/api.md)."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from poolc.serve.schemas.common import ModelRequest, Texts


class EmbedRequest(ModelRequest):
    """``/api/embed``: one vector a text."""

    input: Texts
    truncate: bool = Field(True, description="cut texts to what the model accepts")
    dimensions: int | None = Field(None, description="Matryoshka size of the vectors")
    options: dict[str, Any] | None = Field(None, description="of generation: nothing here")
    keep_alive: str | int | float | None = Field(None, description="models stay loaded here")


class EmbedReply(BaseModel):
    """Vectors, and nanoseconds."""

    model: str
    embeddings: list[list[float]]
    total_duration: int
    load_duration: int
    prompt_eval_count: int
