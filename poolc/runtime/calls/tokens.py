"""encode and classify_tokens: token-level results, and their streaming and async twins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypedDict, Unpack

from poolc.runtime.calls.arguments import Texts, as_items
from poolc.runtime.calls.base import Seam, joined, on_thread
from poolc.runtime.outputs import Float32, Ragged, Span
from poolc.runtime.request import Item, Params
from poolc.spec import Task


class EncodeParams(TypedDict, total=False):
    """Keywords of ``encode`` that are fields of ``Params``."""

    truncate: bool
    truncation_side: str | None


class EncodeOptions(EncodeParams, total=False):
    """Keywords of ``encode`` and its twins."""

    truncated: list[bool] | None


class ClassifyTokensOptions(TypedDict, total=False):
    """Keywords of ``classify_tokens`` and its twins."""

    aggregation: str
    use_activation: bool | None
    truncate: bool


class TokenCalls(Seam):
    """Results with one row a token."""

    def encode(
        self,
        texts: Texts,
        *,
        truncate: bool = False,
        truncation_side: str | None = None,
        truncated: list[bool] | None = None,
    ) -> Ragged:
        """Return the last hidden states, one row a token: Ragged of float32 [len, hidden].

        Truncates and raises as ``embed`` does.
        """
        params = Params(truncate=truncate, truncation_side=truncation_side)
        return joined(self.run(Task.ENCODE, as_items(texts), params, truncated))

    def classify_tokens(
        self,
        texts: Texts,
        *,
        aggregation: str = "none",
        use_activation: bool | None = None,
        truncate: bool = False,
    ) -> Ragged | list[list[Span]]:
        """Return the labels of tokens: probabilities as Ragged of [len, labels], special tokens
        included, or with another ``aggregation`` the labelled spans of each text.

        simple, first, average and max are those of transformers' token-classification pipeline.
        ``use_activation=False`` gives raw logits instead of probabilities. Raises as ``embed``
        does; spans are found in single texts only.
        """
        params = Params(aggregation=aggregation, use_activation=use_activation, truncate=truncate)
        parts = self.run(Task.CLASSIFY_TOKENS, as_items(texts), params)
        if isinstance(parts[0], Ragged):
            return joined(parts)
        return [spans for part in parts for spans in part]

    def classify_tokens_iter(
        self, texts: Iterable[Item], **options: Unpack[ClassifyTokensOptions]
    ) -> Iterator[Float32 | list[Span]]:
        """Yield the probabilities [len, labels] or the spans of each text, in order."""
        for part in self.stream(Task.CLASSIFY_TOKENS, texts, Params(**options)):
            yield from part

    async def aclassify_tokens(
        self, texts: Texts, **options: Unpack[ClassifyTokensOptions]
    ) -> Ragged | list[list[Span]]:
        """Async twin of ``classify_tokens``."""
        return await on_thread(self.classify_tokens, texts, **options)

    def encode_iter(
        self,
        texts: Iterable[Item],
        *,
        truncated: list[bool] | None = None,
        **options: Unpack[EncodeParams],
    ) -> Iterator[Float32]:
        """Yield the hidden states [len, hidden] of each text, in order."""
        for part in self.stream(Task.ENCODE, texts, Params(**options), truncated):
            yield from part

    async def aencode(self, texts: Texts, **options: Unpack[EncodeOptions]) -> Ragged:
        """Async twin of ``encode``."""
        return await on_thread(self.encode, texts, **options)
