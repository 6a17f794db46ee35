"""text-embeddings-inference's requests and replies (its router/src/http/types.rs)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, PlainValidator, model_validator

from poolc.runtime.request import Item, Params
from poolc.serve.schemas.common import Items, ModelRequest

Direction = Literal["left", "right", "Left", "Right"]

_ALLOWED = "allowed: a text, a pair of texts, or a list of lists of one or two texts"


class _Predicted(list[Item]):
    """What ``/predict`` is asked; ``single``: its reply is one list and not a list of lists."""

    single = False


def _predicted(value: Any) -> _Predicted:
    """Read a text, a pair [a, b], or a batch of [a] and [a, b]."""
    batch = isinstance(value, list) and any(isinstance(one, list) for one in value)
    found = _Predicted(map(_sequence, value if batch else [value]))
    found.single = not batch
    return found


def _sequence(value: Any) -> Item:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(_ALLOWED)
    if len(texts) not in (1, 2):
        raise ValueError(f"{len(texts)} texts in a sequence; {_ALLOWED}")
    return texts[0] if len(texts) == 1 else (texts[0], texts[1])


def _texts(value: Any) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        raise ValueError("allowed: a text or a list of texts")
    return texts


def _ids(value: Any) -> list[list[int]]:
    flat = isinstance(value, list) and bool(value) and not isinstance(value[0], list)
    rows = [value] if flat else value
    if not isinstance(rows, list) or not rows or not all(map(_is_ids, rows)):
        raise ValueError("allowed: a list of token ids, or a list of such lists")
    return rows


def _is_ids(row: Any) -> bool:
    return isinstance(row, list) and all(type(i) is int and 0 <= i < 1 << 31 for i in row)


class TruncateFields(ModelRequest):
    """How text-embeddings-inference asks for truncation."""

    truncate: bool | None = Field(None, description="cut texts to what the model accepts")
    truncation_direction: Direction = Field("right", description="which end is cut off")

    def cut(self) -> dict[str, Any]:
        """Return fields of Params."""
        if self.truncate is False:
            return {"truncate": False}
        side = self.truncation_direction.lower()
        return {"truncate": self.truncate, "truncation_side": side}


class _Inputs(TruncateFields):
    inputs: Items
    prompt_name: str | None = Field(None, description="one of the model's prompts; none if absent")

    def params(self, **more: Any) -> Params:
        """Return what the engine needs to know; no prompt is applied unless asked."""
        prompt = "" if self.prompt_name is None else None
        return Params(prompt_name=self.prompt_name, prompt=prompt, **self.cut(), **more)


class EmbedRequest(_Inputs):
    """``/embed``: one vector a text."""

    normalize: bool = True
    dimensions: int | None = Field(None, description="Matryoshka size of the vectors")


class EmbedAllRequest(_Inputs):
    """``/embed_all``: one vector a token, neither pooled nor normalised."""


class EmbedSparseRequest(_Inputs):
    """``/embed_sparse``: weights by token id."""


class PredictRequest(TruncateFields):
    """``/predict``: the probabilities of labels."""

    inputs: Annotated[
        _Predicted, PlainValidator(_predicted, json_schema_input_type=str | list[str | list[str]])
    ]
    raw_scores: bool = Field(False, description="logits instead of probabilities")


class RerankRequest(TruncateFields):
    """``/rerank`` with ``texts``: how well each of them answers a query."""

    query: str
    texts: list[str] = Field(min_length=1)
    raw_scores: bool = Field(False, description="logits instead of probabilities")
    return_text: bool = False


class Compared(BaseModel):
    """A sentence and those it is compared with."""

    source_sentence: str
    sentences: list[str] = Field(min_length=1)


class SimilarityParameters(TruncateFields):
    """Options of ``/similarity``."""

    prompt_name: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, plain: Any) -> Any:
        """Read null as nothing, as everywhere: those of the body itself are gone by now."""
        if not isinstance(plain, dict):
            return plain
        return {name: value for name, value in plain.items() if value is not None}


class SimilarityRequest(ModelRequest):
    """``/similarity``: cosine similarities of sentences to one."""

    inputs: Compared
    parameters: SimilarityParameters | None = None


class TokenizeRequest(ModelRequest):
    """``/tokenize`` with ``inputs``."""

    inputs: Annotated[list[str], PlainValidator(_texts, json_schema_input_type=str | list[str])]
    add_special_tokens: bool = True
    prompt_name: str | None = None


class DecodeRequest(ModelRequest):
    """``/decode``: texts of token ids."""

    ids: Annotated[
        list[list[int]],
        PlainValidator(_ids, json_schema_input_type=list[int] | list[list[int]]),
    ]
    skip_special_tokens: bool = True


class SparseValue(BaseModel):
    """The weight of a token id."""

    index: int
    value: float


class Prediction(BaseModel):
    """A label and its probability, or logit."""

    score: float
    label: str


class Rank(BaseModel):
    """A text's place in the request and its score; the text itself if asked for."""

    index: int
    score: float
    text: str | None = None


class SimpleToken(BaseModel):
    """A token and where it is in the text, in characters; special ones are nowhere."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


RERANK_REPLY = list[Rank]
TOKENIZE_REPLY = list[list[SimpleToken]]
ROOT_REPLY = (
    list[list[float]] | list[Prediction] | list[list[Prediction]] | RERANK_REPLY | list[float]
)


class Info(BaseModel):
    """What clients ask about a model before they use it."""

    model_id: str
    model_sha: str | None
    model_dtype: str
    served_model_name: str
    model_type: dict[str, Any]
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int
    max_batch_requests: int | None
    max_client_batch_size: int
    auto_truncate: bool
    tokenization_workers: int
    version: str
    sha: str | None
    docker_label: str | None
