"""Sparse vectors: one weight a token of the vocabulary, of which few are not zero.

Knows nothing about graphs. Names of tokens come from the tokenizer, by the function it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

import numpy as np
import numpy.typing as npt

from poolc.runtime.outputs import Float32

Int32 = npt.NDArray[np.int32]
TokenName = Callable[[int], str]


class TokenWeight(NamedTuple):
    """One weight that is not zero."""

    token_id: int
    token: str
    weight: float


@dataclass(frozen=True, slots=True, eq=False)
class SparseVector:
    """One text's weights: ``indices`` int32 are token ids in rising order, ``values`` float32."""

    indices: Int32
    values: Float32
    token_name: TokenName = str

    def __len__(self) -> int:
        return len(self.indices)

    def tokens(self) -> list[str]:
        """Return the token of each weight."""
        return [self.token_name(int(i)) for i in self.indices]

    def weights(self) -> list[TokenWeight]:
        """Return (token id, token, weight), the largest weight first."""
        order = np.argsort(-self.values, kind="stable")
        return [
            TokenWeight(int(i), self.token_name(int(i)), float(v))
            for i, v in zip(self.indices[order], self.values[order], strict=True)
        ]

    def top(self, k: int | None) -> SparseVector:
        """Keep the ``k`` largest weights; None: all."""
        if k is None or len(self) <= k:
            return self
        kept = np.sort(np.argsort(-self.values, kind="stable")[:k])
        return SparseVector(self.indices[kept], self.values[kept], self.token_name)


@dataclass(frozen=True, slots=True, eq=False)
class SparseVectors:
    """One sparse vector a text, as compressed rows (CSR).

    Row ``i`` has the token ids ``indices[indptr[i]:indptr[i + 1]]`` (int32, in rising order) and as
    many ``values`` (float32); ``indptr`` is int64 [n + 1] and ``shape`` (n, vocabulary).
    """

    indptr: npt.NDArray[np.int64]
    indices: Int32
    values: Float32
    shape: tuple[int, int]
    token_name: TokenName = str

    @classmethod
    def from_rows(cls, rows: Sequence[SparseVector], size: int) -> SparseVectors:
        """Join vectors over a vocabulary of ``size`` tokens."""
        indptr = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(row) for row in rows], out=indptr[1:])
        indices = np.concatenate([np.zeros(0, np.int32), *(row.indices for row in rows)])
        values = np.concatenate([np.zeros(0, np.float32), *(row.values for row in rows)])
        name = rows[0].token_name if rows else str
        return cls(indptr, indices, values, (len(rows), size), name)

    def __len__(self) -> int:
        return self.shape[0]

    @overload
    def __getitem__(self, index: int) -> SparseVector: ...

    @overload
    def __getitem__(self, index: slice) -> SparseVectors: ...

    def __getitem__(self, index: int | slice) -> SparseVector | SparseVectors:
        if isinstance(index, slice):
            chosen = [self[i] for i in range(len(self))[index]]
            return SparseVectors.from_rows(chosen, self.shape[1])
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        index %= len(self)
        row = slice(self.indptr[index], self.indptr[index + 1])
        return SparseVector(self.indices[row], self.values[row], self.token_name)

    def __iter__(self) -> Iterator[SparseVector]:
        return (self[i] for i in range(len(self)))

    def rows(self) -> list[list[TokenWeight]]:
        """Return each text's (token id, token, weight), the largest weight first."""
        return [row.weights() for row in self]

    def to_dense(self) -> Float32:
        """Return all weights, the zeros too: float32 [n, vocabulary]."""
        dense = np.zeros(self.shape, np.float32)
        dense[np.repeat(np.arange(len(self)), np.diff(self.indptr)), self.indices] = self.values
        return dense


def dot(left: SparseVector, right: SparseVector) -> float:
    """Sum the products of the weights that both have."""
    _, at_left, at_right = np.intersect1d(
        left.indices, right.indices, assume_unique=True, return_indices=True
    )
    return float(left.values[at_left] @ right.values[at_right])


def distance(left: SparseVector, right: SparseVector, order: int) -> float:
    """Return the distance of order 1 (Manhattan) or 2 (Euclidean)."""
    union = np.union1d(left.indices, right.indices)
    difference = np.zeros(len(union), np.float32)
    difference[np.searchsorted(union, left.indices)] += left.values
    difference[np.searchsorted(union, right.indices)] -= right.values
    return float(np.linalg.norm(difference, order))
