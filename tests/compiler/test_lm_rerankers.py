"""Rerankers made from a causal language model, and the affine step before the activation.

Compiling compares every graph with AutoModelForCausalLM's full logits, or the classifier's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma2Config, Gemma2ForCausalLM

import poolc
from poolc.errors import InvalidOption, PoolcError, TokenizerError
from poolc.spec import Trunk
from tests.compiler.conftest import CompileHere, Recognise
from tests.compiler.folders import causal, classifier, encoder
from tests.models import HIDDEN, MAX_LENGTH, save_model, wordpiece

# Without the template that is the original's.
TWO_WAY: dict[str, Any] = {
    "classifier_from_token": ["bad", "good"],
    "method": "from_2_way_softmax",
}
TEXTS = ["bread needs flour", "a", "the cat sleeps in the sun and the river runs through the town"]


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return causal(tmp_path_factory.mktemp("lm") / "model")


def last_logits(folder: Path, tokens: list[str]) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    ids = [tokenizer.get_vocab()[token] for token in tokens]
    with torch.inference_mode():
        rows = [
            model(input_ids=tokenizer(text, return_tensors="pt")["input_ids"]).logits[0, -1, ids]
            for text in TEXTS
        ]
    return torch.stack(rows).numpy()


@pytest.mark.parametrize("tied", [False, True])
def test_reranker_two_way_softmax(tied: bool, tmp_path: Path, compile_here: CompileHere) -> None:
    folder = causal(tmp_path / "model", tie_word_embeddings=tied)
    artifact = compile_here(folder, hf_overrides=TWO_WAY)
    logits = last_logits(folder, ["bad", "good"])
    wanted = np.exp(logits[:, 1]) / np.exp(logits).sum(axis=1)
    engine = poolc.load(artifact.path)
    np.testing.assert_allclose(engine.classify(TEXTS).probs[:, 0], wanted, atol=1e-5)
    assert engine.spec.labels == ("good",)
    assert engine.spec.pairs
    graph = onnx.load(artifact.file("model.onnx")).graph
    multiplied = {
        name for node in graph.node if node.op_type in ("MatMul", "Gemm") for name in node.input
    }
    heads = [
        tensor.name
        for tensor in graph.initializer
        if engine.spec.vocab_size in tensor.dims and tensor.name in multiplied
    ]
    assert not heads
    tables = [tensor for tensor in graph.initializer if engine.spec.vocab_size in tensor.dims]
    assert len(tables) == 1


def test_reranker_no_post_processing(generator: Path, compile_here: CompileHere) -> None:
    overrides = {"classifier_from_token": ["good"], "method": "no_post_processing"}
    config = {"logit_mean": 0.5, "logit_sigma": 2.0}
    artifact = compile_here(generator, hf_overrides=overrides, pooler_config=config)
    got = poolc.load(artifact.path).classify(TEXTS, use_activation=False).probs
    wanted = (last_logits(generator, ["good"]) - 0.5) / 2.0
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_reranker_soft_capped_logits(tmp_path: Path, compile_here: CompileHere) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    config = Gemma2Config(
        vocab_size=len(wordpiece(folder)),
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=64,
        max_position_embeddings=MAX_LENGTH,
        final_logit_softcapping=0.5,
        pad_token_id=0,
    )
    save_model(Gemma2ForCausalLM(config), folder)
    overrides = {"classifier_from_token": ["bad", "good"], "method": "from_2_way_softmax"}
    engine = poolc.load(compile_here(folder, hf_overrides=overrides).path)
    got = engine.classify(TEXTS, use_activation=False).probs[:, 0]
    logits = last_logits(folder, ["bad", "good"])
    np.testing.assert_allclose(got, logits[:, 1] - logits[:, 0], atol=1e-5)
    assert np.abs(logits).max() <= 0.5


def test_recognize_reranker(generator: Path, recognise: Recognise) -> None:
    known = recognise(generator, hf_overrides=TWO_WAY)
    assert known.spec.trunk is Trunk.CAUSAL_LM
    assert known.spec.lm_head is not None
    assert known.spec.lm_head.difference
    assert known.spec.template is None
    assert "no score template" in " ".join(known.warnings)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"classifier_from_token": ["bad", "no such"]}, "no single token 'no such'"),
        ({"classifier_from_token": "good"}, "is 'good'; allowed: a list of tokens"),
        ({"classifier_from_token": ["good"], "method": "from_2"}, "method is 'from_2'"),
        ({"classifier_from_token": ["good"]}, "has 1 tokens; from_2_way_softmax needs two"),
    ],
)
def test_recognize_reranker_refused(
    overrides: Any, message: str, generator: Path, recognise: Recognise
) -> None:
    with pytest.raises(PoolcError, match=message):
        recognise(generator, hf_overrides={"is_original_qwen3_reranker": True, **overrides})


def test_recognize_reranker_qwen3_without_tokens(generator: Path, recognise: Recognise) -> None:
    with pytest.raises(PoolcError, match="is_original_qwen3_reranker needs classifier_from_token"):
        recognise(generator, hf_overrides={"is_original_qwen3_reranker": True})


def test_recognize_reranker_token_error_class(generator: Path, recognise: Recognise) -> None:
    with pytest.raises(TokenizerError):
        recognise(generator, hf_overrides={"classifier_from_token": ["no such"]})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"logit_sigma": 0}, "logit_sigma is 0"),
        ({"logit_mean": 1, "logit_bias": 2}, "contradict"),
        ({"logit_mean": "1"}, "logit_mean is '1'; allowed: a finite number"),
    ],
)
def test_recognize_logit_affine_refused(
    config: Any, message: str, tmp_path: Path, recognise: Recognise
) -> None:
    with pytest.raises(InvalidOption, match=message):
        recognise(classifier(tmp_path / "model"), pooler_config=config)


def test_recognize_logit_bias(tmp_path: Path, recognise: Recognise) -> None:
    spec = recognise(classifier(tmp_path / "model"), pooler_config={"logit_bias": 2}).spec
    assert (spec.logit_mean, spec.logit_sigma) == (2.0, None)


def test_recognize_logit_affine_of_an_embedder(tmp_path: Path, recognise: Recognise) -> None:
    with pytest.raises(InvalidOption, match="belongs to classifiers of whole texts; this is a"):
        recognise(encoder(tmp_path / "model"), pooler_config={"logit_mean": 1})
