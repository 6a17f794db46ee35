"""embed_sparse, embed_tokens and embed_hybrid: shapes, twins, parameters, and what is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from poolc.errors import InvalidDimensions, InvalidOption, TextTooLong, UnsupportedTask
from poolc.runtime.engine import Engine
from poolc.runtime.outputs import convert_dtype, l2_normalize
from poolc.spec import Similarity
from tests.models import TOKEN_DIM
from tests.runtime.conftest import Variant
from tests.runtime.texts import mixed

TEXTS = mixed(20)


@pytest.mark.usefixtures("small_windows")
def test_sparse_twins(splade: Engine) -> None:
    found = splade.embed_sparse(TEXTS, top_k=4)
    assert found.shape == (20, splade.spec.vocab_size)
    assert np.diff(found.indptr).max() == 4
    streamed = list(splade.embed_sparse_iter(iter(TEXTS), top_k=4))
    assert [row.weights() for row in streamed] == found.rows()
    later = asyncio.run(splade.aembed_sparse(TEXTS, top_k=4))
    np.testing.assert_array_equal(later.to_dense(), found.to_dense())
    one = splade.embed_sparse(TEXTS[3], top_k=4)
    np.testing.assert_allclose(one.to_dense()[0], found.to_dense()[3], atol=1e-6)


@pytest.mark.usefixtures("small_windows")
def test_token_twins(colbert: Engine) -> None:
    found = colbert.embed_tokens(TEXTS, side="document")
    assert (len(found), found.values.shape[1]) == (20, TOKEN_DIM)
    streamed = list(colbert.embed_tokens_iter(iter(TEXTS), side="document"))
    np.testing.assert_array_equal(np.concatenate(streamed), found.values)
    later = asyncio.run(colbert.aembed_tokens(TEXTS, side="document"))
    np.testing.assert_array_equal(later.values, found.values)


@pytest.mark.usefixtures("small_windows")
def test_hybrid_twins(bge_m3: Engine) -> None:
    found = bge_m3.embed_hybrid(TEXTS)
    assert (len(found), found.dense.shape, len(found.tokens)) == (20, (20, 32), 20)
    streamed = list(bge_m3.embed_hybrid_iter(iter(TEXTS)))
    np.testing.assert_array_equal(np.stack([one.dense for one in streamed]), found.dense)
    assert [one.sparse.weights() for one in streamed] == found.sparse.rows()
    np.testing.assert_array_equal(streamed[-1].tokens, found.tokens[-1])
    later = asyncio.run(bge_m3.aembed_hybrid(TEXTS))
    np.testing.assert_array_equal(later.tokens.values, found.tokens.values)


def test_sparse_side_is_a_prompt(splade: Engine) -> None:
    named = splade.embed_sparse("bread", prompt_name="query").to_dense()
    np.testing.assert_array_equal(splade.embed_sparse("bread", side="query").to_dense(), named)
    given = splade.embed_sparse("bread", side="query", prompt="passage: ").to_dense()
    document = splade.embed_sparse("bread", side="document").to_dense()
    np.testing.assert_array_equal(given, document)
    assert np.abs(document - named).max() > 0.01


@pytest.mark.parametrize("kind", list(Similarity))
def test_sparse_scores(splade: Engine, variant: Variant, kind: Similarity) -> None:
    dense = splade.embed_sparse(["bread", "salt"]).to_dense().astype(np.float64)
    left, right = dense
    expected = {
        Similarity.DOT: left @ right,
        Similarity.COSINE: left @ right / np.linalg.norm(left) / np.linalg.norm(right),
        Similarity.EUCLIDEAN: -np.linalg.norm(left - right),
        Similarity.MANHATTAN: -np.abs(left - right).sum(),
    }[kind]
    found = variant(splade, similarity=kind).score("bread", "salt")
    np.testing.assert_allclose(found, [expected], rtol=1e-5)


def test_token_sizes_and_dtypes(colbert: Engine) -> None:
    whole = colbert.embed_tokens(TEXTS)
    cut = l2_normalize(whole.values[:, :8])
    np.testing.assert_allclose(colbert.embed_tokens(TEXTS, dimensions=8).values, cut, atol=1e-6)
    packed = colbert.embed_tokens(TEXTS, output_dtype="ubinary")
    np.testing.assert_array_equal(packed.values, convert_dtype(whole.values, "ubinary"))
    np.testing.assert_array_equal(packed.offsets, whole.offsets)


def test_scores_of_cut_token_vectors(colbert: Engine) -> None:
    query = colbert.embed_tokens("bread", side="query", dimensions=8)[0]
    document = colbert.embed_tokens("salt", side="document", dimensions=8)[0]
    expected = (query @ document.T).max(axis=1).sum()
    np.testing.assert_allclose(colbert.score("bread", "salt", dimensions=8), expected, rtol=1e-5)


def test_token_vectors_do_not_depend_on_neighbours(colbert: Engine) -> None:
    together = colbert.embed_tokens(TEXTS, side="query", truncate=True)
    for text, row in zip(TEXTS[:6], together, strict=False):
        alone = colbert.embed_tokens(text, side="query", truncate=True)[0]
        np.testing.assert_allclose(alone, row, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "call", "error", "message"),
    [
        ("splade", lambda e: e.embed("a"), UnsupportedTask, "supports: embed_sparse, score"),
        ("colbert", lambda e: e.embed_sparse("a"), UnsupportedTask, "supports: embed_tokens"),
        ("splade", lambda e: e.embed_hybrid("a"), UnsupportedTask, "not support embed_hybrid"),
        ("embedder", lambda e: e.embed_tokens("a"), UnsupportedTask, "not support embed_tokens"),
        ("splade", lambda e: e.embed_sparse("a", top_k=0), InvalidOption, "top_k is 0; allowed"),
        ("splade", lambda e: e.embed_sparse("a", top_k=True), InvalidOption, "top_k is True"),
        ("splade", lambda e: e.embed_sparse("a " * 90), TextTooLong, "the limit is 64"),
        ("bge_m3", lambda e: e.embed_tokens("a", top_k=3), InvalidOption, "has no keyword 'top_k'"),
        (
            "colbert",
            lambda e: e.embed_tokens("a", dimensions=9),
            InvalidDimensions,
            "this model was trained for: 8",
        ),
        (
            "bge_m3",
            lambda e: e.embed_tokens("a", dimensions=8),
            InvalidDimensions,
            "dimensions applies to embed, not to embed_tokens",
        ),
        (
            "splade",
            lambda e: e.score("a", "b", dimensions=8),
            InvalidDimensions,
            "dimensions applies to embed, not to score",
        ),
    ],
)
def test_refused(
    name: str, call: Any, error: Any, message: str, request: pytest.FixtureRequest
) -> None:
    with pytest.raises(error, match=message):
        call(request.getfixturevalue(name))
