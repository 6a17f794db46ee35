"""encode: token-level results, and their streaming and async twins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypedDict, Unpack

from poolc.runtime.calls.arguments import Texts, as_items
from poolc.runtime.calls.base import Seam, joined, on_thread
from poolc.runtime.outputs import Float32, Ragged
from poolc.runtime.request import Item, Params
from poolc.spec import Task


class EncodeParams(TypedDict, total=False):
    """Keywords of ``encode`` that are fields of ``Params``."""

    truncate: bool
    truncation_side: str | None


class EncodeOptions(EncodeParams, total=False):
    """Keywords of ``encode`` and its twins."""

    truncated: list[bool] | None


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
