"""vLLM's requests and replies beside embeddings: pooling, classify, score, tokenize."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, model_validator

from poolc.errors import InvalidOption
from poolc.runtime.request import Params
from poolc.serve.schemas.common import (
    ActivationFields,
    EncodingFields,
    InputFields,
    MessageFields,
    ModelRequest,
    RequestFields,
    Texts,
    TruncationFields,
    Usage,
)

# Each pair of names that vLLM takes for the two sides of a score.
_SIDES = (
    ("text_1", "text_2"),
    ("queries", "documents"),
    ("queries", "items"),
    ("data_1", "data_2"),
)


class InputRequest(ModelRequest, InputFields, TruncationFields, ActivationFields, RequestFields):
    """What vLLM's requests over an ``input`` share."""

    user: str | None = None


class ClassifyRequest(InputRequest):
    """``/classify``: the label of each text."""

    def params(self, max_length: int) -> Params:
        """Return what the engine needs to know."""
        params = Params(use_activation=self.activated(), add_special_tokens=self.special_tokens)
        return self.cut(params, max_length)


class PoolingRequest(InputRequest, EncodingFields):
    """``/pooling``: whatever the model answers to each text, as arrays."""

    task: str | None = Field(None, description="embed, classify, token_embed, ...")
    dimensions: int | None = Field(None, description="Matryoshka size of the vectors")


class PairFields(ModelRequest, TruncationFields, ActivationFields, RequestFields):
    """What requests for scores of pairs share."""

    user: str | None = None
    instruction: str | None = Field(None, description="what the model's score template is given")
    chat_template_kwargs: dict[str, Any] | None = Field(None, description="with an instruction")
    max_tokens_per_query: int = Field(0, ge=0, description="0: as many as there are")
    max_tokens_per_doc: int = Field(0, ge=0, description="0: as many as there are")

    def pair_params(self, max_length: int, *, scored: bool) -> Params:
        """Return what the engine needs; ``scored``: the model has a label for the score.

        Raises InvalidOption for what the model does not take.
        """
        params = Params(
            use_activation=self.activated() if scored else None,
            instruction=self._instruction(),
            max_query_length=self._budget("max_tokens_per_query", max_length),
            max_document_length=self._budget("max_tokens_per_doc", max_length),
        )
        return self.cut(params, max_length)

    def _budget(self, field: str, max_length: int) -> int | None:
        """Return the tokens that a text may have; the engine would name no field of a request."""
        asked: int = getattr(self, field)
        if asked >= max_length:
            raise InvalidOption(
                f"{field} is {asked}; allowed: 1 to {max_length - 1} tokens, or 0 for as many as "
                "there are",
                param=field,
            )
        return asked or None

    def _instruction(self) -> str | None:
        if self.instruction is not None:
            return self.instruction
        given = (self.chat_template_kwargs or {}).get("instruction")
        if given is not None and not isinstance(given, str):
            raise InvalidOption(
                f"chat_template_kwargs.instruction is {given!r}; allowed: a string",
                param="chat_template_kwargs",
            )
        return given


def _under_all_names(schema: dict[str, Any]) -> None:
    """Tell OpenAPI of every pair of names: the model has fields for the first."""
    properties = schema["properties"]
    for field, names in zip(_SIDES[0], zip(*_SIDES, strict=True), strict=True):
        side = properties.pop(field)
        properties |= {name: {**side, "title": name} for name in names}
    del schema["required"]
    schema["anyOf"] = [{"required": list(names)} for names in _SIDES]


class ScoreRequest(PairFields):
    """``/score``: 1 and 1, 1 and N, or N and N texts."""

    model_config = ConfigDict(json_schema_extra=_under_all_names)

    left: Texts = Field(
        validation_alias="text_1", description="a text for all of the other side, or as many"
    )
    right: Texts = Field(validation_alias="text_2", description="a text or more")

    @model_validator(mode="before")
    @classmethod
    def _named(cls, plain: dict[str, Any]) -> dict[str, Any]:
        for left, right in _SIDES:
            if left in plain and right in plain:
                return {**plain, "text_1": plain[left], "text_2": plain[right]}
        return plain


class TokenizeRequest(ModelRequest, MessageFields):
    """``/tokenize`` with ``prompt`` or chat ``messages``."""

    prompt: str | None = None
    add_generation_prompt: bool = Field(True, description="of messages")
    return_token_strs: bool = False

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("prompt or messages: send one of them, and not both")
        if self.continue_final_message and "add_generation_prompt" not in self.model_fields_set:
            self.add_generation_prompt = False
        return self

    def text(self, chat_prompt: Callable[..., str]) -> str:
        """Return the text; ``chat_prompt`` writes messages out, and raises InvalidOption."""
        return self.written(chat_prompt) if self.messages is not None else self.prompt or ""


def _ids(value: Any) -> list[int]:
    if not isinstance(value, list) or not all(type(i) is int and 0 <= i < 1 << 31 for i in value):
        raise ValueError("allowed: a list of token ids")
    return value


TokenIds = Annotated[list[int], PlainValidator(_ids, json_schema_input_type=list[int])]


class DetokenizeRequest(ModelRequest):
    """``/detokenize``: the text of token ids."""

    tokens: TokenIds


class Pooled(BaseModel):
    """What the model answered to one text; with ``encoding_format`` base64 it is base64."""

    index: int
    object: Literal["pooling"]
    data: list[float] | list[list[float]] | float | str


class PoolingReply(BaseModel):
    """vLLM's pooling reply."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[Pooled]
    usage: Usage


class Classified(BaseModel):
    """The label of one text, and the probabilities of all."""

    index: int
    label: str | None
    probs: list[float]
    num_classes: int


class ClassifyReply(BaseModel):
    """vLLM's classification reply."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[Classified]
    usage: Usage


class Score(BaseModel):
    """The score of one pair."""

    index: int
    object: Literal["score"]
    score: float


class ScoreReply(BaseModel):
    """vLLM's score reply."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[Score]
    usage: Usage


class TokenizeReply(BaseModel):
    """vLLM's tokenize reply."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class DetokenizeReply(BaseModel):
    """vLLM's detokenize reply."""

    prompt: str


class Version(BaseModel):
    """The version of poolc."""

    version: str


class Load(BaseModel):
    """Requests that are in work."""

    server_load: int
