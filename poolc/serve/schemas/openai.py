"""OpenAI's embeddings and models, with the additions of vLLM, Sentence Transformers and Jina."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, PlainValidator, model_validator

from poolc.errors import InvalidOption
from poolc.runtime.request import Item, Params
from poolc.serve.schemas.common import (
    ActivationFields,
    EncodingFields,
    InputFields,
    ModelRequest,
    RequestFields,
    TruncationFields,
    Usage,
    checked_items,
)
from poolc.spec import ModelSpec

JinaType = Literal["float", "base64", "binary", "ubinary"]

# Jina's names of what a text is for, and of the sides that other models call them.
_SIDES = {"retrieval.query": "query", "retrieval.passage": "document"}
# What its clients may say beside these, of its versions 3 to 5 and of its models for code.
_CODE = ("code", "nl2code", "code2code", "code2nl", "code2completion", "qa")
_TASKS = (
    *_SIDES,
    *("text-matching", "classification", "separation", "clustering"),
    *(f"{kind}.{side}" for kind in _CODE for side in ("query", "passage")),
)


def _input(value: Any) -> list[Item]:
    """Read OpenAI's ``input``, and Jina's list of objects with ``text``."""
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return [_jina_text(item) for item in value]
    return checked_items(value)


def _jina_text(item: Any) -> str:
    if isinstance(item, str):
        return item
    if isinstance(item, dict) and isinstance(item.get("text"), str) and len(item) == 1:
        return str(item["text"])
    parts = ", ".join(item) if isinstance(item, dict) else type(item).__name__
    raise ValueError(f"a part with {parts}: this server reads text only")


class EmbeddingRequest(
    ModelRequest, InputFields, TruncationFields, ActivationFields, RequestFields, EncodingFields
):
    """A request for vectors, one a text."""

    input: (
        Annotated[
            list[Item],
            PlainValidator(
                _input,
                json_schema_input_type=str
                | list[str]
                | list[int]
                | list[list[int]]
                | list[dict[str, str]],
            ),
        ]
        | None
    ) = None
    dimensions: int | None = Field(None, description="Matryoshka size of the vectors")
    user: str | None = None
    side: str | None = Field(
        None, description="whose texts: query or document, with its prompt and its route"
    )
    prompt_name: str | None = Field(None, description="one of the model's prompts; none if absent")
    prompt: str | None = Field(None, description="put before every text")
    task: str | None = Field(None, description="Jina's: what the vectors are for")
    embedding_type: JinaType | None = Field(None, description="Jina's encoding_format")
    normalized: bool | None = Field(None, description="Jina's normalize")
    truncate: bool | None = Field(None, description="Jina's: cut texts to what the model accepts")
    late_chunking: bool = Field(
        False, description="Jina's: read the texts as one, and answer a vector for each"
    )

    @model_validator(mode="after")
    def _bits_are_bits(self) -> Self:
        octets = self.encoding_format in ("bytes", "bytes_only")
        if self.dtype != "float32" and (octets or "embed_dtype" in self.model_fields_set):
            raise ValueError(
                f"embedding_type: {self.embedding_type} has no embed_dtype; allowed with it: "
                "encoding_format float or base64"
            )
        return self

    def params(self, spec: ModelSpec) -> Params:
        """Return what the engine needs to know; no prompt is applied unless asked.

        Raises InvalidOption for a truncation that the model does not take, spellings that differ,
        and a task that a model with prompts does not have.
        """
        prompt_name, side = self._named(spec)
        asked = any(value is not None for value in (self.prompt, prompt_name, side))
        params = Params(
            dimensions=self.dimensions,
            normalize=self.activated() if self.normalized is None else self.normalized,
            prompt_name=prompt_name,
            prompt=self.prompt if asked else "",
            add_special_tokens=self.special_tokens,
            side=side,
            truncate=self.truncate,
            output_dtype=self.dtype,
        )
        return self.cut(params, spec.max_length)

    def _named(self, spec: ModelSpec) -> tuple[str | None, str | None]:
        """Return the prompt and the side that the request names, itself or by Jina's task.

        A task of Jina's that the model has no prompt for is none; any other is a slip.
        """
        task = self.task
        if task is None or self.prompt_name is not None or self.side is not None:
            return self.prompt_name, self.side
        if task in spec.prompts:
            return task, None
        side = _SIDES.get(task)
        if task not in _TASKS and any(spec.prompts.values()):
            known = ", ".join(sorted({*spec.prompts, *_TASKS}))
            raise InvalidOption(f"task is {task!r}; allowed: {known}", param="task")
        return None, side if side in spec.prompts or spec.router is not None else None

    @property
    def dtype(self) -> str:
        """The output dtype that Jina's ``embedding_type`` asks for."""
        packed = self.embedding_type in ("binary", "ubinary")
        return str(self.embedding_type) if packed else "float32"

    @property
    def as_base64(self) -> bool:
        """Whether vectors are sent as base64."""
        return "base64" in (self.encoding_format, self.embedding_type)


class Embedding(BaseModel):
    """One vector; with ``encoding_format`` base64 it is base64 of ``embed_dtype``, little-endian
    unless ``endianness`` says otherwise."""

    index: int
    object: Literal["embedding"]
    embedding: list[float] | str
    truncated: bool | None = Field(None, description="true where the text was cut")


class EmbeddingReply(BaseModel):
    """OpenAI's embeddings reply."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[Embedding]
    usage: Usage


class ModelCard(BaseModel):
    """One name that a model answers to; ``root`` is the name that its replies show."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["poolc"] = "poolc"
    root: str
    parent: None = None
    max_model_len: int


class ModelList(BaseModel):
    """All names of all models."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
