"""Fields that several dialects have, and how they become a request's parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    model_validator,
)

from poolc.errors import InvalidOption
from poolc.runtime.request import Item, Params
from poolc.serve.encoding import EmbedDtype, EncodingFormat, Endianness

TruncationSide = Literal["left", "right"]

_ALLOWED_INPUT = (
    "allowed: a text, a list of texts, a list of token ids or a list of lists of token ids"
)
_ALLOWED_TEXTS = "allowed: a text or a list of texts"


def checked_items(value: Any) -> list[Item]:
    """Turn the four shapes of OpenAI's ``input`` into a list of items.

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


def _checked_texts(value: Any) -> list[str]:
    """Turn a text, an object with ``text``, or a list of either into a list of texts."""
    values = value if isinstance(value, list) else [value]
    if not values:
        raise ValueError("the list is empty; " + _ALLOWED_TEXTS)
    return [_checked_text(one) for one in values]


def _checked_text(value: Any) -> str:
    if isinstance(value, dict) and value.get("type") not in (None, "text"):
        raise ValueError(f"a part of type {value['type']!r}: this server reads text only")
    if isinstance(value, dict) and "text" not in value:
        raise ValueError(f"an object with {', '.join(value) or 'nothing'}: allowed: text")
    text = value["text"] if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise ValueError(_ALLOWED_TEXTS)
    return text


def _content(value: Any) -> Any:
    """Join the text parts of a message's content by line breaks, as vLLM does."""
    if not isinstance(value, list):
        return value
    for index, part in enumerate(value):
        kind = part.get("type", "text") if isinstance(part, dict) else type(part).__name__
        text = part.get("text") if isinstance(part, dict) else None
        if kind != "text" or not isinstance(text, str):
            raise ValueError(f"part {index} is of type {kind!r}: this server reads text only")
    return "\n".join(part["text"] for part in value)


_TEXTUAL = str | list[str] | dict[str, Any] | list[dict[str, Any]]

Items = Annotated[
    list[Item],
    PlainValidator(
        checked_items, json_schema_input_type=str | list[str] | list[int] | list[list[int]]
    ),
]
"""OpenAI's ``input``: a text, texts, token ids, or lists of token ids."""

Texts = Annotated[list[str], PlainValidator(_checked_texts, json_schema_input_type=_TEXTUAL)]
"""A text or texts, each as it is or as an object with ``text``."""

Text = Annotated[str, BeforeValidator(_checked_text, json_schema_input_type=str | dict[str, Any])]
"""A text, as it is or as an object with ``text``."""


class Request(BaseModel):
    """What every request is: typed strictly, and open to fields that mean nothing here.

    Fields that are null never come this far (``bodies.read_body``).
    """

    model_config = ConfigDict(strict=True, extra="ignore")


class ModelRequest(Request):
    """A request that may name a model."""

    model: str | None = Field(None, description="what the server calls a model")


class ChatMessage(BaseModel):
    """One message of a conversation; other keys of it are the chat template's."""

    model_config = ConfigDict(strict=True, extra="allow")

    role: str
    content: Annotated[
        str, BeforeValidator(_content, json_schema_input_type=str | list[dict[str, Any]])
    ] = ""


class MessageFields(Request):
    """Chat ``messages``, which are one text, and how that is written out (vLLM's)."""

    messages: list[ChatMessage] | None = Field(
        None, min_length=1, description="a conversation, written out by the model's chat template"
    )
    add_special_tokens: bool = Field(True, description="of messages only where it is sent")
    add_generation_prompt: bool = Field(False, description="of messages")
    continue_final_message: bool = Field(False, description="of messages")
    chat_template_kwargs: dict[str, Any] | None = Field(None, description="of messages")
    chat_template: str | None = Field(None, description="vLLM's; the model's own is used")

    @model_validator(mode="after")
    def _own_template(self) -> Self:
        if self.chat_template is not None:
            raise ValueError("chat_template: templates of requests are not run; leave it out")
        return self

    def written(self, chat_prompt: Callable[..., str]) -> str:
        """Return the text of the messages; ``chat_prompt`` raises InvalidOption."""
        return chat_prompt(
            [message.model_dump() for message in self.messages or ()],
            add_generation_prompt=self.add_generation_prompt,
            continue_final_message=self.continue_final_message,
            variables=self.chat_template_kwargs or {},
        )

    @property
    def special_tokens(self) -> bool:
        """Whether the tokenizer adds its own: chat templates write what they want."""
        asked = "add_special_tokens" in self.model_fields_set
        return self.add_special_tokens if asked else self.messages is None


