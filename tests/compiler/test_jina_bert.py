"""Jina-BERT without its authors' code: every head against NumPy, both layouts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from poolc.compiler.models import register_classes, register_configs
from poolc.compiler.models.jina_bert.layers import attention_bias
from poolc.compiler.natives import native_config
from poolc.errors import CorruptWeights, InvalidOption, UnsupportedModel
from poolc.runtime.engine import Engine
from poolc.runtime.request import Item
from poolc.spec import Kind, PoolingType, Trunk
from tests.compiler.conftest import CompileHere, Recognise
from tests.compiler.jina_bert import QK_POST_NORM, Array, Layout, Numpy, author
from tests.compiler.onnx_source.shipping import ship
from tests.matrix.compare import BOUND, PAIRS, TEXTS, compile_folder, difference
from tests.models import write_json, write_modules, write_pooling, write_typed_modules

RERANKER = "JinaBertForSequenceClassification"
LABELS_TOKENS = "JinaBertForTokenClassification"
AUTO_MAP = {"AutoModel": "jinaai/jina-bert-implementation--modeling_bert.JinaBertModel"}


def embedding(folder: Path, layout: Layout) -> None:
    author(folder, layout)
    write_modules(folder, ("Transformer", ""), ("Pooling", "1_Pooling"))
    write_pooling(folder, "mean_tokens", dim=layout.hidden)


def plain(folder: Path, layout: Layout) -> None:
    author(folder, layout)


def splade(folder: Path, layout: Layout) -> None:
    author(folder, layout)
    package = "sentence_transformers.sparse_encoder.models"
    write_typed_modules(
        folder, (f"{package}.MLMTransformer", ""), (f"{package}.SpladePooling", "1_SpladePooling")
    )
    write_json(folder / "1_SpladePooling" / "config.json", {"pooling_strategy": "max"})
    write_json(folder / "config_sentence_transformers.json", {"model_type": "SparseEncoder"})


def vectors(folder: Path, engine: Engine) -> float:
    model = Numpy(folder)
    tokens = [model.hidden(text) for text in TEXTS]
    expected: list[Array] = [row.mean(0) for row in tokens]
    if engine.spec.normalize:
        expected = [row / np.linalg.norm(row) for row in expected]
    alone = [engine.embed([text], truncate=True)[0] for text in TEXTS]
    return max(
        difference(engine.embed(TEXTS, truncate=True), expected),
        difference(alone, expected),
        difference(list(engine.encode(TEXTS, truncate=True)), tokens),
    )


def scores(folder: Path, engine: Engine) -> float:
    model = Numpy(folder)
    items: list[Item] = [*TEXTS, *PAIRS]
    expected = [model.logits(item) for item in items]
    options: Any = {"truncate": True, "use_activation": False}
    alone = [engine.classify([item], **options).probs[0] for item in items]
    left, right = (list(side) for side in zip(*PAIRS, strict=True))
    of_pairs = [float(1 / (1 + np.exp(-row[0]))) for row in expected[len(TEXTS) :]]
    return max(
        difference(engine.classify(items, **options).probs, expected),
        difference(alone, expected),
        difference(engine.score(left, right, truncate=True), of_pairs),
    )


def labels(folder: Path, engine: Engine) -> float:
    model = Numpy(folder)
    expected = [model.linear(model.hidden(text), "classifier") for text in TEXTS]
    options: Any = {"truncate": True, "use_activation": False}
    alone: Any = [next(iter(engine.classify_tokens([text], **options))) for text in TEXTS]
    found: Any = engine.classify_tokens(TEXTS, **options)
    return max(difference(list(found), expected), difference(alone, expected))


def weights(folder: Path, engine: Engine) -> float:
    model = Numpy(folder)
    expected = [np.log1p(np.maximum(model.words(text), 0)).max(0) for text in TEXTS]
    alone = [engine.embed_sparse([text], truncate=True).to_dense()[0] for text in TEXTS]
    found = engine.embed_sparse(TEXTS, truncate=True).to_dense()
    return max(difference(found, expected), difference(alone, expected))


@dataclass(frozen=True, slots=True)
class Check:
    """One head over one layout; ``measure`` compares a folder's artifact with NumPy."""

    layout: Layout
    build: Callable[[Path, Layout], None]
    measure: Callable[[Path, Engine], float]


CHECKS: Mapping[str, Check] = {
    "mean": Check(Layout(), embedding, vectors),
    "mean, 6 heads, reglu, no prefix": Check(
        Layout(heads=6, gate="reglu", prefix="", architecture="JinaBertModel"), embedding, vectors
    ),
    "mean of emb_pooler": Check(Layout(), plain, vectors),
    "qk-post-norm, mean": Check(Layout(QK_POST_NORM, prefix=""), embedding, vectors),
    "qk-post-norm, mean, 6 heads, reglu": Check(
        Layout(QK_POST_NORM, heads=6, gate="reglu"), embedding, vectors
    ),
    "cross-encoder": Check(Layout(architecture=RERANKER), plain, scores),
    "cross-encoder, 6 heads": Check(Layout(heads=6, architecture=RERANKER), plain, scores),
    "qk-post-norm, cross-encoder": Check(
        Layout(QK_POST_NORM, architecture=RERANKER), plain, scores
    ),
    "classes of tokens": Check(Layout(architecture=LABELS_TOKENS, labels=3), plain, labels),
    "SPLADE": Check(Layout(), splade, weights),
}


