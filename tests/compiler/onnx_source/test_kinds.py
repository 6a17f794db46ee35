"""Every kind of head behind a shipped graph, against the library that defines the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from sentence_transformers import (
    CrossEncoder,
    MultiVectorEncoder,
    SentenceTransformer,
    SparseEncoder,
)
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from sentence_transformers.sentence_transformer.modules import (
    LayerNorm,
    Normalize,
    Pooling,
    Transformer,
)
from torch import nn
from transformers import AutoModelForTokenClassification, AutoTokenizer

from poolc.errors import UnsupportedTask
from poolc.runtime.engine import Engine
from poolc.spec import POOLING_MASK
from tests.compiler.conftest import CompileHere
from tests.compiler.folders import MODES, TEXTS, classifier, edit_json, encoder, set_pooling
from tests.compiler.folders import sentence_transformer as pooling_folder
from tests.compiler.layout_folders import dense, saved
from tests.compiler.onnx_source.shipping import GRAPH, ship
from tests.compiler.retrieval_folders import masked_lm, multi_vector, splade, token_dense
from tests.compiler.test_include_prompt import PROMPTS
from tests.compiler.test_parity import assert_close
from tests.compiler.test_parity_retrieval import FIXED, assert_tokens_like, dense_rows
from tests.models import HIDDEN, TOKEN_DIM, tiny_colbert, tiny_tagger

REFERENCE = "shipped ONNX + NumPy heads"


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tagger")
    tiny_tagger(folder)
    return ship(folder)


def token_logits(folder: Path) -> list[Any]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForTokenClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        given = [tokenizer(text, truncation=True, return_tensors="pt") for text in TEXTS]
        return [model(**one).logits[0].numpy() for one in given]


# One row a token.


def test_token_classifier(tagger: Path, compile_here: CompileHere) -> None:
    artifact = compile_here(tagger, from_onnx=True)
    assert artifact.report()["parity"]["reference"] == REFERENCE
    engine = Engine(artifact)
    found: Any = engine.classify_tokens(TEXTS, use_activation=False, truncate=True)
    for row, wanted in zip(found, token_logits(tagger), strict=True):
        assert_close(row, wanted)
    with pytest.raises(UnsupportedTask, match="does not support encode"):
        engine.encode(TEXTS[:1])


def test_rewards_of_tokens(tagger: Path, compile_here: CompileHere) -> None:
    engine = Engine(compile_here(tagger, from_onnx=True, convert="reward"))
    found: Any = engine.reward(TEXTS, truncate=True)
    for row, wanted in zip(found, token_logits(tagger), strict=True):
        assert_close(row, wanted)


# Sparse.


@pytest.mark.parametrize(
    ("pooling", "activation", "opset"), [("max", "relu", 11), ("sum", "log1p_relu", 17)]
)
def test_splade(
    pooling: str, activation: str, opset: int, tmp_path: Path, compile_here: CompileHere
) -> None:
    prompts = {"query": "query: ", "document": "passage: "}
    folder = ship(splade(tmp_path, pooling, activation, prompts=prompts), opset=opset)
    engine, model = Engine(compile_here(folder, from_onnx=True)), SparseEncoder(str(folder))
    found = engine.embed_sparse(TEXTS, truncate=True)
    expected = dense_rows(model.encode(TEXTS))
    assert_close(found.to_dense(), expected)
    assert np.diff(found.indptr).tolist() == (expected > 0).sum(axis=1).tolist()
    queries = engine.embed_sparse(TEXTS, truncate=True, side="query", top_k=5)
    assert_close(queries.to_dense(), dense_rows(model.encode_query(TEXTS, max_active_dims=5)))


def test_splade_of_a_plain_masked_language_model(tmp_path: Path, compile_here: CompileHere) -> None:
    folder = ship(masked_lm(tmp_path / "model"), "model.onnx")
    engine = Engine(compile_here(folder, from_onnx=True, convert="embed_sparse"))
    expected = SparseEncoder(str(folder), device="cpu").encode(TEXTS)
    assert_close(engine.embed_sparse(TEXTS, truncate=True).to_dense(), dense_rows(expected))


# Vectors of tokens.


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
        {"mask": MultiVectorMask(["the", "."], skiplist_tasks=["query", "document"])},
        {"mask": MultiVectorMask(keep_only_token_ids=[2, 3, 30, 31, 32])},
    ],
    ids=["fixed", "min", "skiplist", "allowlist"],
)
def test_multi_vector(options: Any, tmp_path: Path, compile_here: CompileHere) -> None:
    folder = ship(multi_vector(tmp_path, **options))
    artifact = compile_here(folder, from_onnx=True)
    assert artifact.report()["parity"]["reference"] == REFERENCE
    assert set(artifact.manifest.graphs) == {"main", "tokens"}
    assert_tokens_like(Engine(artifact), MultiVectorEncoder(str(folder), device="cpu"))


def test_multi_vector_chain(tmp_path: Path, compile_here: CompileHere) -> None:
    chain = (
        token_dense(HIDDEN, 24, bias=True, activation_function=nn.GELU()),
        token_dense(24, TOKEN_DIM, bias=True, activation_function=nn.Tanh()),
    )
    folder = ship(multi_vector(tmp_path, *chain, normalize=False), opset=11)
    engine = Engine(compile_here(folder, from_onnx=True))
    assert_tokens_like(engine, MultiVectorEncoder(str(folder), device="cpu"))


def test_pylate(tmp_path: Path, compile_here: CompileHere) -> None:
    tiny_colbert(tmp_path)
    engine = Engine(compile_here(ship(tmp_path, output="token_embeddings"), from_onnx=True))
    assert_tokens_like(engine, MultiVectorEncoder(str(tmp_path), device="cpu"))


# Vectors of texts.


@pytest.mark.parametrize("opset", [11, 18])
def test_layers_before_and_behind_pooling(
    opset: int, tmp_path: Path, compile_here: CompileHere
) -> None:
    norms = [LayerNorm(12), LayerNorm(24)]
    for norm in norms:
        nn.init.normal_(norm.norm.weight)
    norms[0].module_input_name = norms[0].module_output_name = "token_embeddings"
    folder = saved(
        tmp_path / "model",
        Transformer(str(encoder(tmp_path / "bert"))),
        dense((HIDDEN, 12), module_input_name="token_embeddings", activation_function=nn.GELU()),
        Normalize(module_input_name="token_embeddings"),
        Pooling(12, pooling_mode=["mean", "max"]),
        norms[1],
        Normalize(),
        dense((24, 24), activation_function=nn.Mish(), use_residual=True),
        dense((24, 8), activation_function=None),
        Normalize(),
    )
    artifact = compile_here(ship(folder, opset=opset), from_onnx=True)
    engine, model = Engine(artifact), SentenceTransformer(str(folder), device="cpu")
    assert (len(engine.spec.token_layers), len(engine.spec.layers)) == (2, 4)
    assert_close(engine.embed(TEXTS, truncate=True), model.encode(TEXTS))
    tokens = model.encode(TEXTS, output_value="token_embeddings")
    for found, wanted in zip(engine.encode(TEXTS, truncate=True), tokens, strict=True):
        assert_close(found, wanted.numpy())


@pytest.mark.parametrize("opset", [11, 18])
def test_pooling_without_the_prompt(opset: int, tmp_path: Path, compile_here: CompileHere) -> None:
    """All modes side by side in one vector: one graph shows them all."""
    folder = pooling_folder(tmp_path / "model")
    set_pooling(folder, list(MODES.values()))
    edit_json(folder / "1_Pooling" / "config.json", include_prompt=False)
    artifact = compile_here(ship(folder, opset=opset), from_onnx=True)
    assert POOLING_MASK in artifact.manifest.spec.inputs
    engine, model = Engine(artifact), SentenceTransformer(str(folder), device="cpu")
    for prompt in PROMPTS:
        found = engine.embed(TEXTS, prompt=prompt, truncate=True)
        assert_close(found, model.encode(TEXTS, prompt=prompt))
    assert np.abs(engine.embed(TEXTS, prompt="", truncate=True) - found).max() > 1e-2


def test_logits_that_are_shifted(tmp_path: Path, compile_here: CompileHere) -> None:
    folder = ship(classifier(tmp_path / "model", num_labels=1))
    config = {"logit_mean": 0.5, "logit_sigma": 2.0}
    engine = Engine(compile_here(folder, from_onnx=True, pooler_config=config))
    pairs = [(TEXTS[0], TEXTS[1]), (TEXTS[2], TEXTS[3])]
    library: Any = CrossEncoder(str(folder), device="cpu")
    raw = library.predict(pairs, activation_fn=nn.Identity())
    found = engine.score(*map(list, zip(*pairs, strict=True)), truncate=True)
    assert_close(found, 1 / (1 + np.exp(-(raw - 0.5) / 2.0)))


def test_hidden_states_beside_logits(tmp_path: Path, compile_here: CompileHere) -> None:
    """A graph that gives both answers encode as well."""
    folder = ship(classifier(tmp_path / "model", num_labels=3))
    model = onnx.load(folder / GRAPH)
    norms = [node for node in model.graph.node if node.op_type == "LayerNormalization"]
    last = norms[-1].output[0] if norms else last_norm(model)
    model.graph.node.append(helper.make_node("Identity", [last], ["last_hidden_state"]))
    shape: list[int | str | None] = ["batch_size", "sequence_length", HIDDEN]
    model.graph.output.append(helper.make_tensor_value_info("last_hidden_state", 1, shape))
    onnx.save(model, folder / GRAPH)
    engine = Engine(compile_here(folder, from_onnx=True))
    expected = SentenceTransformer(str(folder), device="cpu").encode(
        TEXTS, output_value="token_embeddings"
    )
    for found, wanted in zip(engine.encode(TEXTS, truncate=True), expected, strict=True):
        assert_close(found, wanted.numpy())
    assert engine.classify(TEXTS, truncate=True).probs.shape == (len(TEXTS), 3)


def last_norm(model: onnx.ModelProto) -> str:
    """Return what the last layer's norm gives: the sum with its bias, before opset 17."""
    names = [n for node in model.graph.node for n in node.output if "output/LayerNorm/Add_1" in n]
    return str(names[-1])
