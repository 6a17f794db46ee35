"""Distances and neighbours, against scikit-learn and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics.pairwise import paired_cosine_distances
from sklearn.neighbors import NearestNeighbors

from poolc.compare import figures
from poolc.spec import Similarity

RNG = np.random.default_rng(7)
LEFT = RNG.normal(size=(257, 24)).astype(np.float32)
RIGHT = (LEFT + 0.3 * RNG.normal(size=LEFT.shape)).astype(np.float32)
COSINE = (Similarity.COSINE, Similarity.COSINE)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every block end many times within the data."""
    monkeypatch.setattr(figures, "_BLOCK_ROWS", 31)
    monkeypatch.setattr(figures, "_QUERY_ROWS", 7)


@pytest.mark.usefixtures("small_blocks")
def test_distances_are_scikit_learns() -> None:
    found = figures.distances(LEFT, RIGHT)
    np.testing.assert_allclose(1 - found.cosines, paired_cosine_distances(LEFT, RIGHT), atol=1e-6)
    np.testing.assert_allclose(found.differences, np.abs(LEFT - RIGHT).max(axis=1), rtol=1e-6)


def test_distances_of_zeros() -> None:
    found = figures.distances(np.zeros((1, 4), np.float32), np.ones((1, 4), np.float32))
    assert found.cosines.tolist() == [0.0]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(
    ("kind", "metric"),
    [
        (Similarity.COSINE, "cosine"),
        (Similarity.EUCLIDEAN, "euclidean"),
        (Similarity.MANHATTAN, "manhattan"),
    ],
)
def test_neighbours_are_scikit_learns(kind: Similarity, metric: str) -> None:
    queries = figures.sample(len(LEFT), 40, seed=3)
    found = figures.neighbours((LEFT, RIGHT), (kind, kind), queries, 10)
    assert found is not None
    nearest = []
    for rows in (LEFT, RIGHT):
        search = NearestNeighbors(n_neighbors=11, metric=metric).fit(rows)
        nearest.append(search.kneighbors(rows[queries], return_distance=False)[:, 1:])
    expected = [len(set(a) & set(b)) / 10 for a, b in zip(*nearest, strict=True)]
    assert found.overlaps.tolist() == expected
    assert found.same_nearest == np.mean(nearest[0][:, 0] == nearest[1][:, 0])


def test_rank_correlation_is_scipys() -> None:
    found = figures.neighbours((LEFT, RIGHT), COSINE, np.array([5]), 10)
    assert found is not None
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (LEFT, RIGHT)]
    first, second = (rows @ rows[5] for rows in unit)
    first[5] = -2
    nearest = np.argsort(-first)[: found.ranked]
    expected = spearmanr(first[nearest], second[nearest]).statistic
    assert (found.ranked, found.correlations[0]) == (100, pytest.approx(expected))


def test_neighbours_of_one_model_are_its_own() -> None:
    found = figures.neighbours((LEFT, LEFT), COSINE, np.arange(20), 10)
    assert found is not None
    assert (found.overlaps.min(), found.same_nearest) == (1.0, 1.0)
    assert found.correlations.min() == pytest.approx(1.0)


def test_neighbours_of_dot_products_know_lengths() -> None:
    rows = np.array([[1, 0], [0.9, 0], [5, 1], [0, 1], [0, 2]], np.float32)
    kinds = (Similarity.COSINE, Similarity.DOT)
    found = figures.neighbours((rows, rows), kinds, np.array([0]), 1)
    assert found is not None
    assert found.overlaps.tolist() == [0.0]  # row 1 points the same way, row 2 is longer


def test_neighbours_of_too_few_texts() -> None:
    assert figures.neighbours((LEFT[:3], RIGHT[:3]), COSINE, np.arange(3), 2) is None


def test_correlation_without_an_order_is_not_a_number() -> None:
    assert np.isnan(figures.correlation(np.ones(5), np.arange(5)))


def test_sample_is_the_same_for_a_seed() -> None:
    first, again, other = (figures.sample(1000, 20, seed) for seed in (1, 1, 2))
    assert first.tolist() == again.tolist() != other.tolist()
    assert len(set(first.tolist())) == 20
    assert figures.sample(3, 20, 1).tolist() == [0, 1, 2]


def test_worst_first() -> None:
    values = np.array([0.5, 0.1, 0.9, 0.1])
    assert figures.worst(values, 3, lowest=True) == [1, 3, 0]
    assert figures.worst(values, 1, lowest=False) == [2]
