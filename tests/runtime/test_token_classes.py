"""classify_tokens: probabilities and spans, against transformers' own pipeline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import poolc
from poolc.errors import InvalidOption, InvalidText, TextTooLong, UnsupportedTask
from poolc.runtime.engine import Engine
from poolc.runtime.outputs import Ragged, Span

MODELS = ("tiny_tagger", "tiny_byte_tagger")
TEXTS = [
    "Paris is the capital of France and Brasília the capital of Brazil",
    "a",
    "The Committee approved  (unexpectedly) the budget; Zürich's bridges didn't.",
    "bread",
    "unbelievably 東京 sleeps, x1234-yz in the overcapitalised town",
]
STRATEGIES = ("simple", "first", "average", "max")


@pytest.fixture(scope="module")
def engines(artifact: Callable[[str], Path]) -> Callable[[str], Engine]:
    return cache(lambda name: poolc.load(artifact(name)))


@pytest.fixture(scope="module")
def pipelines(source: Callable[[str], Path]) -> Callable[[str], Any]:
    """transformers' pipeline over the same folder, once a model."""

    @cache
    def load(name: str) -> Any:
        from transformers import AutoModelForTokenClassification, AutoTokenizer, pipeline

        model = AutoModelForTokenClassification.from_pretrained(source(name))
        tokenizer = AutoTokenizer.from_pretrained(source(name))
        return pipeline("token-classification", model=model, tokenizer=tokenizer, device="cpu")

    return load


def as_dicts(spans: Any) -> list[dict[str, Any]]:
    names = ("entity_group", "word", "start", "end")
    return [{name: getattr(span, name) for name in names} for span in spans]


@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_spans(
    name: str,
    strategy: str,
    engines: Callable[[str], Engine],
    pipelines: Callable[[str], Any],
) -> None:
    found: Any = engines(name).classify_tokens(TEXTS, aggregation=strategy)
    assert sum(map(len, found)) > len(TEXTS)  # nothing was compared otherwise
    for text, spans in zip(TEXTS, found, strict=True):
        wanted = pipelines(name)(text, aggregation_strategy=strategy)
        scores = [one.pop("score") for one in wanted]
        assert as_dicts(spans) == wanted
        np.testing.assert_allclose([s.score for s in spans], scores, atol=1e-5)


def logits_of(pipe: Any, text: str) -> Any:
    with torch.inference_mode():
        return pipe.model(**pipe.tokenizer(text, return_tensors="pt")).logits[0]


@pytest.mark.parametrize("name", MODELS)
def test_probabilities(
    name: str, engines: Callable[[str], Engine], pipelines: Callable[[str], Any]
) -> None:
    engine, pipe = engines(name), pipelines(name)
    probs = engine.classify_tokens(TEXTS)
    raw = engine.classify_tokens(TEXTS, aggregation="none", use_activation=False)
    assert isinstance(probs, Ragged)
    assert isinstance(raw, Ragged)
    for text, row, logits in zip(TEXTS, probs, raw, strict=True):
        wanted = logits_of(pipe, text)
        assert row.shape == tuple(wanted.shape)
        np.testing.assert_allclose(logits, wanted, atol=2e-5)
        np.testing.assert_allclose(row, wanted.softmax(-1), atol=1e-5)


def test_streams_and_async_give_the_same(tagger: Engine, small_windows: None) -> None:
    texts = TEXTS * 4  # several windows
    spans: Any = tagger.classify_tokens(texts, aggregation="simple")
    assert list(tagger.classify_tokens_iter(iter(texts), aggregation="simple")) == spans
    assert asyncio.run(tagger.aclassify_tokens(texts, aggregation="simple")) == spans
    assert all(isinstance(span, Span) for row in spans for span in row)
    probs = tagger.classify_tokens(texts)
    later = asyncio.run(tagger.aclassify_tokens(texts))
    assert isinstance(probs, Ragged)
    assert isinstance(later, Ragged)
    streamed: Any = tagger.classify_tokens_iter(iter(texts))
    for row, one, two in zip(probs, streamed, later, strict=True):
        np.testing.assert_allclose(one, row, atol=1e-6)
        np.testing.assert_allclose(two, row, atol=1e-6)


def test_a_lone_text(tagger: Engine) -> None:
    (spans,) = tagger.classify_tokens(TEXTS[0], aggregation="max")
    assert spans == tagger.classify_tokens(TEXTS[:1], aggregation="max")[0]


def test_spans_point_into_a_truncated_text(tagger: Engine) -> None:
    text = " ".join(TEXTS) * 20
    (spans,) = tagger.classify_tokens(text, aggregation="simple", truncate=True)
    assert spans
    assert spans[-1].end < len(text) // 2
    with pytest.raises(TextTooLong, match="item 0 "):
        tagger.classify_tokens(text, aggregation="simple")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"aggregation": "last"},
            "aggregation is 'last'; allowed: none, simple, first, average, max",
        ),
        (
            {"aggregation": "max", "use_activation": False},
            "of which spans are not made: use aggregation='none'",
        ),
        ({"use_activation": 1}, "use_activation is 1; allowed: True, False, None"),
    ],
)
def test_options_refused(tagger: Engine, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        tagger.classify_tokens(TEXTS, **options)
    assert message in str(caught.value)


def test_pairs_have_no_spans(tagger: Engine) -> None:
    pairs: Any = [("Paris", "France")]
    with pytest.raises(InvalidText):
        tagger.classify_tokens(pairs, aggregation="simple")


def test_other_models_label_no_tokens(classifier: Engine) -> None:
    with pytest.raises(UnsupportedTask, match="classify_tokens"):
        classifier.classify_tokens(TEXTS)
