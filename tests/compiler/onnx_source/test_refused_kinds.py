"""Heads that are not attached to a shipped graph: refused by name, with the way out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sentence_transformers.sentence_transformer.modules import (
    Normalize,
    Pooling,
    Router,
    StaticEmbedding,
    Transformer,
)

from poolc.errors import UnsupportedModel
from tests.compiler.conftest import CompileHere
from tests.compiler.fake_hub import Hub, files_of
from tests.compiler.folders import edit_json, encoder
from tests.compiler.layout_folders import dense, saved, table
from tests.compiler.onnx_source.shipping import GRAPH, ship
from tests.compiler.retrieval_folders import masked_lm, multi_vector, stanford, token_dense
from tests.models import HIDDEN, TOKEN_DIM, tiny_bge_m3, tiny_lm_reranker, tiny_tagger

SEGMENTLESS = ("input_ids", "attention_mask")


def refused(folder: Path, compile_here: CompileHere, message: str, **options: Any) -> None:
    with pytest.raises(UnsupportedModel, match=rf"{message}.*without --from-onnx") as caught:
        compile_here(folder, from_onnx=True, **options)
    assert "onnx/model.onnx" in str(caught.value)


def graph_of(shipping: Path, folder: Path) -> Path:
    """Put the graph that one folder ships into another."""
    (folder / "onnx").mkdir()
    (folder / GRAPH).write_bytes((shipping / GRAPH).read_bytes())
    return folder


def test_reranker_of_a_language_model(
    tmp_path: Path, embedder: Path, compile_here: CompileHere
) -> None:
    tiny_lm_reranker(tmp_path)
    refused(graph_of(embedder, tmp_path), compile_here, "poolc reads no causal-lm head")


def test_step_rewards(tmp_path: Path, compile_here: CompileHere) -> None:
    tiny_tagger(tmp_path)
    steps = {"pooling_type": "STEP", "step_tag_id": 3}
    refused(ship(tmp_path), compile_here, "does not attach step rewards to", pooler_config=steps)


def test_reward_class(tmp_path: Path, embedder: Path, compile_here: CompileHere) -> None:
    folder = graph_of(embedder, encoder(tmp_path / "model"))
    edit_json(folder / "config.json", architectures=["BertForRewardModeling"])
    refused(folder, compile_here, "the head of a reward model's own class")


def test_router(tmp_path: Path, embedder: Path, compile_here: CompileHere) -> None:
    shared = Transformer(str(encoder(tmp_path / "bert")))
    router = Router.for_query_document([dense((HIDDEN, 8)), Normalize()], [dense((HIDDEN, 8))])
    folder = saved(tmp_path / "model", shared, Pooling(HIDDEN), router)
    refused(graph_of(embedder, folder), compile_here, "does not attach routes to")


def test_static_table(tmp_path: Path, embedder: Path, compile_here: CompileHere) -> None:
    tokenizer, vectors = table(tmp_path / "words")
    static = StaticEmbedding(tokenizer, embedding_weights=vectors)
    folder = saved(tmp_path / "model", static)
    refused(graph_of(embedder, folder), compile_here, "does not attach a static table to")


def test_bge_m3_here_and_on_the_hub(tmp_path: Path, hub: Hub, compile_here: CompileHere) -> None:
    """The same model on both, although only its graph and its heads are fetched."""
    folder = tmp_path / "model"
    folder.mkdir()
    tiny_bge_m3(folder)
    ship(folder, inputs=SEGMENTLESS)
    hub.add("someone/m3", files_of(folder))
    for model in (folder, "someone/m3"):
        with pytest.raises(UnsupportedModel, match="does not attach hybrid heads to onnx/model"):
            compile_here(model, from_onnx=True)
    assert {"colbert_linear.pt", "sparse_linear.pt"} < hub.fetched()
    assert "model.safetensors" not in hub.fetched()
    spec = compile_here("someone/m3", from_onnx=True, convert="embed").manifest.spec
    assert spec.kind == "embedding"


def test_projection_among_the_weights(
    tmp_path: Path, embedder: Path, compile_here: CompileHere
) -> None:
    """Stanford's ColBERT."""
    folder = graph_of(embedder, stanford(tmp_path / "model"))
    refused(folder, compile_here, "a layer among the model's weights")


# Heads on vectors of tokens, of graphs that have none.


def test_multi_vector_without_token_vectors(tmp_path: Path, compile_here: CompileHere) -> None:
    folder = ship(multi_vector(tmp_path), pooled=True)
    refused(folder, compile_here, "no vectors of tokens, which multi-vector models need")


def test_layers_without_token_vectors(tmp_path: Path, compile_here: CompileHere) -> None:
    layers = token_dense(HIDDEN, TOKEN_DIM)
    bert = Transformer(str(encoder(tmp_path / "bert")))
    folder = ship(saved(tmp_path / "model", bert, layers, Pooling(TOKEN_DIM)), pooled=True)
    refused(folder, compile_here, "no vectors of tokens, which layers before pooling need")


def test_prompt_mask_without_token_vectors(copied: Path, compile_here: CompileHere) -> None:
    ship(copied, pooled=True)
    edit_json(copied / "1_Pooling" / "config.json", include_prompt=False)
    refused(copied, compile_here, r"which pooling without the prompt \(include_prompt\) needs")


def test_masked_language_model_of_another_export(
    tmp_path: Path, embedder: Path, compile_here: CompileHere
) -> None:
    folder = graph_of(embedder, masked_lm(tmp_path / "model"))
    message = "gives last_hidden_state; BertForMaskedLM needs logits of every token"
    refused(folder, compile_here, message, convert="embed_sparse")


def test_token_labels_that_differ(tmp_path: Path, compile_here: CompileHere) -> None:
    tiny_tagger(tmp_path)
    labels = json.loads((ship(tmp_path) / "config.json").read_text())["id2label"]
    edit_json(tmp_path / "config.json", id2label={**labels, "5": "B-ORG"}, label2id=None)
    refused(tmp_path, compile_here, "gives 5 logits, but config.json has 6 labels")
