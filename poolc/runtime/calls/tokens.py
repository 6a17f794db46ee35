"""encode and classify_tokens: token-level results, and their streaming and async twins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Unpack

from poolc.runtime.calls.arguments import Texts, as_items
from poolc.runtime.calls.base import Seam, joined, on_thread
from poolc.runtime.calls.options import (
    ClassifyTokensOptions,
    ClassifyTokensParams,
    EncodeOptions,
    EncodeParams,
    params_of,
)
from poolc.runtime.outputs import Float32, Ragged, Span
from poolc.runtime.request import Item
from poolc.spec import Task


class TokenCalls(Seam):
    """Results with one row a token."""

    def encode(
        self,
        texts: Texts,
        *,
        truncated: list[bool] | None = None,
        **options: Unpack[EncodeParams],
    ) -> Ragged:
        """Return the last hidden states, one row a token: Ragged of float32 [len, hidden].

        Of an embedding model, ``dimensions`` cuts and ``normalize=True`` scales every row as
        ``embed`` does a vector; ``side`` is the route of models that have one a side. Truncates and
        raises as ``embed`` does.
        """
        params = params_of("encode", options)
        return joined(self.run(Task.ENCODE, as_items(texts), params, truncated))

    def encode_iter(
        self,
        texts: Iterable[Item],
        *,
        truncated: list[bool] | None = None,
        **options: Unpack[EncodeParams],
    ) -> Iterator[Float32]:
        """Yield the hidden states [len, hidden] of each text, in order."""
        for part in self.stream(Task.ENCODE, texts, params_of("encode", options), truncated):
            yield from part

    async def aencode(self, texts: Texts, **options: Unpack[EncodeOptions]) -> Ragged:
        """Async twin of ``encode``."""
        return await on_thread(self.encode, texts, **options)

    def classify_tokens(
        self,
        texts: Texts,
        *,
        truncated: list[bool] | None = None,
        **options: Unpack[ClassifyTokensParams],
    ) -> Ragged | list[list[Span]]:
        """Return the labels of tokens: probabilities as Ragged of [len, labels], special tokens
        included, or with an ``aggregation`` other than none the labelled spans of each text.

        simple, first, average and max are those of transformers' token-classification pipeline.
        ``use_activation=False`` gives raw logits instead of probabilities. Truncates and raises as
        ``embed`` does; spans are found in single texts only.
        """
        params = params_of("classify_tokens", options)
        parts = self.run(Task.CLASSIFY_TOKENS, as_items(texts), params, truncated)
        if isinstance(parts[0], Ragged):
            return joined(parts)
        return [spans for part in parts for spans in part]

    def classify_tokens_iter(
        self,
        texts: Iterable[Item],
        *,
        truncated: list[bool] | None = None,
        **options: Unpack[ClassifyTokensParams],
    ) -> Iterator[Float32 | list[Span]]:
        """Yield the probabilities [len, labels] or the spans of each text, in order."""
        params = params_of("classify_tokens", options)
        for part in self.stream(Task.CLASSIFY_TOKENS, texts, params, truncated):
            yield from part

    async def aclassify_tokens(
        self, texts: Texts, **options: Unpack[ClassifyTokensOptions]
    ) -> Ragged | list[list[Span]]:
        """Async twin of ``classify_tokens``."""
        return await on_thread(self.classify_tokens, texts, **options)