def measured_error(name: str, work: Path) -> float:
    """Build, compile without trust and run one of CHECKS below the empty folder ``work``.

    Returns the largest difference to NumPy, divided by max(1, largest value of NumPy's).
    """
    check, folder = CHECKS[name], work / "model"
    check.build(folder, check.layout)
    return check.measure(folder, compile_folder(folder, work / "store"))


@pytest.mark.parametrize("name", CHECKS)
def test_jina_bert_against_numpy(name: str, tmp_path: Path) -> None:
    assert measured_error(name, tmp_path) <= BOUND


def test_jina_bert_is_recognised_by_what_it_says(tmp_path: Path, recognise: Recognise) -> None:
    known = recognise(author(tmp_path / "model", Layout()))
    spec = known.spec
    assert (spec.kind, spec.trunk, spec.model_type) == (Kind.EMBEDDING, Trunk.BASE, "jina_bert")
    assert spec.pooling == (PoolingType.MEAN,)
    assert spec.origins["pooling"] == "config.json: emb_pooler"
    assert not known.warnings


def test_emb_pooler_beats_the_defaults_of_vllm(tmp_path: Path, recognise: Recognise) -> None:
    spec = recognise(author(tmp_path / "model", Layout()), defaults="vllm").spec
    assert spec.pooling == (PoolingType.MEAN,)


def test_jina_bert_with_trust_runs_the_same_class(tmp_path: Path, recognise: Recognise) -> None:
    folder = author(tmp_path / "model", Layout())
    assert recognise(folder, trust_remote_code=True).spec.model_type == "jina_bert"


def test_jina_bert_takes_long_texts(tmp_path: Path, recognise: Recognise) -> None:
    folder = author(tmp_path / "model", Layout())
    assert recognise(folder, max_length=8192).spec.max_length == 8192


def test_jina_bert_stops_where_its_authors_do(tmp_path: Path, recognise: Recognise) -> None:
    folder = author(tmp_path / "model", Layout())
    with pytest.raises(InvalidOption, match="JinaBertForMaskedLM has 2 to 8192 positions"):
        recognise(folder, max_length=8193)


def test_jina_colbert_is_recognised(tmp_path: Path, recognise: Recognise) -> None:
    spec = recognise(author(tmp_path / "model", Layout(architecture="HF_ColBERT"))).spec
    assert (spec.kind, spec.model_type) == (Kind.MULTI_VECTOR, "jina_bert")


def test_jina_bert_from_the_onnx_that_it_ships(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    embedding(folder, Layout(heads=6))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    write_json(folder / "config.json", native_config(config))
    register_configs()
    register_classes()
    ship(folder, output="last_hidden_state")
    write_json(folder / "config.json", config)
    engine = compile_folder(folder, tmp_path / "store", from_onnx=True)
    assert vectors(folder, engine) <= BOUND


def test_attention_bias_is_finite_in_half_precision() -> None:
    mask = torch.ones((2, 512), dtype=torch.int64)
    mask[1, 3:] = 0
    bias = attention_bias(mask, 1, torch.float16)
    assert bias.isfinite().all()
    assert torch.softmax(bias[1, 0, 0].float(), -1)[3:].sum() == 0


def test_jina_bert_missing_pooler(tmp_path: Path, compile_here: CompileHere) -> None:
    """An embedding checkpoint is no reranker, whatever its config.json says."""
    author(tmp_path / "model", Layout(), architectures=[RERANKER])
    with pytest.raises(CorruptWeights, match=r"bert\.pooler\.dense\.bias"):
        compile_here(tmp_path / "model")


JINA_BERT = {
    "model_type": "bert",
    "auto_map": AUTO_MAP,
    "position_embedding_type": "alibi",
    "feed_forward_type": "geglu",
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"position_embedding_type": "absolute"}, "position_embedding_type is 'absolute'; poolc"),
        ({"position_embedding_type": None}, "position_embedding_type is None; poolc computes"),
        ({"feed_forward_type": "original"}, "feed_forward_type is 'original'; poolc computes J"),
        ({"feed_forward_type": "swiglu"}, "with 'geglu' or 'reglu' only"),
        ({"is_decoder": True}, "is_decoder is True; poolc computes Jina-BERT with False only"),
        ({"add_cross_attention": True}, "add_cross_attention is True; poolc"),
    ],
)
def test_jina_bert_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedModel, match=message):
        native_config({**JINA_BERT, **changes})


@pytest.mark.parametrize("name", ["position_embedding_type", "feed_forward_type"])
def test_jina_bert_refuses_what_its_code_takes_for_absent(name: str) -> None:
    with pytest.raises(UnsupportedModel, match=f"{name} is '(absolute|original)'; poolc"):
        native_config({key: value for key, value in JINA_BERT.items() if key != name})


def test_jina_bert_does_not_divide(tmp_path: Path, recognise: Recognise) -> None:
    author(tmp_path / "model", Layout(), num_attention_heads=5)
    with pytest.raises(UnsupportedModel, match="hidden_size 32 is no multiple of 5 heads"):
        recognise(tmp_path / "model")


def test_jina_code_elsewhere_is_left_alone() -> None:
    own = {"AutoModel": "modeling_bert.JinaBertModel"}
    assert native_config({**JINA_BERT, "auto_map": own}) is None
