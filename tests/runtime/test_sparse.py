"""Sparse vectors: compressed rows, names of tokens, products and distances."""

from __future__ import annotations

import numpy as np
import pytest

from poolc.runtime.sparse import SparseVector, SparseVectors, TokenWeight, distance, dot

DENSE = np.array([[0, 2, 0, 3], [0, 0, 0, 0], [5, 0, 1, 1]], np.float32)


def row(weights: np.ndarray) -> SparseVector:
    indices = np.flatnonzero(weights).astype(np.int32)
    return SparseVector(indices, weights[indices], "t{}".format)


@pytest.fixture
def vectors() -> SparseVectors:
    return SparseVectors.from_rows([row(weights) for weights in DENSE], 4)


def test_sparse_is_compressed_rows(vectors: SparseVectors) -> None:
    assert vectors.indptr.tolist() == [0, 2, 2, 5]
    assert vectors.indices.tolist() == [1, 3, 0, 2, 3]
    assert vectors.values.tolist() == [2, 3, 5, 1, 1]
    assert vectors.shape == (3, 4)
    arrays = (vectors.indptr, vectors.indices, vectors.values)
    assert [str(array.dtype) for array in arrays] == ["int64", "int32", "float32"]
    np.testing.assert_array_equal(vectors.to_dense(), DENSE)


def test_sparse_rows_are_sorted_by_weight(vectors: SparseVectors) -> None:
    assert vectors.rows() == [
        [(3, "t3", 3.0), (1, "t1", 2.0)],
        [],
        [(0, "t0", 5.0), (2, "t2", 1.0), (3, "t3", 1.0)],
    ]
    assert isinstance(vectors.rows()[0][0], TokenWeight)


def test_sparse_is_a_sequence(vectors: SparseVectors) -> None:
    assert (len(vectors), [len(one) for one in vectors]) == (3, [2, 0, 3])
    assert vectors[-1].tokens() == ["t0", "t2", "t3"]
    np.testing.assert_array_equal(vectors[1:].to_dense(), DENSE[1:])
    np.testing.assert_array_equal(vectors[::-2].to_dense(), DENSE[::-2])
    assert (len(vectors[3:]), vectors[3:].shape) == (0, (0, 4))
    with pytest.raises(IndexError, match="row 3 of 3"):
        vectors[3]


def test_sparse_top_keeps_the_largest(vectors: SparseVectors) -> None:
    assert vectors[0].top(1).indices.tolist() == [3]
    assert vectors[2].top(2).indices.tolist() == [0, 2]  # of equal weights the lower id
    assert vectors[0].top(None) is vectors[0].top(9) or len(vectors[0].top(9)) == 2


def test_sparse_arithmetic_is_that_of_dense_vectors() -> None:
    rng = np.random.default_rng(0)
    dense = rng.random((2, 50), np.float32) * (rng.random((2, 50)) < 0.3)
    dense = dense.astype(np.float32)
    left, right = row(dense[0]), row(dense[1])
    assert dot(left, right) == pytest.approx(float(dense[0] @ dense[1]), rel=1e-6)
    for order in (1, 2):
        expected = float(np.linalg.norm(dense[0] - dense[1], order))
        assert distance(left, right, order) == pytest.approx(expected, rel=1e-6)
