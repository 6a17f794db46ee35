"""Weights by token id: of whole texts (SPLADE), or of a text's tokens (BGE-M3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from poolc.errors import InvalidOption
from poolc.runtime.outputs import Float32, Ragged
from poolc.runtime.request import Params, Prepared, Row, TokenSequence
from poolc.runtime.sparse import SparseVector, SparseVectors, TokenName, distance, dot
from poolc.spec import (
    SPARSE_EMBEDDING,
    SPARSE_INDICES,
    SPARSE_VALUES,
    SPARSE_WEIGHTS,
    ModelSpec,
    Similarity,
    SparseSpec,
    Task,
)


def check_sparse_params(spec: ModelSpec, task: Task, params: Params) -> None:
    """Refuse ``top_k`` where there are no weights, and of weights what only vectors have.

    Raises InvalidOption.
    """
    if task is Task.EMBED_SPARSE:
        for name in ("normalize", "output_dtype"):
            if getattr(params, name) not in (None, "float32"):
                raise InvalidOption(
                    f"{name} does not apply to sparse embeddings: leave it out", param=name
                )
    top_k: object = params.top_k
    if top_k is None:
        return
    if spec.sparse is None or task not in (Task.EMBED_SPARSE, Task.EMBED_HYBRID):
        raise InvalidOption(
            f"top_k applies to sparse embeddings, not to {task} of this model", param="top_k"
        )
    if isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1:
        raise InvalidOption(f"top_k is {top_k!r}; allowed: a whole number from 1", param="top_k")


def compact(row: Row) -> Row:
    """Keep of a row's weights those that are not zero: a hundredth of them, of trained models."""
    weights = row[SPARSE_EMBEDDING]
    indices = np.flatnonzero(weights).astype(np.int32)
    kept = {name: value for name, value in row.items() if name != SPARSE_EMBEDDING}
    return {**kept, SPARSE_INDICES: indices, SPARSE_VALUES: weights[indices]}  # type: ignore[dict-item]


def expand(row: Row, size: int) -> Row:
    """Undo ``compact``."""
    weights = np.zeros(size, np.float32)
    weights[row[SPARSE_INDICES].astype(np.int64)] = row[SPARSE_VALUES]
    kept = {k: v for k, v in row.items() if k not in (SPARSE_INDICES, SPARSE_VALUES)}
    return {**kept, SPARSE_EMBEDDING: weights}


def sparse_vectors(
    spec: ModelSpec, prepared: Prepared, rows: Sequence[Row], token_name: TokenName
) -> SparseVectors:
    """Return one sparse vector a text."""
    sparse = spec.sparse or SparseSpec()
    top_k = prepared.params.top_k or sparse.top_k
    vectors = []
    for sequence, row in zip(prepared.sequences, rows, strict=True):
        vector = _vector(sparse, sequence, row, token_name)
        vectors.append(vector.top(top_k))
    return SparseVectors.from_rows(vectors, spec.vocab_size)


def weights_by_token(spec: ModelSpec, prepared: Prepared, rows: Sequence[Row]) -> Ragged:
    """Return the weight of every token of each text [tokens], without the special tokens around it,
    as vLLM's token_classify of BGE-M3 gives them."""
    special = (spec.sparse or SparseSpec()).dropped_ids
    weights = []
    for sequence, row in zip(prepared.sequences, rows, strict=True):
        start = int(int(sequence.ids[0]) in special)
        stop = len(sequence) - int(int(sequence.ids[-1]) in special)
        weights.append(row[SPARSE_WEIGHTS][start:stop])
    return Ragged.from_rows(weights)


def sparse_scores(spec: ModelSpec, prepared: Prepared, rows: Sequence[Row]) -> Float32:
    """Return one score a pair [n]: the similarity of its two sparse vectors."""
    if prepared.pairs is None:
        raise ValueError("a score by similarity needs pairs; this is a bug in poolc")
    vectors = list(sparse_vectors(spec, prepared, rows, str))
    compare = _COMPARE[prepared.params.similarity or spec.similarity]
    scores = [compare(vectors[left], vectors[right]) for left, right in prepared.pairs.tolist()]
    return np.array(scores, np.float32)


def _vector(
    sparse: SparseSpec, sequence: TokenSequence, row: Row, token_name: TokenName
) -> SparseVector:
    if SPARSE_WEIGHTS not in row:
        indices = row[SPARSE_INDICES].astype(np.int32, copy=False)
        return SparseVector(indices, row[SPARSE_VALUES], token_name)
    weights = row[SPARSE_WEIGHTS]
    kept = (weights > 0) & ~np.isin(sequence.ids, sparse.dropped_ids)
    ids, places = np.unique(sequence.ids[kept], return_inverse=True)
    largest = np.zeros(len(ids), np.float32)
    np.maximum.at(largest, places, weights[kept])
    return SparseVector(ids.astype(np.int32), largest, token_name)


def _cosine(left: SparseVector, right: SparseVector) -> float:
    norms = np.linalg.norm(left.values) * np.linalg.norm(right.values)
    return dot(left, right) / max(float(norms), 1e-24)


_COMPARE: dict[Similarity, Callable[[SparseVector, SparseVector], float]] = {
    Similarity.DOT: dot,
    Similarity.COSINE: _cosine,
    Similarity.EUCLIDEAN: lambda left, right: -distance(left, right, 2),
    Similarity.MANHATTAN: lambda left, right: -distance(left, right, 1),
}
