"""The vLLM-shaped facade over sparse, multi-vector and hybrid models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from poolc import LLM, PoolingParams
from poolc.errors import UnsupportedTask
from poolc.runtime.engine import Engine

TEXTS = ["bread, water and salt.", "a river runs through the old town"]


@pytest.fixture(scope="module")
def colbert_llm(artifact: Callable[[str], Path]) -> LLM:
    return LLM(model=str(artifact("tiny_colbert")), runner="pooling")


def test_llm_token_embed_gives_every_token(colbert_llm: LLM, colbert: Engine) -> None:
    outputs = colbert_llm.encode(TEXTS, pooling_task="token_embed", use_tqdm=False)
    for text, output in zip(TEXTS, outputs, strict=True):
        assert output.prompt_token_ids == colbert.tokenize(text)
        expected = colbert.embed_tokens(text, side="plain")[0]
        assert output.outputs.data.shape == (len(output.prompt_token_ids), 16)
        np.testing.assert_allclose(output.outputs.data, expected, atol=1e-6)


def test_llm_token_embed_with_params(colbert_llm: LLM, colbert: Engine) -> None:
    params = PoolingParams(task="token_embed", dimensions=8)
    outputs = colbert_llm.encode(TEXTS, pooling_params=params, use_tqdm=False)
    expected = colbert.embed_tokens(TEXTS, side="plain", dimensions=8)
    np.testing.assert_allclose(
        np.concatenate([output.outputs.data for output in outputs]), expected.values, atol=1e-6
    )


def test_llm_score_is_late_interaction(colbert_llm: LLM, colbert: Engine) -> None:
    outputs = colbert_llm.score("bread", TEXTS, use_tqdm=False)
    found = [output.outputs.score for output in outputs]
    np.testing.assert_allclose(found, colbert.score("bread", TEXTS), rtol=1e-6)


def test_llm_embed_needs_another_model(colbert_llm: LLM) -> None:
    with pytest.raises(UnsupportedTask, match="supports: embed_tokens, score, encode"):
        colbert_llm.embed(TEXTS, use_tqdm=False)


def test_llm_embed_of_a_sparse_model_is_dense(
    artifact: Callable[[str], Path], splade: Engine
) -> None:
    llm = LLM(model=str(artifact("tiny_splade")), runner="pooling")
    outputs = llm.embed(TEXTS, use_tqdm=False)
    found = [output.outputs.embedding for output in outputs]
    np.testing.assert_allclose(found, splade.embed_sparse(TEXTS, prompt="").to_dense(), atol=1e-6)
    (encoded,) = llm.encode(TEXTS[0], pooling_task="embed", use_tqdm=False)
    np.testing.assert_allclose(encoded.outputs.data, found[0], atol=1e-6)


def test_llm_of_a_hybrid_model(artifact: Callable[[str], Path], bge_m3: Engine) -> None:
    llm = LLM(model=str(artifact("tiny_bge_m3")), runner="pooling")
    dense = [output.outputs.embedding for output in llm.embed(TEXTS, use_tqdm=False)]
    together = bge_m3.embed_hybrid(TEXTS)
    np.testing.assert_allclose(dense, together.dense, atol=1e-6)
    tokens = llm.encode(TEXTS, pooling_task="token_embed", use_tqdm=False)
    found = np.concatenate([output.outputs.data for output in tokens])
    np.testing.assert_allclose(found, together.tokens.values, atol=1e-6)
