"""embed_sparse, embed_tokens and embed_hybrid, and their streaming and async twins.

``side`` is query or document: it picks that prompt, as ``embed_query`` and ``embed_document`` do,
and how a multi-vector model expands, cuts and masks. plain: no prompt, and a vector for every
token.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from poolc.runtime.calls.arguments import Texts, as_list
from poolc.runtime.calls.base import Seam, joined, on_thread
from poolc.runtime.calls.options import (
    HybridOptions,
    HybridParams,
    SparseOptions,
    SparseParams,
    TokenVectorOptions,
    TokenVectorParams,
    params_of,
)
from poolc.runtime.heads.hybrid import HybridVector, HybridVectors
from poolc.runtime.outputs import Ragged
from poolc.runtime.request import Item
from poolc.runtime.sparse import SparseVector, SparseVectors
from poolc.spec import Task

Array = npt.NDArray[Any]


class RetrievalCalls(Seam):
    """Sparse vectors, token vectors, and both beside a dense one."""

    def embed_sparse(
        self,
        texts: Texts,
        *,
        truncated: list[bool] | None = None,
        **options: Unpack[SparseParams],
    ) -> SparseVectors:
        """Return one weight a token of the vocabulary for each text, as compressed rows.

        ``top_k`` keeps the largest weights of each text. Raises as ``embed`` does.
        """
        params = params_of("embed_sparse", options)
        parts = self.run(Task.EMBED_SPARSE, as_list(texts), params, truncated)
        return _joined_sparse(parts)

    def embed_tokens(
        self,
        texts: Texts,
        *,
        truncated: list[bool] | None = None,
        **options: Unpack[TokenVectorParams],
    ) -> Ragged:
        """Return one vector a token for each text: Ragged of [tokens, dim].

        Without ``side`` a text is a document without a document's prompt, as in Sentence
        Transformers' ``encode``. Raises as ``embed`` does.
        """
        params = params_of("embed_tokens", options)
        return joined(self.run(Task.EMBED_TOKENS, as_list(texts), params, truncated))

    def embed_hybrid(
        self,
        texts: Texts,
        *,
        truncated: list[bool] | None = None,
        **options: Unpack[HybridParams],
    ) -> HybridVectors:
        """Return dense, sparse and token vectors of each text from one pass.

        ``dimensions`` is a Matryoshka size of the dense vector. Raises as ``embed`` does.
        """
        params = params_of("embed_hybrid", options)
        parts = self.run(Task.EMBED_HYBRID, as_list(texts), params, truncated)
        return HybridVectors(
            np.concatenate([part.dense for part in parts]),
            _joined_sparse([part.sparse for part in parts]),
            joined([part.tokens for part in parts]),
        )

    def embed_sparse_iter(
        self,
        texts: Iterable[Item],
        *,
        truncated: list[bool] | None = None,
        **options: Unpack[SparseParams],
    ) -> Iterator[SparseVector]:
        """Yield one sparse vector a text, in order."""
        params = params_of("embed_sparse", options)
        for part in self.stream(Task.EMBED_SPARSE, texts, params, truncated):
            yield from part

    def embed_tokens_iter(
        self,
        texts: Iterable[Item],
        *,
        truncated: list[bool] | None = None,
        **options: Unpack[TokenVectorParams],
    ) -> Iterator[Array]:
        """Yield the token vectors [tokens, dim] of each text, in order."""
        params = params_of("embed_tokens", options)
        for part in self.stream(Task.EMBED_TOKENS, texts, params, truncated):
            yield from part

    def embed_hybrid_iter(
        self,
        texts: Iterable[Item],
        *,
        truncated: list[bool] | None = None,
        **options: Unpack[HybridParams],
    ) -> Iterator[HybridVector]:
        """Yield the three vectors of each text, in order."""
        params = params_of("embed_hybrid", options)
        for part in self.stream(Task.EMBED_HYBRID, texts, params, truncated):
            yield from (part[i] for i in range(len(part)))

    async def aembed_sparse(self, texts: Texts, **options: Unpack[SparseOptions]) -> SparseVectors:
        """Async twin of ``embed_sparse``."""
        return await on_thread(self.embed_sparse, texts, **options)

    async def aembed_tokens(self, texts: Texts, **options: Unpack[TokenVectorOptions]) -> Ragged:
        """Async twin of ``embed_tokens``."""
        return await on_thread(self.embed_tokens, texts, **options)

    async def aembed_hybrid(self, texts: Texts, **options: Unpack[HybridOptions]) -> HybridVectors:
        """Async twin of ``embed_hybrid``."""
        return await on_thread(self.embed_hybrid, texts, **options)


def _joined_sparse(parts: list[SparseVectors]) -> SparseVectors:
    if len(parts) == 1:
        return parts[0]
    return SparseVectors.from_rows([row for part in parts for row in part], parts[0].shape[1])