class InputFields(MessageFields):
    """Requests over an ``input``, or over chat ``messages``."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["input"]}, {"required": ["messages"]}]}
    )

    input: Items | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.input is None) == (self.messages is None):
            if self.input is None:
                raise ValueError("input is missing: send it, or messages")
            raise ValueError("input and messages are both there: send one of them")
        return self

    def items(self, chat_prompt: Callable[..., str]) -> list[Item]:
        """Return the texts; ``chat_prompt`` writes messages out, and raises InvalidOption."""
        return [self.written(chat_prompt)] if self.messages is not None else self.input or []


class PriorityFields(Request):
    """vLLM's and Cohere's order of requests."""

    priority: int = Field(0, description="requests with a lower one come first")


class RequestFields(PriorityFields):
    """What every request of vLLM's may say about itself."""

    request_id: str | None = Field(None, description="what the reply's id ends with")
    cache_salt: str | None = Field(
        None, min_length=1, max_length=1024, description="vLLM's; nothing is cached here"
    )
    padding: Literal["do_not_pad", "max_length"] | None = Field(
        None, description="vLLM's; max_length is refused: padding never counts here"
    )

    @model_validator(mode="after")
    def _never_padded(self) -> Self:
        if self.padding == "max_length":
            raise ValueError(
                "padding: max_length would have padding counted as text; allowed: do_not_pad"
            )
        return self

    def reply_id(self, prefix: str, own: str) -> str:
        """Return the id of the reply; ``own`` is what the server calls the request."""
        return f"{prefix}-{self.request_id or own}"


class TruncationFields(Request):
    """vLLM's way to ask for truncation."""

    truncate_prompt_tokens: int | None = Field(
        None, description="cut texts to this many tokens; -1: to what the model accepts"
    )
    truncation_side: TruncationSide | None = Field(
        None, description="which end is cut off; the model's unless given"
    )

    def cut(self, params: Params, max_length: int) -> Params:
        """Return ``params`` with the truncation asked for; ``max_length`` is the model's.

        Raises InvalidOption for a truncation that the model does not take.
        """
        if self.truncate_prompt_tokens is None:
            return replace(params, truncation_side=self.truncation_side)
        cut = params.truncated_to(self.truncate_prompt_tokens, max_length)
        return replace(cut, truncation_side=self.truncation_side)


class ActivationFields(Request):
    """vLLM's old and new name for what happens to the numbers of the last layer."""

    normalize: bool | None = Field(None, description="as the model says unless given")
    use_activation: bool | None = Field(None, description="vLLM's newer name of normalize")

    def activated(self) -> bool | None:
        """Return what was asked for. Raises InvalidOption for two spellings that differ."""
        said = {self.normalize, self.use_activation} - {None}
        if len(said) > 1:
            raise InvalidOption(
                "normalize and use_activation mean the same and differ: give one",
                param="use_activation",
            )
        return next(iter(said), None)


class EncodingFields(Request):
    """vLLM's ways to send the numbers of a reply."""

    encoding_format: EncodingFormat = Field("float", description="bytes: no JSON, but a header")
    embed_dtype: EmbedDtype = Field("float32", description="of base64 and bytes")
    endianness: Endianness = Field("native", description="of base64 and bytes")

    @property
    def as_base64(self) -> bool:
        """Whether arrays are sent as base64."""
        return self.encoding_format == "base64"


class Usage(BaseModel):
    """Tokens that were computed, special tokens included, padding excluded."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int
    prompt_tokens_details: None


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


class TeiErrorReply(BaseModel):
    """An error as text-embeddings-inference sends it."""

    error: str
    error_type: str


class MessageReply(BaseModel):
    """An error as Cohere sends it."""

    message: str


class PlainErrorReply(BaseModel):
    """An error as Ollama and Weaviate's inference containers send it."""

    error: str


class Status(BaseModel):
    """A probe that succeeded."""

    status: Literal["ok", "ready"]
