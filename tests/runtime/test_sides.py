"""Tokens of queries and documents: limits, markers, expansion, masks, and what errors say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poolc.errors import InvalidOption, InvalidText, TextTooLong
from poolc.runtime.engine import Engine
from poolc.runtime.request import Params, TokenSequence
from poolc.spec import Task
from tests.models import DOCUMENT_LENGTH, QUERY_LENGTH
from tests.runtime.conftest import Variant

TEXT = "bread, water and salt."
LONG = "river " * 60


def tokens(engine: Engine, text: str, **params: object) -> TokenSequence:
    """Tokenise one text."""
    prepared = engine.prepare(Task.EMBED_TOKENS, [text], Params(**params))  # type: ignore[arg-type]
    return prepared.sequences[0]


def test_query_is_marked_and_expanded(colbert: Engine) -> None:
    sequence = tokens(colbert, "bread", side="query")
    plain = colbert.tokenize("[Q] bread")
    assert sequence.ids.tolist() == plain + [4] * (QUERY_LENGTH - len(plain))
    assert sequence.counted is None  # the expansion counts
    assert sequence.attended is not None
    assert sequence.attended.tolist() == [i < len(plain) for i in range(QUERY_LENGTH)]


def test_query_of_full_length_is_not_expanded(colbert: Engine) -> None:
    sequence = tokens(colbert, LONG, side="query", truncate=True)
    assert (len(sequence), sequence.attended, sequence.truncated) == (QUERY_LENGTH, None, True)


def test_attended_expansion(colbert: Engine, variant: Variant) -> None:
    sides = colbert.spec.multi_vector
    assert sides is not None
    query = replace(sides.query, attend_expansion=True)
    engine = variant(colbert, multi_vector=replace(sides, query=query))
    sequence = tokens(engine, "bread", side="query")
    assert (len(sequence), sequence.attended) == (QUERY_LENGTH, None)


def test_document_skips_punctuation(colbert: Engine) -> None:
    sequence = tokens(colbert, TEXT, side="document")
    names = [colbert._tokenizer.token(int(i)) for i in sequence.ids]
    assert names[1] == "[D] "
    assert sequence.counted is not None
    dropped = [name for name, kept in zip(names, sequence.counted, strict=True) if not kept]
    assert dropped == [",", "."]
    assert len(colbert.embed_tokens(TEXT, side="document")[0]) == int(sequence.counted.sum())


def test_sides_of_neither(colbert: Engine) -> None:
    nothing, plain = tokens(colbert, TEXT), tokens(colbert, TEXT, side="plain")
    assert nothing.ids.tolist() == plain.ids.tolist() == colbert.tokenize(TEXT)
    assert nothing.counted is not None
    assert plain.counted is None


@pytest.mark.parametrize(
    ("side", "limit"),
    [("query", QUERY_LENGTH), ("document", DOCUMENT_LENGTH), ("plain", DOCUMENT_LENGTH - 1)],
)
def test_side_has_a_limit_of_its_own(colbert: Engine, side: str, limit: int) -> None:
    assert len(tokens(colbert, LONG, side=side, truncate=True)) == limit
    with pytest.raises(TextTooLong, match=f"item 1 .*; the limit is {limit}") as error:
        colbert.prepare(Task.EMBED_TOKENS, ["a", LONG], Params(side=side))
    assert error.value.index == 1
    with pytest.raises(TextTooLong, match=f"the limit is {limit}"):
        colbert.check(Task.EMBED_TOKENS, ["a", LONG], Params(side=side))


@pytest.mark.parametrize(("side", "marker"), [("query", "[Q] "), ("document", "[D] ")])
def test_left_side_keeps_markers(
    colbert: Engine,
    source: Callable[[str], Path],
    auto_tokenizer: Callable[[Path], Any],
    side: str,
    marker: str,
) -> None:
    words = " ".join(f"a{'b' * (i % 7)} river" for i in range(60))
    cut = tokens(colbert, words, side=side, truncate=True, truncation_side="left")
    limit = QUERY_LENGTH if side == "query" else DOCUMENT_LENGTH
    whole = auto_tokenizer(source("tiny_colbert"))(words, add_special_tokens=False).input_ids
    head, *_, tail = colbert.tokenize("a")
    marked = colbert.tokenize(marker)[1:-1]
    kept = whole[len(whole) - (limit - 2 - len(marked)) :]
    assert cut.ids.tolist() == [head, *marked, *kept, tail]
    assert cut.truncated


def test_left_side_of_token_vectors(bge_m3: Engine, colbert: Engine) -> None:
    long = "bread " * 40 + "river " * 60
    short = "river " * 60
    both = bge_m3.embed_hybrid([long], truncate=True, truncation_side="left")
    dense = bge_m3.embed([long], truncate=True, truncation_side="left")
    np.testing.assert_allclose(both.dense, dense, atol=1e-6)
    right = bge_m3.embed_hybrid([long], truncate=True)
    assert np.abs(both.dense - right.dense).max() > 1e-3
    options: Any = {"truncate": True, "truncation_side": "left"}
    scores = [colbert.score("river", text, **options) for text in (long, short)]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-5)
    assert abs(colbert.score("river", long, truncate=True) - scores[0]).item() > 1e-3


def test_request_lowers_a_limit(colbert: Engine) -> None:
    found = tokens(colbert, LONG, side="document", truncate=True, max_length=9)
    assert len(found) == 9
    lower = tokens(colbert, LONG, side="query", truncate=True, max_length=9)
    assert (len(lower), int(np.sum(lower.ids == 4))) == (QUERY_LENGTH, QUERY_LENGTH - 9)
    with pytest.raises(InvalidOption, match="max_length is 0"):
        tokens(colbert, TEXT, max_length=0)


def test_score_tokenises_a_text_as_both_sides(colbert: Engine) -> None:
    pairs = [("bread", "bread"), ("bread", "salt"), ("salt", "bread")]
    prepared = colbert.prepare(Task.SCORE, pairs, Params())
    assert prepared.pairs is not None
    assert prepared.pairs.tolist() == [[0, 2], [0, 3], [1, 2]]
    assert prepared.lengths[:2] == [QUERY_LENGTH] * 2
    assert [int(s.ids[1]) for s in prepared.sequences[2:]] == colbert.tokenize("[D] ")[1:2] * 2


@pytest.mark.parametrize(("pair", "limit"), [((LONG, "a"), QUERY_LENGTH), (("a", LONG), 40)])
def test_score_names_the_pair(colbert: Engine, pair: tuple[str, str], limit: int) -> None:
    with pytest.raises(TextTooLong, match=f"item 2 .*; the limit is {limit}"):
        colbert.prepare(Task.SCORE, [("a", "b"), ("b", "a"), pair], Params())


def test_sides_of_token_ids(colbert: Engine) -> None:
    ids = colbert.tokenize("bread")
    prepared = colbert.prepare(Task.EMBED_TOKENS, [ids], Params(side="query"))
    assert prepared.lengths == [QUERY_LENGTH]


def test_sides_refuse_pairs_and_other_names(colbert: Engine) -> None:
    with pytest.raises(InvalidText, match="item 0: embed_tokens takes single texts, not pairs"):
        colbert.embed_tokens([("a", "b")])
    with pytest.raises(InvalidOption, match="side is 'doc'; allowed: query, document, plain"):
        colbert.embed_tokens("a", side="doc")  # type: ignore[arg-type]


def test_hybrid_drops_the_first_token(bge_m3: Engine) -> None:
    sequence = tokens(bge_m3, "bread")
    assert sequence.counted is not None
    assert sequence.counted.tolist() == [i > 0 for i in range(len(sequence))]
    assert len(bge_m3.embed_tokens("bread")[0]) == len(sequence) - 1
    assert len(bge_m3.encode("bread")[0]) == len(sequence)
