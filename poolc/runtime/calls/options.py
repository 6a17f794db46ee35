"""The keywords of the public methods, and how they become a request's parameters.

``truncate`` cuts texts of more tokens than the model takes (or ``max_length``, if that is less) at
the end that ``truncation_side`` names, left or right; the list ``truncated`` then receives True or
False a text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from poolc.errors import InvalidOption, nearest
from poolc.runtime.outputs import OutputDtype
from poolc.runtime.request import Params

Side = Literal["query", "document", "plain"]


class LengthParams(TypedDict, total=False):
    """What happens to long texts."""

    truncate: bool
    truncation_side: str | None
    max_length: int | None


class Reported(TypedDict, total=False):
    """Where truncation is reported."""

    truncated: list[bool] | None


class EmbedParams(LengthParams, total=False):
    """Keywords of ``embed`` that are fields of ``Params``."""

    dimensions: int | None
    normalize: bool | None
    prompt_name: str | None
    prompt: str | None
    output_dtype: OutputDtype
    chunk: bool | None
    side: str | None


class EmbedOptions(EmbedParams, Reported, total=False):
    """Keywords of ``embed`` and its twins."""


class SparseParams(LengthParams, total=False):
    """Keywords of ``embed_sparse`` that are fields of ``Params``."""

    side: Side | None
    prompt_name: str | None
    prompt: str | None
    top_k: int | None


class SparseOptions(SparseParams, Reported, total=False):
    """Keywords of ``embed_sparse`` and its twins."""


class TokenVectorParams(LengthParams, total=False):
    """Keywords of ``embed_tokens`` that are fields of ``Params``."""

    side: Side | None
    prompt_name: str | None
    prompt: str | None
    dimensions: int | None
    normalize: bool | None
    output_dtype: OutputDtype


class TokenVectorOptions(TokenVectorParams, Reported, total=False):
    """Keywords of ``embed_tokens`` and its twins."""


class HybridParams(LengthParams, total=False):
    """Keywords of ``embed_hybrid`` that are fields of ``Params``."""

    side: Side | None
    prompt_name: str | None
    prompt: str | None
    top_k: int | None
    dimensions: int | None
    output_dtype: OutputDtype


class HybridOptions(HybridParams, Reported, total=False):
    """Keywords of ``embed_hybrid`` and its twins."""


class PairParams(LengthParams, total=False):
    """How the two texts of a pair are read."""

    instruction: str | None
    template: str | None
    max_query_length: int | None
    max_document_length: int | None


class ClassifyParams(PairParams, total=False):
    """Keywords of ``classify`` that are fields of ``Params``."""

    use_activation: bool | None


class ClassifyOptions(ClassifyParams, Reported, total=False):
    """Keywords of ``classify`` and its twins."""


class RewardParams(ClassifyParams, total=False):
    """Keywords of ``reward`` that are fields of ``Params``."""

    step_tag_id: int | None
    returned_token_ids: Sequence[int] | None


class RewardOptions(RewardParams, Reported, total=False):
    """Keywords of ``reward`` and its twins."""


class ScoreParams(ClassifyParams, total=False):
    """Keywords of ``score`` that are fields of ``Params``."""

    label: str | int | None
    dimensions: int | None
    prompt_name: str | None
    prompt: str | None
    chunk: bool | None


class ScoreOptions(ScoreParams, Reported, total=False):
    """Keywords of ``score`` and its twins."""


class EncodeParams(LengthParams, total=False):
    """Keywords of ``encode`` that are fields of ``Params``."""

    side: str | None
    dimensions: int | None
    normalize: bool | None


class EncodeOptions(EncodeParams, Reported, total=False):
    """Keywords of ``encode`` and its twins."""


class ClassifyTokensParams(LengthParams, total=False):
    """Keywords of ``classify_tokens`` that are fields of ``Params``."""

    aggregation: str
    use_activation: bool | None


class ClassifyTokensOptions(ClassifyTokensParams, Reported, total=False):
    """Keywords of ``classify_tokens`` and its twins."""


_KEYWORDS: Mapping[str, Any] = {
    "embed": EmbedParams,
    "embed_sparse": SparseParams,
    "embed_tokens": TokenVectorParams,
    "embed_hybrid": HybridParams,
    "classify": ClassifyParams,
    "classify_tokens": ClassifyTokensParams,
    "score": ScoreParams,
    "reward": RewardParams,
    "encode": EncodeParams,
}


def params_of(method: str, options: Mapping[str, object]) -> Params:
    """Return the parameters that the keywords of a method (or of a twin) ask for.

    Raises InvalidOption for one that it does not have, with the nearest that it has.
    """
    known = _KEYWORDS[method].__annotations__
    for name in options:
        if name not in known:
            raise InvalidOption(
                f"{method} has no keyword {name!r}; {nearest(name, (*known, 'truncated'))}",
                param=name,
            )
    given: Any = options
    return Params(**given)
