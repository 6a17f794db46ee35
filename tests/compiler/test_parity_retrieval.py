"""Sparse, multi-vector and hybrid models against the libraries that define them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import MultiVectorEncoder, SparseEncoder
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from torch import nn
from transformers import AutoTokenizer

import poolc
from poolc.runtime.calls.options import Side
from poolc.runtime.engine import Engine
from tests.compiler.conftest import CompileHere
from tests.compiler.flag_embedding import FlagEmbedding
from tests.compiler.folders import TEXTS
from tests.compiler.retrieval_folders import masked_lm, multi_vector, splade, stanford, token_dense
from tests.compiler.test_parity import BOUND, assert_close
from tests.models import HIDDEN, QUERY_LENGTH, TOKEN_DIM

FIXED = {"strategy": "fixed", "length": QUERY_LENGTH}
SPLADE = {"architectures": ["BertSpladeSparseEmbeddingModel"]}


def dense_rows(vectors: Any) -> Any:
    return vectors.to_dense().numpy()


@pytest.mark.parametrize(
    ("pooling", "activation", "options"),
    [("max", "relu", {}), ("sum", "log1p_relu", {"max_active_dims": 7})],
)
def test_splade(
    pooling: str, activation: str, options: Any, tmp_path: Path, compile_here: CompileHere
) -> None:
    prompts = {"query": "query: ", "document": "passage: "}
    folder = splade(tmp_path, pooling, activation, prompts=prompts, **options)
    engine, model = Engine(compile_here(folder)), SparseEncoder(str(folder), device="cpu")
    found = engine.embed_sparse(TEXTS, truncate=True)
    expected = dense_rows(model.encode(TEXTS))
    assert_close(found.to_dense(), expected)
    assert np.diff(found.indptr).tolist() == (expected > 0).sum(axis=1).tolist()
    queries = engine.embed_sparse(TEXTS, truncate=True, side="query", top_k=5)
    assert_close(queries.to_dense(), dense_rows(model.encode_query(TEXTS, max_active_dims=5)))
    left, right = model.encode(TEXTS[:3]), model.encode(TEXTS[3:])
    scores = engine.score(TEXTS[:3], TEXTS[3:], truncate=True)
    assert_close(scores, model.similarity_pairwise(left, right))


@pytest.mark.parametrize("options", [{"hf_overrides": SPLADE}, {"convert": "embed_sparse"}])
def test_splade_of_a_plain_masked_language_model(
    options: Any, tmp_path: Path, compile_here: CompileHere
) -> None:
    folder = masked_lm(tmp_path / "model")
    engine, model = Engine(compile_here(folder, **options)), SparseEncoder(str(folder))
    found = engine.embed_sparse(TEXTS, truncate=True)
    assert_close(found.to_dense(), dense_rows(model.encode(TEXTS)))


def test_splade_of_version_5(artifact: Callable[[str], Path], source: Any) -> None:
    engine, model = poolc.load(artifact("tiny_splade")), SparseEncoder(str(source("tiny_splade")))
    found = engine.embed_sparse(TEXTS, truncate=True, side="document")
    assert_close(found.to_dense(), dense_rows(model.encode_document(TEXTS)))
    names = AutoTokenizer.from_pretrained(source("tiny_splade")).convert_ids_to_tokens
    for row, vector in zip(found.rows(), found, strict=True):
        ids, tokens, weights = zip(*row, strict=True)
        assert names(list(ids)) == list(tokens)
        assert list(weights) == sorted(vector.values.tolist(), reverse=True)


def assert_tokens_like(engine: Engine, model: Any) -> None:
    """Compare all sides and their scores."""
    sides: list[tuple[Side | None, Any]] = [
        ("query", model.encode_query),
        ("document", model.encode_document),
        (None, model.encode),
    ]
    for side, encode in sides:
        found = engine.embed_tokens(TEXTS, side=side, truncate=True)
        for one, expected in zip(found, encode(TEXTS, convert_to_numpy=True), strict=True):
            assert_close(one, expected)
    queries = [TEXTS[0], TEXTS[0], TEXTS[2], TEXTS[1]]
    documents = [TEXTS[3], TEXTS[2], TEXTS[2], TEXTS[4]]
    expected = model.similarity_pairwise(
        model.encode_query(queries), model.encode_document(documents)
    )
    assert_close(engine.score(queries, documents, truncate=True), expected)
    everyone = model.similarity(model.encode_query(TEXTS[:1]), model.encode_document(TEXTS))
    assert_close(engine.score(TEXTS[0], TEXTS, truncate=True), everyone[0])


@pytest.mark.parametrize(
    "options",
    [
        {"trunk": {"query_expansion": FIXED}},
        {
            "trunk": {
                "query_expansion": {**FIXED, "strategy": "min", "attend": True, "token": "[SEP]"},
                "query_length": 20,
            },
            "prompts": {"query": "find: ", "document": "text: "},
            "similarity_fn_name": "meanmaxsim",
        },
        {
            "trunk": {"query_length": 9},
            "mask": MultiVectorMask(["the", "."], skiplist_tasks=["query", "document"]),
        },
        {"mask": MultiVectorMask(keep_only_token_ids=[2, 3, 30, 31, 32])},
    ],
    ids=["fixed", "min", "skiplist", "allowlist"],
)
def test_multi_vector(options: Any, tmp_path: Path, compile_here: CompileHere) -> None:
    folder = multi_vector(tmp_path, **options)
    model = MultiVectorEncoder(str(folder), device="cpu")
    assert_tokens_like(Engine(compile_here(folder)), model)


def test_multi_vector_chain_without_normalize(tmp_path: Path, compile_here: CompileHere) -> None:
    chain = (
        token_dense(HIDDEN, 24, bias=True, activation_function=nn.GELU()),
        token_dense(24, TOKEN_DIM, bias=True, activation_function=nn.Tanh()),
    )
    folder = multi_vector(tmp_path, *chain, normalize=False)
    engine, model = Engine(compile_here(folder)), MultiVectorEncoder(str(folder), device="cpu")
    assert_tokens_like(engine, model)
    found = engine.embed_tokens(TEXTS, side="document", truncate=True, normalize=True)
    expected = model.encode_document(TEXTS, normalize_embeddings=True, convert_to_numpy=True)
    assert_close(found.values, np.concatenate(expected))


def test_pylate(artifact: Callable[[str], Path], source: Any) -> None:
    model = MultiVectorEncoder(str(source("tiny_colbert")), device="cpu")
    assert_tokens_like(poolc.load(artifact("tiny_colbert")), model)


@pytest.mark.parametrize(
    "metadata",
    [{"query_maxlen": QUERY_LENGTH, "doc_maxlen": 30, "attend_to_mask_tokens": True}, {}],
)
def test_stanford(metadata: Any, tmp_path: Path, compile_here: CompileHere) -> None:
    folder = stanford(tmp_path / "model", **metadata)
    model = MultiVectorEncoder(str(folder), device="cpu")
    assert_tokens_like(Engine(compile_here(folder)), model)


def test_bge_m3(artifact: Callable[[str], Path], source: Any) -> None:
    engine, model = poolc.load(artifact("tiny_bge_m3")), FlagEmbedding(source("tiny_bge_m3"))
    found = engine.embed_hybrid(TEXTS, truncate=True)
    for i, text in enumerate(TEXTS):
        dense, lexical, vectors = model(text)
        sparse = found.sparse[i]
        weighted = dict(zip(sparse.indices.tolist(), sparse.values.tolist(), strict=True))
        assert weighted == pytest.approx(lexical, abs=BOUND)
        assert_close(found.dense[i], dense)
        assert_close(found.tokens[i], vectors)


def test_bge_m3_heads_alone(artifact: Callable[[str], Path]) -> None:
    engine = poolc.load(artifact("tiny_bge_m3"))
    together = engine.embed_hybrid(TEXTS, truncate=True, top_k=3)
    assert_close(engine.embed(TEXTS, truncate=True), together.dense)
    sparse = engine.embed_sparse(TEXTS, truncate=True, top_k=3)
    assert_close(sparse.to_dense(), together.sparse.to_dense())
    assert_close(engine.embed_tokens(TEXTS, truncate=True).values, together.tokens.values)
    left, right = together.dense[:3], together.dense[3:]
    assert_close(engine.score(TEXTS[:3], TEXTS[3:], truncate=True), (left * right).sum(axis=1))
