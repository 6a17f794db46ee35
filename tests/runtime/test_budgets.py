"""Budgets of a pair's texts, against texts that are cut by AutoTokenizer's offsets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poolc.errors import InvalidOption, TextTooLong
from poolc.runtime.engine import Engine
from poolc.runtime.excerpts import most_chars
from poolc.runtime.request import Params
from poolc.spec import Task

QUERY = "the quick brown fox, Ærøskøbing"
DOCUMENTS = ["a river runs through the old town", "東京の天気は晴れ and bread", "a", QUERY]
BUDGETS: dict[str, Any] = {"max_query_length": 3, "max_document_length": 5}


def cut(tokenizer: Any, text: str, budget: int) -> str:
    places = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ends = [end for _, end in places["offset_mapping"]]
    return text if len(ends) <= budget else text[: ends[budget - 1]]


def test_budgets_of_a_cross_encoder(
    cross_encoder: Engine, tiny_cross_encoder_source: Path, auto_tokenizer: Callable[[Path], Any]
) -> None:
    tokenizer = auto_tokenizer(tiny_cross_encoder_source)
    query = cut(tokenizer, QUERY, 3)
    documents = [cut(tokenizer, text, 5) for text in DOCUMENTS]
    assert query != QUERY
    assert [a != b for a, b in zip(documents, DOCUMENTS, strict=True)] == [True, True, False, True]
    got = cross_encoder.score(QUERY, DOCUMENTS, **BUDGETS)
    assert np.array_equal(got, cross_encoder.score(query, documents))
    assert not np.array_equal(got, cross_encoder.score(QUERY, DOCUMENTS))
    only = cross_encoder.score(QUERY, DOCUMENTS, max_query_length=3)
    assert np.array_equal(only, cross_encoder.score(query, DOCUMENTS))
    pairs = [(QUERY, text) for text in DOCUMENTS]
    assert list(cross_encoder.score_iter(pairs, **BUDGETS)) == pytest.approx(got.tolist())


def test_budgets_of_an_embedding_model(
    embedder: Engine, tiny_embedder_source: Path, auto_tokenizer: Callable[[Path], Any]
) -> None:
    tokenizer = auto_tokenizer(tiny_embedder_source)
    documents = [cut(tokenizer, text, 5) for text in DOCUMENTS]
    got = embedder.score(QUERY, DOCUMENTS, max_document_length=5)
    assert np.array_equal(got, embedder.score(QUERY, documents))


def test_budgets_mark_what_they_cut(cross_encoder: Engine, embedder: Engine) -> None:
    pairs: list[Any] = [("a", text) for text in DOCUMENTS]
    prepared = cross_encoder.prepare(Task.SCORE, pairs, Params(max_document_length=5))
    assert [s.truncated for s in prepared.sequences] == [True, True, False, True]
    # The text that a longer one is cut to is another sequence: it was not cut.
    same: list[Any] = [("a", "a river runs"), ("a", "a river")]
    prepared = embedder.prepare(Task.SCORE, same, Params(max_document_length=2))
    a, river, other = prepared.sequences
    assert (a.truncated, river.truncated, other.truncated) == (False, True, False)
    assert river.ids.tolist() == other.ids.tolist()


def test_budgets_leave_single_texts_alone(cross_encoder: Engine) -> None:
    items: list[Any] = [QUERY, (QUERY, "a")]
    prepared = cross_encoder.prepare(Task.CLASSIFY, items, Params(max_query_length=2))
    assert [s.truncated for s in prepared.sequences] == [False, True]


def test_budgets_of_a_very_long_text(embedder: Engine) -> None:
    long = "a river runs through the old town " * 20_000
    got = embedder.score("a", long, max_document_length=5)
    assert np.array_equal(got, embedder.score("a", "a river runs through the"))
    spaces = " " * (most_chars(6) + 1)
    with pytest.raises(TextTooLong, match=r"item 1 has \d+ characters; of a text whose") as caught:
        embedder.score(["a", "a"], ["a", spaces + "a"], max_document_length=6)
    assert caught.value.index == 1


@pytest.mark.parametrize(
    ("budgets", "message"),
    [
        ({"max_query_length": 0}, "max_query_length is 0; allowed: 1 to 63 tokens"),
        ({"max_document_length": 64}, "max_document_length is 64; allowed: 1 to 63 tokens"),
        ({"max_document_length": True}, "max_document_length is True; allowed"),
    ],
)
def test_budgets_refused(budgets: Any, message: str, cross_encoder: Engine) -> None:
    with pytest.raises(InvalidOption, match=message) as caught:
        cross_encoder.score("a", "a", **budgets)
    assert caught.value.param in budgets


def test_budgets_of_no_pairs(embedder: Engine) -> None:
    with pytest.raises(InvalidOption, match="shortens the texts of a pair, and this call has none"):
        embedder.prepare(Task.EMBED, ["a"], Params(max_query_length=3))
