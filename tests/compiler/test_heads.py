"""Pooling and Dense against Sentence Transformers' own modules, on random padded batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import nn
from transformers import BertForSequenceClassification, BertModel

from poolc.compiler.heads import PoolingModel, activation_module
from poolc.compiler.heads.classifier import ClassifierHead
from poolc.compiler.heads.embedding import EmbeddingHead
from poolc.compiler.heads.layers import Dense
from poolc.compiler.heads.pooling import pool
from poolc.compiler.heads.tokens import HiddenStatesHead
from poolc.compiler.st_files import read
from poolc.errors import CorruptWeights
from poolc.spec import ATTENTION_MASK, Activation, Kind, LayerSpec, ModelSpec, PoolingType, Task
from tests.compiler.folders import MODES, add_dense, add_modules
from tests.models import HIDDEN, bert_config, write_pooling

BATCH, SEQ = 7, 19
ACTIVATIONS = [nn.Tanh(), nn.GELU(), nn.Identity(), nn.ReLU(), nn.Softplus(), nn.Mish(), nn.ELU()]


def padded_batch(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states and a mask of rows of 1 to SEQ tokens; padding holds large rubbish."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, SEQ + 1, (BATCH,), generator=generator)
    lengths[0], lengths[1] = 1, SEQ
    mask = (torch.arange(SEQ) < lengths[:, None]).long()
    hidden = torch.randn(BATCH, SEQ, HIDDEN, generator=generator)
    return torch.where(mask[..., None] == 1, hidden, 1e3), mask


def by_the_library(hidden: torch.Tensor, mask: torch.Tensor, modes: Any) -> torch.Tensor:
    features = {"token_embeddings": hidden, "attention_mask": mask}
    pooled: torch.Tensor = Pooling(HIDDEN, pooling_mode=modes)(features)["sentence_embedding"]
    return pooled


def embedder_spec(folder: Path, *kinds: PoolingType, normalize: bool = True) -> ModelSpec:
    found = read(folder)
    layers = found.layers if found else ()
    return ModelSpec(
        architecture="BertModel",
        model_type="bert",
        kind=Kind.EMBEDDING,
        tasks=(Task.EMBED,),
        hidden_size=HIDDEN,
        max_length=SEQ,
        inputs=("input_ids", "attention_mask"),
        vocab_size=100,
        pooling=kinds,
        layers=layers,
        normalize=normalize,
        embedding_size=HIDDEN,
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", MODES)
def test_pool(kind: PoolingType, seed: int) -> None:
    hidden, mask = padded_batch(seed)
    torch.testing.assert_close(pool(hidden, mask, kind), by_the_library(hidden, mask, MODES[kind]))


@pytest.mark.parametrize("kind", MODES)
def test_pool_ignores_padding(kind: PoolingType) -> None:
    hidden, mask = padded_batch(5)
    alone = [
        pool(h[None, :n], m[None, :n], kind)
        for h, m in zip(hidden, mask, strict=True)
        for n in [int(m.sum())]
    ]
    torch.testing.assert_close(pool(hidden, mask, kind), torch.cat(alone))


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("sizes", [(HIDDEN, 8), (HIDDEN, HIDDEN)])
def test_dense(sizes: tuple[int, int], bias: bool, residual: bool, tmp_path: Path) -> None:
    for number, function in enumerate(ACTIVATIONS):
        path = f"{number}_Dense"
        options = {"bias": bias, "use_residual": residual}
        library = add_dense(tmp_path, path, sizes, activation_function=function, **options)
        add_modules(tmp_path, ("Dense", path))
        write_pooling(tmp_path, "mean_tokens")
        (spec,) = embedder_spec(tmp_path).layers
        x = torch.randn(BATCH, HIDDEN)
        expected = library({"sentence_embedding": x})["sentence_embedding"]
        torch.testing.assert_close(Dense(spec, tmp_path)(x), expected)


@pytest.mark.parametrize("normalize", [False, True])
def test_embedding_head(normalize: bool, tmp_path: Path) -> None:
    """Two poolings, a chain of two Dense, Normalize: as the library runs them in a row."""
    add_modules(tmp_path, ("Dense", "2_Dense"), ("Dense", "3_Dense"))
    write_pooling(tmp_path, "mean_tokens")
    chain = [add_dense(tmp_path, "2_Dense", (64, 16)), add_dense(tmp_path, "3_Dense", (16, 4))]
    kinds = (PoolingType.MAX, PoolingType.LAST)
    head = EmbeddingHead(embedder_spec(tmp_path, *kinds, normalize=normalize), tmp_path)
    hidden, mask = padded_batch(11)
    pooled, unit, tokens = head(_Outputs(hidden), {ATTENTION_MASK: mask})
    expected = by_the_library(hidden, mask, [MODES[kind] for kind in kinds])
    for dense in chain:
        expected = dense({"sentence_embedding": expected})["sentence_embedding"]
    torch.testing.assert_close(pooled, expected)
    unit_length = nn.functional.normalize(expected, dim=-1) if normalize else expected
    torch.testing.assert_close(unit, unit_length)
    assert tokens is hidden


class _Outputs:
    def __init__(self, hidden: torch.Tensor) -> None:
        self.last_hidden_state = hidden


@pytest.mark.parametrize("kind", Activation)
def test_activation_module_is_torchs(kind: Activation) -> None:
    module = activation_module(kind)
    assert type(module).__name__.lower() == kind
    x = torch.randn(3, 4)
    expected = torch.softmax(x, -1) if kind is Activation.SOFTMAX else type(module)()(x)
    torch.testing.assert_close(module(x), expected)


def test_dense_that_does_not_fit(tmp_path: Path) -> None:
    spec = LayerSpec("2_Dense", HIDDEN, 8, bias=True, activation=Activation.TANH)
    (tmp_path / "2_Dense").mkdir()
    weights = {"linear.weight": torch.zeros(9, HIDDEN)}
    save_file(weights, tmp_path / "2_Dense" / "model.safetensors")
    with pytest.raises(CorruptWeights, match=r"does not fit 2_Dense/config.json: ") as caught:
        Dense(spec, tmp_path)
    assert "linear.bias" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_dense_reads_half_precision_as_float(tmp_path: Path) -> None:
    spec = LayerSpec("2_Dense", HIDDEN, 8, bias=False, activation=Activation.IDENTITY)
    (tmp_path / "2_Dense").mkdir()
    weight = torch.randn(8, HIDDEN).half()
    save_file({"linear.weight": weight}, tmp_path / "2_Dense" / "model.safetensors")
    x = torch.randn(2, HIDDEN)
    torch.testing.assert_close(Dense(spec, tmp_path)(x), x @ weight.float().T)


def test_pooling_model_chooses_its_head(tmp_path: Path) -> None:
    embedder = embedder_spec(tmp_path, PoolingType.MEAN)
    backbone = BertModel(bert_config(100)).eval()
    assert isinstance(PoolingModel(backbone, embedder, tmp_path).head, EmbeddingHead)
    rewarder = replace(embedder, kind=Kind.REWARD, embedding_size=None)
    assert isinstance(PoolingModel(backbone, rewarder, tmp_path).head, HiddenStatesHead)
    classifier = replace(
        embedder, kind=Kind.CLASSIFIER, labels=("a", "b"), activation=Activation.SOFTMAX
    )
    model = BertForSequenceClassification(bert_config(100)).eval()
    whole = PoolingModel(model, classifier, tmp_path).eval()
    assert isinstance(whole.head, ClassifierHead)
    ids = torch.randint(5, 100, (2, 6))
    logits, probs, tokens = whole(ids, torch.ones_like(ids))
    expected = model(input_ids=ids, output_hidden_states=True)
    torch.testing.assert_close(logits, expected.logits)
    torch.testing.assert_close(probs, expected.logits.softmax(-1))
    torch.testing.assert_close(tokens, expected.hidden_states[-1])
