"""All that a hybrid model says of a text, from one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt

from poolc.runtime.heads.embeddings import embeddings
from poolc.runtime.heads.sparse import sparse_vectors
from poolc.runtime.heads.token_vectors import token_vectors
from poolc.runtime.outputs import Ragged
from poolc.runtime.request import Prepared, Row
from poolc.runtime.sparse import SparseVector, SparseVectors, TokenName
from poolc.spec import ModelSpec


@dataclass(frozen=True, slots=True, eq=False)
class HybridVector:
    """One text's vectors: ``dense`` [dim], ``sparse``, and ``tokens`` [tokens, dim]."""

    dense: npt.NDArray[Any]
    sparse: SparseVector
    tokens: npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class HybridVectors:
    """Three kinds of vectors of the same texts: ``dense`` is [n, dim]."""

    dense: npt.NDArray[Any]
    sparse: SparseVectors
    tokens: Ragged

    def __len__(self) -> int:
        return len(self.dense)

    def __getitem__(self, index: int) -> HybridVector:
        return HybridVector(self.dense[index], self.sparse[index], self.tokens[index])


def hybrid_vectors(
    spec: ModelSpec, prepared: Prepared, rows: Sequence[Row], token_name: TokenName
) -> HybridVectors:
    """Return all three; ``dimensions`` are the dense vector's."""
    params = prepared.params
    return HybridVectors(
        embeddings(spec, params, rows),
        sparse_vectors(spec, prepared, rows, token_name),
        token_vectors(spec, replace(params, dimensions=None), rows),
    )
