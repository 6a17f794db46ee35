"""The parity gate: what it compares, and that a wrong graph gets past it in no way."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from poolc.compiler import tokenizer
from poolc.compiler.frontends import pytorch
from poolc.compiler.heads import PoolingModel, embedding, pooling
from poolc.compiler.parity_texts import parity_pairs, parity_texts
from poolc.compiler.recognize import recognize
from poolc.compiler.reference import Reference, Subject, open_reference
from poolc.compiler.verify import verify
from poolc.errors import CompileError, ParityError, TokenizerError
from poolc.model_cache.artifact import open_artifact
from poolc.model_cache.store import Store
from poolc.runtime.bounds import FP32_BOUND
from poolc.runtime.engine import Engine
from poolc.runtime.request import Row, TokenSequence
from poolc.spec import CompileOptions, PoolingType
from tests.compiler.conftest import CompileHere
from tests.models import MAX_LENGTH, byte_bpe


@pytest.fixture
def nothing_left(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Assert, when the test ends, that the failed compile left neither artifact nor draft."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    yield
    assert store.entries() == []
    assert list(store.artifacts.iterdir()) == []
    assert not (store.root / "refs").exists()
    assert list(temporary.iterdir()) == []


# Wrong graphs.


@pytest.mark.usefixtures("nothing_left")
def test_gate_refuses_another_pooling(
    plain_bert: Path, compile_here: CompileHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = pooling.pool

    def wrong(
        hidden: torch.Tensor, mask: torch.Tensor, kind: PoolingType, counted: torch.Tensor | None
    ) -> torch.Tensor:
        # Padding counts: right alone, wrong in a batch of several lengths.
        return right(hidden, torch.ones_like(mask), kind, counted)

    monkeypatch.setattr(embedding, "pool", wrong)
    monkeypatch.setattr(pytorch, "export", _export)  # not the graph that was traced before
    with pytest.raises(ParityError) as caught:
        compile_here(plain_bert)
    message = str(caught.value)
    assert message.endswith("more than the bound of 1e-05; nothing was written")
    assert "differs from sentence-transformers by " in message
    shown = message.partition(" of ")[2].partition(" differs from ")[0]
    texts = [repr(text)[:50] for text in parity_texts(MAX_LENGTH)]
    assert any(shown.startswith(text) for text in texts)


def _export(model: PoolingModel) -> ir.Model:
    from poolc.compiler.export import export

    return export(model)


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("scale", [1.001, 0.0])
def test_gate_refuses_altered_weights(
    scale: float, plain_bert: Path, compile_here: CompileHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = pytorch.export  # type: ignore[attr-defined]

    def wrong(model: PoolingModel) -> ir.Model:
        graph: ir.Model = right(model)
        name = next(n for n in graph.graph.initializers if n.endswith("word_embeddings.weight"))
        value = graph.graph.initializers[name]
        assert value.const_value is not None
        value.const_value = ir.tensor(value.const_value.numpy() * np.float32(scale), name=name)
        return graph

    monkeypatch.setattr(pytorch, "export", wrong)
    with pytest.raises(ParityError, match="differs from sentence-transformers by"):
        compile_here(plain_bert)


@pytest.mark.usefixtures("nothing_left")
def test_gate_refuses_another_tokenizer(
    plain_bert: Path, compile_here: CompileHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = tokenizer.tokenizer_json

    def wrong(words: Any) -> str:
        return right(words).replace('"lowercase":true', '"lowercase":false')

    monkeypatch.setattr(tokenizer, "tokenizer_json", wrong)
    message = r"the tokenizer differs from AutoTokenizer on 'The harbour .*': \[.* instead of \["
    with pytest.raises(ParityError, match=message):
        compile_here(plain_bert)


@pytest.mark.usefixtures("nothing_left")
def test_gate_refuses_a_larger_vocabulary(
    plain_bert: Path, tmp_path: Path, compile_here: CompileHere
) -> None:
    (tmp_path / "words").mkdir()
    byte_bpe(tmp_path / "words")  # 500 tokens
    message = r"^the tokenizer gives token \d+ for '.*', but the model has 2\d\d, from 0: it is the"
    with pytest.raises(TokenizerError, match=message):
        compile_here(plain_bert, tokenizer=str(tmp_path / "words"))


def test_parity_error_is_a_compile_error() -> None:
    assert issubclass(ParityError, CompileError)


# The gate by itself, over a compiled model.


def reference(folder: Path) -> Reference:
    options = CompileOptions()
    recognized, words = recognize(folder, options, lambda message: None)
    return open_reference(Subject(folder, recognized, words, options))


class Noisy(Engine):
    """Adds ``noise`` to what a batch computes, and takes it from what one text alone does."""

    noise = 0.0

    def execute(
        self, sequences: Sequence[TokenSequence], output_set: str, *, alone: bool = False
    ) -> list[Row]:
        sign = 1 if len(sequences) > 1 else -1
        rows = super().execute(sequences, output_set, alone=alone)
        return [
            {name: values + np.float32(sign * self.noise) for name, values in row.items()}
            for row in rows
        ]


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (0.2 * FP32_BOUND, None),
        (0.9 * FP32_BOUND, "alone and in a batch differ by 1.8"),
        (1.1 * FP32_BOUND, "differs from sentence-transformers by 1.1"),
        (float("nan"), "is not finite"),
        (float("inf"), "is not finite"),
    ],
)
def test_verify_bound(
    noise: float,
    message: str | None,
    tiny_embedder: Path,
    tiny_embedder_source: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Noisy, "noise", noise)
    artifact = open_artifact(tiny_embedder)
    expected, engine = reference(tiny_embedder_source), Noisy(artifact)
    if message is None:
        assert verify(engine, expected).invariance_max_abs > 0
        return
    with pytest.raises(ParityError, match=message):
        verify(engine, expected)


def test_verify_tells_what_it_compared(tiny_embedder: Path, tiny_embedder_source: Path) -> None:
    parity = verify(Engine(open_artifact(tiny_embedder)), reference(tiny_embedder_source))
    assert parity.reference == "sentence-transformers"
    assert parity.texts == len(parity_texts(MAX_LENGTH)) >= 32
    assert parity.longest_tokens == MAX_LENGTH
    assert parity.worst_cosine is not None
    assert parity.worst_cosine > 0.999999
    assert 0 < parity.max_relative_error <= parity.bound
    assert parity.outputs == ("pooled", "sentence_embedding", "token_embeddings")


def test_verify_compares_pairs_of_a_classifier(
    tiny_classifier: Path, tiny_classifier_source: Path
) -> None:
    parity = verify(Engine(open_artifact(tiny_classifier)), reference(tiny_classifier_source))
    assert parity.reference == "transformers"
    assert parity.texts == len(parity_texts(MAX_LENGTH)) + len(parity_pairs(MAX_LENGTH))
    assert parity.outputs == ("logits", "probs", "token_embeddings")


def test_verify_refuses_another_shape(
    tiny_embedder: Path, tiny_embedder_source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = reference(tiny_embedder_source)
    (case,) = expected.cases()
    rows = [{**row, "pooled": row["pooled"][:8]} for row in expected.rows(case)]
    monkeypatch.setattr(expected, "rows", lambda case: rows)
    with pytest.raises(ParityError, match=r"pooled of 'a': \(32,\) instead of \(8,\)"):
        verify(Engine(open_artifact(tiny_embedder)), expected)


# The texts.


@pytest.mark.parametrize("longest", [8, 64, 512, 2048])
def test_parity_texts_span_every_length(longest: int) -> None:
    texts = [text for text in parity_texts(longest) if isinstance(text, str)]
    assert len(texts) == len(set(texts)) >= 32
    assert all(texts)
    words = [len(text.split()) for text in texts]
    assert max(words) > longest
    assert {0, 1} <= set(words)
    assert any(not text.isascii() for text in texts)
    pairs = parity_pairs(longest)
    assert all(isinstance(pair, tuple) and all(pair) for pair in pairs)
    assert max(len(" ".join(pair).split()) for pair in pairs if isinstance(pair, tuple)) > longest
