"""Vectors of whole texts: truncated, normalised, converted, compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from poolc.errors import InvalidDimensions
from poolc.runtime.matryoshka import check_dimensions
from poolc.runtime.outputs import Float32, convert_dtype, l2_normalize, similarity
from poolc.runtime.request import Params, Prepared, Row
from poolc.spec import POOLED, SENTENCE_EMBEDDING, Kind, ModelSpec, Task


def check_embedding_size(spec: ModelSpec, task: Task, dimensions: object) -> None:
    tasks = {
        Kind.EMBEDDING: (Task.EMBED, Task.SCORE, Task.ENCODE),
        Kind.HYBRID: (Task.EMBED, Task.SCORE, Task.EMBED_HYBRID),
        Kind.MULTI_VECTOR: (Task.EMBED_TOKENS, Task.SCORE),
    }.get(spec.kind, ())
    if task not in tasks or spec.embedding_size is None:
        raise InvalidDimensions(f"dimensions applies to embed, not to {task}", param="dimensions")
    check_dimensions(spec.matryoshka, spec.embedding_size, dimensions)


def embeddings(spec: ModelSpec, params: Params, rows: Sequence[Row]) -> npt.NDArray[Any]:
    """Return vectors [n, dim]: truncated, then normalised, then converted."""
    normalize = spec.normalize if params.normalize is None else params.normalize
    # int8 counts 127ths of a unit vector: any other length would overflow or waste the range.
    normalize = normalize or params.output_dtype in ("int8", "uint8")
    dimensions = params.dimensions or spec.default_dimensions
    if dimensions is None and normalize and spec.normalize:
        vectors = np.stack([row[SENTENCE_EMBEDDING] for row in rows])
    else:
        vectors = np.stack([row[POOLED][:dimensions] for row in rows])
        vectors = l2_normalize(vectors) if normalize else vectors
    return convert_dtype(vectors, params.output_dtype)


def merged(spec: ModelSpec, prepared: Prepared, rows: Sequence[Row]) -> list[Row]:
    """Return one row an item: the mean of its windows' vectors, weighted by counted tokens.

    It is taken after Dense and before Normalize, so that for mean pooling it is what pooling the
    tokens of all windows at once gives.
    """
    remaining = iter(rows)
    items: list[Row] = []
    for sequences in prepared.items:
        own = [next(remaining) for _ in sequences]
        if len(own) == 1:
            items += own
            continue
        vectors = np.stack([row[POOLED] for row in own])  # [windows, dim]
        weights = np.array([sequence.num_counted for sequence in sequences], np.float64)
        items.append(pooled_row(spec, weights @ vectors / weights.sum()))
    return items


def pooled_row(spec: ModelSpec, vector: npt.NDArray[Any]) -> Row:
    """Return the row of a text whose vector [dim] was pooled here and not in the graph."""
    pooled = vector.astype(np.float32)
    return {POOLED: pooled, SENTENCE_EMBEDDING: l2_normalize(pooled) if spec.normalize else pooled}


def similarities(spec: ModelSpec, prepared: Prepared, rows: Sequence[Row]) -> Float32:
    """Return one score a pair [n]: the similarity of its two vectors."""
    params = prepared.params
    vectors = embeddings(spec, Params(dimensions=params.dimensions), rows)
    if prepared.pairs is None:
        raise ValueError("a score by similarity needs pairs; this is a bug in poolc")
    left, right = prepared.pairs[:, 0], prepared.pairs[:, 1]
    return similarity(vectors[left], vectors[right], params.similarity or spec.similarity)
