"""What requests and replies look like. Unknown request fields are ignored, as clients expect.

Request models are validated. Replies with vectors are built from arrays (``bodies.py``): their
models here only tell OpenAPI what they look like.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator

from poolc.errors import InvalidOption
from poolc.runtime.request import Item, Params

EncodingFormat = Literal["float", "base64"]
TruncationSide = Literal["left", "right"]

_ALLOWED_INPUT = (
    "allowed: a text, a list of texts, a list of token ids or a list of lists of token ids"
)


def _checked_input(value: Any) -> list[Item]:
    """Turn the four shapes of ``input`` into a list of items.

    What is inside an item (empty, too long, an id outside the vocabulary) is for the engine to say.
    """
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise ValueError(_ALLOWED_INPUT)
    if not value:
        raise ValueError("the list is empty; " + _ALLOWED_INPUT)
    kinds = set(map(type, value))
    if kinds == {int} and _are_ids(value):
        return [value]
    if kinds == {str} or (kinds == {list} and all(map(_are_ids, value))):
        return value
    raise ValueError(_ALLOWED_INPUT)


def _are_ids(values: list[Any]) -> bool:
    # Ids are int64 from here on; JSON's largest integers are not.
    return set(map(type, values)) <= {int} and max(values, default=0) < 1 << 63


class EmbeddingRequest(BaseModel):
    """OpenAI's embeddings request, with vLLM's and Sentence Transformers' additions."""

    model_config = ConfigDict(strict=True, extra="ignore")

    input: Annotated[
        list[Item],
        PlainValidator(
            _checked_input, json_schema_input_type=str | list[str] | list[int] | list[list[int]]
        ),
    ]
    model: str | None = None
    encoding_format: EncodingFormat | None = Field("float", description="float unless given")
    dimensions: int | None = Field(None, description="Matryoshka size of the vectors")
    user: str | None = None
    truncate_prompt_tokens: int | None = Field(
        None, description="cut texts to this many tokens; -1: to what the model accepts"
    )
    truncation_side: TruncationSide | None = Field(
        None, description="which end is cut off; the model's unless given"
    )
    add_special_tokens: bool = True
    normalize: bool | None = Field(None, description="as the model says unless given")
    use_activation: bool | None = Field(None, description="vLLM's newer name of normalize")
    side: str | None = Field(
        None, description="whose texts: query or document, with its prompt and its route"
    )
    prompt_name: str | None = Field(None, description="one of the model's prompts; none if absent")
    prompt: str | None = Field(None, description="put before every text")

    def params(self, max_length: int) -> Params:
        """Return what the engine needs to know; no prompt is applied unless asked.

        ``max_length`` is the model's. Raises InvalidOption for a truncation that it does not take,
        and for two spellings that differ.
        """
        asked = any(value is not None for value in (self.prompt, self.prompt_name, self.side))
        params = Params(
            dimensions=self.dimensions,
            normalize=self._normalize(),
            prompt_name=self.prompt_name,
            prompt=self.prompt if asked else "",
            add_special_tokens=self.add_special_tokens,
            side=self.side,
        )
        if self.truncate_prompt_tokens is None:
            return params  # a side of nothing: vLLM takes it too
        cut = params.truncated_to(self.truncate_prompt_tokens, max_length)
        return replace(cut, truncation_side=self.truncation_side)

    def _normalize(self) -> bool | None:
        said = {self.normalize, self.use_activation} - {None}
        if len(said) > 1:
            raise InvalidOption(
                "normalize and use_activation mean the same and differ: give one",
                param="use_activation",
            )
        return next(iter(said), None)


class Embedding(BaseModel):
    """One vector; with ``encoding_format`` base64 it is base64 of little-endian float32."""

    index: int
    object: Literal["embedding"]
    embedding: list[float] | str
    truncated: bool | None = Field(None, description="true where the text was cut")


class Usage(BaseModel):
    """Tokens that were computed, special tokens included, padding excluded."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int
    prompt_tokens_details: None


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


class ErrorFields(BaseModel):
    """What went wrong; ``code`` is the HTTP status."""

    object: Literal["error"]
    message: str
    type: str
    param: str | None
    code: int


class ErrorReply(ErrorFields):
    """An error, at the top level and under ``error``."""

    error: ErrorFields


class Status(BaseModel):
    """A probe that succeeded."""

    status: Literal["ok", "ready"]
