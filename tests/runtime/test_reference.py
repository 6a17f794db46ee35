"""Every task against the library that defines the model, on the same folders."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poolc.runtime.engine import Engine
from poolc.runtime.outputs import Ragged
from poolc.spec import Similarity
from tests.runtime.conftest import Variant
from tests.runtime.texts import PAIRS, VARIED, mixed

TEXTS = [*VARIED, *mixed(30)]
BOUND = 1e-5


def assert_close(found: Any, expected: Any) -> None:
    """Hold the bound of the parity gate."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= BOUND * max(1.0, np.abs(expected).max())


@pytest.fixture(scope="module")
def cross_encoder_reference(tiny_cross_encoder_source: Path) -> Any:
    """The CrossEncoder that defines ``cross_encoder``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers import CrossEncoder

        return CrossEncoder(
            str(tiny_cross_encoder_source), device="cpu", local_files_only=True, max_length=64
        )


Outputs = Callable[[Any], tuple[Any, Any]]


@pytest.fixture(scope="module")
def classify_reference(
    tiny_classifier_source: Path, auto_tokenizer: Callable[[Path], Any]
) -> Outputs:
    """Logits [labels] and last hidden states [len, hidden] of one item, by transformers."""
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(tiny_classifier_source).eval()
    tokenizer = auto_tokenizer(tiny_classifier_source)

    def run(item: str | tuple[str, str]) -> tuple[Any, Any]:
        texts = (item,) if isinstance(item, str) else item
        features = tokenizer(*texts, return_tensors="pt", truncation=True, max_length=64)
        with torch.inference_mode():
            output = model(**features, output_hidden_states=True)
        return output.logits[0].numpy(), output.hidden_states[-1][0].numpy()

    return run


def softmax(logits: Any) -> Any:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


# embed


def test_embed(embedder: Engine, sentence_transformer: Any) -> None:
    assert_close(embedder.embed(TEXTS), sentence_transformer.encode(TEXTS))


def test_embed_without_normalising(embedder: Engine, sentence_transformer: Any) -> None:
    pooled = sentence_transformer.encode(TEXTS, output_value=None)
    import torch

    raw = [
        torch.stack([v.float() for v in one["token_embeddings"][one["attention_mask"].bool()]])
        .mean(0)
        .numpy()
        for one in pooled
    ]
    assert_close(embedder.embed(TEXTS, normalize=False), raw)


def test_embed_truncates_as_the_reference(embedder: Engine, sentence_transformer: Any) -> None:
    long = [" ".join(mixed(12)), "bread " * 300]
    assert_close(embedder.embed(long, truncate=True), sentence_transformer.encode(long))


@pytest.mark.parametrize("size", [8, 16])
def test_embed_dimensions(embedder: Engine, sentence_transformer: Any, size: int) -> None:
    expected = sentence_transformer.encode(TEXTS, truncate_dim=size, normalize_embeddings=True)
    found = embedder.embed(TEXTS, dimensions=size)
    assert_close(found, expected)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_embed_default_dimensions(
    embedder: Engine, sentence_transformer: Any, variant: Variant
) -> None:
    expected = sentence_transformer.encode(TEXTS, truncate_dim=8, normalize_embeddings=True)
    assert_close(variant(embedder, default_dimensions=8).embed(TEXTS), expected)


def test_embed_of_a_model_that_does_not_normalise(
    embedder: Engine, sentence_transformer: Any, variant: Variant
) -> None:
    raw = variant(embedder, normalize=False)
    assert_close(raw.embed(TEXTS), embedder.embed(TEXTS, normalize=False))
    assert_close(raw.embed(TEXTS, normalize=True), sentence_transformer.encode(TEXTS))


# Prompts


@pytest.mark.parametrize("method", ["query", "document"])
def test_embed_query_and_document(embedder: Engine, sentence_transformer: Any, method: str) -> None:
    found = getattr(embedder, f"embed_{method}")(TEXTS)
    expected = getattr(sentence_transformer, f"encode_{method}")(TEXTS)
    assert_close(found, expected)
    assert np.abs(found - embedder.embed(TEXTS)).max() > 0.01


@pytest.mark.parametrize(
    "options",
    [
        {"prompt_name": "query"},
        {"prompt_name": "document"},
        {"prompt": "find: "},
        {"prompt": ""},
        {"prompt": "find: ", "prompt_name": "query"},
    ],
)
@pytest.mark.parametrize("method", ["", "_query", "_document"])
@pytest.mark.filterwarnings("ignore")
def test_embed_with_prompts(
    embedder: Engine, sentence_transformer: Any, options: dict[str, str], method: str
) -> None:
    found = getattr(embedder, f"embed{method}")(TEXTS[:5], **options)
    assert_close(found, getattr(sentence_transformer, f"encode{method}")(TEXTS[:5], **options))


@pytest.mark.parametrize("options", [{}, {"prompt": ""}, {"prompt_name": "document"}])
def test_embed_with_a_default_prompt(
    embedder: Engine,
    sentence_transformer: Any,
    variant: Variant,
    monkeypatch: pytest.MonkeyPatch,
    options: Any,
) -> None:
    monkeypatch.setattr(sentence_transformer, "default_prompt_name", "query")
    found = variant(embedder, default_prompt_name="query").embed(TEXTS[:5], **options)
    assert_close(found, sentence_transformer.encode(TEXTS[:5], **options))


# score


@pytest.mark.parametrize("kind", list(Similarity))
def test_score_by_similarity(
    embedder: Engine, sentence_transformer: Any, variant: Variant, kind: Similarity
) -> None:
    from sentence_transformers.util import SimilarityFunction

    left, right = TEXTS[:10], TEXTS[10:20]
    compare = SimilarityFunction.to_similarity_pairwise_fn(kind.value)
    expected = compare(sentence_transformer.encode(left), sentence_transformer.encode(right))
    assert_close(variant(embedder, similarity=kind).score(left, right), expected.numpy())


def test_score_of_pairs(cross_encoder: Engine, cross_encoder_reference: Any) -> None:
    left, right = zip(*PAIRS, strict=True)
    expected = cross_encoder_reference.predict(PAIRS)
    assert_close(cross_encoder.score(list(left), list(right)), expected)


def test_score_without_activation(cross_encoder: Engine, cross_encoder_reference: Any) -> None:
    import torch

    left, right = zip(*PAIRS, strict=True)
    expected = cross_encoder_reference.predict(PAIRS, activation_fn=torch.nn.Identity())
    assert_close(cross_encoder.score(list(left), list(right), use_activation=False), expected)


# classify, reward


@pytest.mark.parametrize("items", [TEXTS, PAIRS])
def test_classify(
    classifier: Engine, classify_reference: Outputs, items: Sequence[str | tuple[str, str]]
) -> None:
    logits = np.stack([classify_reference(item)[0] for item in items])
    found = classifier.classify(items)
    assert_close(found.probs, softmax(logits))
    assert found.names == ("negative", "neutral", "positive")
    assert found.labels == [found.names[i] for i in logits.argmax(axis=1)]
    assert_close(classifier.classify(items, use_activation=False).probs, logits)


@pytest.mark.parametrize("label", ["positive", 2])
def test_score_of_a_label(
    classifier: Engine, classify_reference: Outputs, label: str | int
) -> None:
    logits = np.stack([classify_reference(pair)[0] for pair in PAIRS])
    left, right = ([pair[i] for pair in PAIRS] for i in (0, 1))
    assert_close(classifier.score(left, right, label=label), softmax(logits)[:, 2])


def test_reward_is_raw(cross_encoder: Engine, cross_encoder_reference: Any) -> None:
    import torch

    raw = cross_encoder_reference.predict(PAIRS, activation_fn=torch.nn.Identity())
    assert_close(cross_encoder.reward(PAIRS), raw)
    activated = cross_encoder_reference.predict(PAIRS)
    assert_close(cross_encoder.reward(PAIRS, use_activation=True), activated)


# encode


def test_encode(embedder: Engine, sentence_transformer: Any) -> None:
    expected = sentence_transformer.encode(TEXTS, output_value="token_embeddings")
    found = embedder.encode(TEXTS)
    assert isinstance(found, Ragged)
    for row, one in zip(found, expected, strict=True):
        assert_close(row, one.numpy())


def test_encode_of_a_classifier(classifier: Engine, classify_reference: Outputs) -> None:
    for row, text in zip(classifier.encode(TEXTS), TEXTS, strict=True):
        assert_close(row, classify_reference(text)[1])
