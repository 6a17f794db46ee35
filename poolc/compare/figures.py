"""How far two models' answers to the same texts are apart. NumPy only; knows no models.

Vectors may be arrays on a disk: they are read in blocks, and no matrix of all texts with all texts
is ever made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from poolc.runtime.outputs import Float32
from poolc.runtime.quality import spearman
from poolc.spec import Similarity

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
_BLOCK_ROWS = 8192
_QUERY_ROWS = 256
_FEWEST = 3  # neighbours of which an order can be told
_RANKED = 100


@dataclass(frozen=True, slots=True, eq=False)
class Distances:
    """Two vectors a text, compared: ``cosines`` [n], ``differences`` [n], the largest a text."""

    cosines: Float64
    differences: Float64


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """Nearest texts of sampled texts by either model, compared.

    ``overlaps`` [queries]: the share of the ``k`` nearest by one that are so by the other.
    ``correlations`` [queries]: Spearman's, of both similarities to the ``ranked`` nearest by the
    first; NaN where all of them are alike.
    """

    k: int
    ranked: int
    num_texts: int
    overlaps: Float64
    correlations: Float64
    same_nearest: float  # share of the queries


def distances(left: Float32, right: Float32) -> Distances:
    """Compare vectors [n, dim] text by text. A vector of zeros is like no other (cosine 0)."""
    cosines, differences = np.empty(len(left)), np.empty(len(left))
    for start, stop in _blocks(len(left), _BLOCK_ROWS):
        a, b = (np.asarray(x[start:stop], np.float64) for x in (left, right))
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        products = np.einsum("ij,ij->i", a, b)
        cosines[start:stop] = np.divide(
            products, norms, out=np.zeros(stop - start), where=norms > 0
        )
        differences[start:stop] = np.abs(a - b).max(axis=1)
    return Distances(np.clip(cosines, -1, 1), differences)


def neighbours(
    vectors: tuple[Float32, Float32],
    kinds: tuple[Similarity, Similarity],
    queries: Int64,
    k: int,
) -> Neighbours | None:
    """Compare the nearest texts of ``queries``, rows of both [n, dim]; None of too few texts.

    A text is not its own neighbour; ``kinds`` is how each model compares vectors.
    """
    num_texts = len(vectors[0])
    ranked = min(_RANKED, num_texts - 1)
    if ranked < _FEWEST:
        return None
    k = min(k, ranked)
    found = [_nearest(v, kind, queries, ranked) for v, kind in zip(vectors, kinds, strict=True)]
    (nearest, similarities), (others, _) = found
    overlaps = [
        len(np.intersect1d(a, b)) / k for a, b in zip(nearest[:, :k], others[:, :k], strict=True)
    ]
    correlations = []
    for query, places, values in zip(queries.tolist(), nearest, similarities, strict=True):
        same = _similarities(
            np.asarray(vectors[1][query])[None], np.asarray(vectors[1][places]), kinds[1]
        )
        correlations.append(correlation(values, same[0]))
    return Neighbours(
        k,
        ranked,
        num_texts,
        np.array(overlaps),
        np.array(correlations),
        float(np.mean(nearest[:, 0] == others[:, 0])),
    )


def correlation(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> float:
    """Return Spearman's rank correlation; NaN where one side is the same throughout."""
    if len(left) < 2 or np.ptp(left) == 0 or np.ptp(right) == 0:
        return float("nan")
    return spearman(left, right)


def worst(values: npt.NDArray[Any], count: int, *, lowest: bool) -> list[int]:
    """Return the places of the lowest (or highest) values, the worst first."""
    order = np.argsort(values if lowest else -values, kind="stable")
    return [int(place) for place in order[:count]]


def sample(num: int, count: int, seed: int) -> Int64:
    """Return ``count`` of the places 0 to ``num`` in order, the same for the same seed."""
    if num <= count:
        return np.arange(num)
    return np.sort(np.random.default_rng(seed).choice(num, count, replace=False))


def _nearest(
    vectors: Float32, kind: Similarity, queries: Int64, count: int
) -> tuple[Int64, Float64]:
    """Return places and similarities of the nearest rows [queries, count], the nearest first."""
    places = np.empty((len(queries), count), np.int64)
    values = np.empty((len(queries), count))
    for start, stop in _blocks(len(queries), _QUERY_ROWS):
        asked = queries[start:stop]
        best = _Best(len(asked), count)
        rows = np.asarray(vectors[asked])
        for begin, end in _blocks(len(vectors), _BLOCK_ROWS):
            found = _similarities(rows, np.asarray(vectors[begin:end]), kind)
            inside = np.flatnonzero((asked >= begin) & (asked < end))
            found[inside, asked[inside] - begin] = -np.inf  # itself
            best.add(found, begin)
        places[start:stop], values[start:stop] = best.places, best.values
    return places, values


class _Best:
    """The nearest so far; equal ones in the order of the texts."""

    def __init__(self, num_queries: int, count: int) -> None:
        self.count = count
        self.places = np.zeros((num_queries, 0), np.int64)
        self.values = np.zeros((num_queries, 0))

    def add(self, found: Float64, first: int) -> None:
        places = np.broadcast_to(np.arange(first, first + found.shape[1]), found.shape)
        all_places = np.concatenate([self.places, places], axis=1)
        all_values = np.concatenate([self.values, found], axis=1)
        order = np.argsort(-all_values, axis=1, kind="stable")[:, : self.count]
        self.places = np.take_along_axis(all_places, order, axis=1)
        self.values = np.take_along_axis(all_values, order, axis=1)


def _similarities(queries: Float32, rows: Float32, kind: Similarity) -> Float64:
    """Compare every query with every row: [queries, rows], higher is more alike."""
    a, b = queries.astype(np.float64), rows.astype(np.float64)
    if kind is Similarity.COSINE:
        a, b = _unit(a), _unit(b)
    if kind in (Similarity.COSINE, Similarity.DOT):
        return np.asarray(a @ b.T)
    if kind is Similarity.EUCLIDEAN:
        squares = np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2 * (a @ b.T)
        return np.asarray(-np.sqrt(np.maximum(squares, 0)))
    return np.stack([-np.abs(row - b).sum(axis=1) for row in a])


def _unit(rows: Float64) -> Float64:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(norms, 1e-12))


def _blocks(num: int, size: int) -> Iterator[tuple[int, int]]:
    for start in range(0, num, size):
        yield start, min(start + size, num)
