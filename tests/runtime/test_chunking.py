"""Long texts: cut at either end and reported, or chunked and averaged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poolc.errors import InvalidOption, InvalidText, TextTooLong
from poolc.runtime import pieces
from poolc.runtime.calls import base
from poolc.runtime.engine import Engine
from poolc.runtime.outputs import l2_normalize
from poolc.runtime.request import Params
from poolc.runtime.tokenize import TextTokenizer
from poolc.spec import TOKEN_TYPE_IDS, Task
from tests.models import MAX_LENGTH
from tests.runtime.conftest import Variant
from tests.runtime.windows import by_hand

LONG = " ".join(["bread needs flour water salt and yeast"] * 40)
LONGER = " ".join(["the quick brown fox jumps over Zürich; 東京"] * 61)
ITEMS = ["a river", LONG, "the committee approved the budget", LONGER]


@pytest.mark.parametrize("window", [None, 16])
@pytest.mark.parametrize("prompt", ["", "query: "])
def test_chunked_vector_is_the_weighted_mean_of_its_windows(
    embedder: Engine, sentence_transformer: Any, window: int | None, prompt: str
) -> None:
    found = embedder.embed(ITEMS, chunk=True, max_length=window, prompt=prompt, normalize=False)
    for text, vector in zip(ITEMS, found, strict=True):
        mean, pooled = by_hand(sentence_transformer, text, window or MAX_LENGTH, prompt)
        np.testing.assert_allclose(vector, mean, atol=1e-5)
        np.testing.assert_allclose(vector, pooled, atol=1e-5)
    unit = embedder.embed(ITEMS, chunk=True, max_length=window, prompt=prompt)
    np.testing.assert_allclose(unit, l2_normalize(found), atol=1e-6)


def test_dimensions_are_cut_and_normalised_after_averaging(
    embedder: Engine, sentence_transformer: Any
) -> None:
    expected = by_hand(sentence_transformer, LONG, MAX_LENGTH)[0][:8]
    found = embedder.embed(LONG, chunk=True, dimensions=8)[0]
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected), atol=1e-5)


def test_short_texts_are_not_changed_by_chunking(embedder: Engine) -> None:
    texts = ["a river", "the cat", "東京", "  "]
    prepared = embedder.prepare(Task.EMBED, texts, Params(chunk=True))
    whole = embedder.prepare(Task.EMBED, texts, Params())
    assert prepared.windows is None
    for one, other in zip(prepared.sequences, whole.sequences, strict=True):
        assert one.ids.tolist() == other.ids.tolist()
    made, wanted = (embedder.feeds(found.sequences, "") for found in (prepared, whole))
    assert made.keys() == wanted.keys() >= {TOKEN_TYPE_IDS}
    for name, array in made.items():
        np.testing.assert_array_equal(array, wanted[name])


@pytest.mark.parametrize("window", [3, 7, 64])
def test_windows_hold_every_token_once(embedder: Engine, window: int) -> None:
    prepared = embedder.prepare(Task.EMBED, ITEMS, Params(chunk=True, max_length=window))
    for text, item in zip(ITEMS, prepared.items, strict=True):
        ids = embedder._tokenizer.tokens([text])[0].ids.tolist()
        assert [i for one in item for i in one.ids[1:-1]] == ids
        assert {(int(one.ids[0]), int(one.ids[-1])) for one in item} == {(2, 3)}
        assert max(map(len, item)) <= window
    assert not prepared.truncated.any()


def test_token_ids_are_framed_as_their_text(embedder: Engine) -> None:
    ids = [2, *embedder._tokenizer.tokens([LONG])[0].ids.tolist(), 3]
    given: list[Any] = [ids, np.array(ids)]
    found = embedder.embed(given, chunk=True)
    np.testing.assert_allclose(found, embedder.embed([LONG] * 2, chunk=True), atol=1e-6)
    bare = embedder.prepare(Task.EMBED, [ids[1:-1]], Params(chunk=True))
    assert np.concatenate([one.ids for one in bare.sequences]).tolist() == ids[1:-1]


def test_scores_of_chunked_texts(embedder: Engine) -> None:
    found = embedder.score("a river", [LONG, "bread", LONGER], chunk=True)
    left, right = embedder.embed("a river"), embedder.embed([LONG, "bread", LONGER], chunk=True)
    np.testing.assert_allclose(found, right @ left[0], atol=1e-6)


def test_query_and_document_can_be_chunked(embedder: Engine) -> None:
    for kind, prompt in (("query", "query: "), ("document", "passage: ")):
        found = getattr(embedder, f"embed_{kind}")([LONG], chunk=True)
        np.testing.assert_array_equal(found, embedder.embed([LONG], chunk=True, prompt=prompt))


def test_model_that_chunks(embedder: Engine, variant: Variant) -> None:
    engine = variant(embedder, chunk=True, max_embed_length=300)
    np.testing.assert_array_equal(engine.embed(LONG), embedder.embed(LONG, chunk=True))
    np.testing.assert_array_equal(
        engine.embed(LONG, truncate=True), embedder.embed(LONG, truncate=True)
    )
    with pytest.raises(TextTooLong, match="the limit is 64"):
        engine.embed(LONG, chunk=False)
    with pytest.raises(TextTooLong, match="the limit is 64"):
        engine.encode(LONG)
    with pytest.raises(TextTooLong, match=r"item 1 has [0-9]+ tokens; the limit is 300") as caught:
        engine.embed(["a", LONGER])
    assert caught.value.index == 1


def test_limit_of_chunking_is_checked_before_any_work(
    embedder: Engine, variant: Variant, small_windows: None
) -> None:
    engine = variant(embedder, chunk=True, max_embed_length=300)
    with pytest.raises(TextTooLong, match="item 20 has") as caught:
        engine.check(Task.EMBED, [*["a"] * 20, LONGER], Params())
    assert caught.value.index == 20
    engine.check(Task.EMBED, ["a", LONG], Params())
    embedder.check(Task.EMBED, [LONGER], Params(chunk=True))


def test_text_of_many_pieces(embedder: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    params = Params(chunk=True, prompt="query: ")
    whole = embedder.prepare(Task.EMBED, [LONG * 30], params)
    monkeypatch.setattr(pieces, "PIECE_CHARS", 3000)
    monkeypatch.setattr("poolc.runtime.chunking.PIECE_CHARS", 3000)
    read: list[int] = []
    tokens = TextTokenizer.tokens

    def counted(self: TextTokenizer, texts: Any) -> Any:
        read.extend(map(len, texts))
        return tokens(self, texts)

    monkeypatch.setattr(TextTokenizer, "tokens", counted)
    found = embedder.prepare(Task.EMBED, [LONG * 30], params)
    assert len(read) > 10
    assert max(read) <= 3000 + pieces._OVERLAPS[0]
    for one, other in zip(found.sequences, whole.sequences, strict=True):
        assert one.ids.tolist() == other.ids.tolist()


def test_long_texts_make_shorter_windows(embedder: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedder, "window_chars", 2000)
    texts = [LONG, "a", LONGER, "b", "c"]
    assert [len(window) for window in base.windows(texts, 2000)] == [3, 2]
    assert [len(window) for window in base.windows([[5] * 1999, "a", ("b", "c"), 5], 2000)] == [
        2,
        2,
    ]
    found = np.stack(list(embedder.embed_iter(texts, chunk=True)))
    np.testing.assert_allclose(found, embedder.embed(texts, chunk=True), atol=1e-6)


# Refused.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunk": True, "truncate": True}, "chunk and truncate contradict each other"),
        ({"chunk": "yes"}, "chunk is 'yes'; allowed: True, False, None"),
        ({"truncation_side": "middle"}, "truncation_side is 'middle'; allowed: left, right"),
        ({"truncation_side": "left"}, "truncation_side is 'left', but nothing is cut off"),
        ({"chunk": True, "max_length": 65}, "max_length is 65; this model takes 1 to 64"),
        (
            {"chunk": True, "max_length": 5, "prompt": "bread needs salt "},
            r"windows have 5 tokens, of which special tokens take 2 and the prompt 3",
        ),
    ],
)
def test_refused_policies(embedder: Engine, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        embedder.embed(LONG, **options)


def test_chunk_where_nothing_is_averaged(
    embedder: Engine, classifier: Engine, cross_encoder: Engine
) -> None:
    message = "chunk averages one vector a text, and {} of this model has none"
    for engine, task, item in (
        (embedder, Task.ENCODE, LONG),
        (classifier, Task.CLASSIFY, LONG),
        (cross_encoder, Task.SCORE, ("a", LONG)),
    ):
        with pytest.raises(InvalidOption, match=message.format(task)) as caught:
            engine.prepare(task, [item], Params(chunk=True))
        assert caught.value.param == "chunk"


# Truncation.


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("own", ["left", "right"])
def test_truncation_side_of_a_request(
    embedder: Engine,
    variant: Variant,
    tiny_embedder_source: Path,
    auto_tokenizer: Callable[[Path], Any],
    side: str,
    own: str,
) -> None:
    engine = variant(embedder, truncation_side=own)
    params = Params(truncate=True, truncation_side=side, max_length=20)
    auto = auto_tokenizer(tiny_embedder_source)
    before, auto.truncation_side = auto.truncation_side, side
    expected = [auto(text, truncation=True, max_length=20)["input_ids"] for text in ITEMS]
    auto.truncation_side = before
    found = engine.prepare(Task.EMBED, ITEMS, params)
    assert [sequence.ids.tolist() for sequence in found.sequences] == expected
    assert found.truncated.tolist() == [False, True, False, True]


def test_what_was_truncated_is_reported(
    embedder: Engine, classifier: Engine, cross_encoder: Engine
) -> None:
    for call in (embedder.embed, embedder.encode, classifier.classify, cross_encoder.reward):
        cut: list[bool] = []
        call(ITEMS, truncate=True, truncated=cut)
        assert cut == [False, True, False, True]
    for engine in (embedder, cross_encoder):
        cut = []
        engine.score("a river", ITEMS, truncate=True, truncated=cut)
        assert cut == [False, True, False, True]


@pytest.mark.usefixtures("small_windows")
def test_streams_report_truncation_with_their_results(embedder: Engine) -> None:
    cut: list[bool] = []
    vectors = embedder.embed_iter([*["a"] * 7, LONG] * 3, truncate=True, truncated=cut)
    for i, _ in enumerate(vectors):
        assert cut[i] == (i % 8 == 7)
    assert len(cut) == 24


# Prompts that pooling does not count.


def test_prompt_that_fills_a_text_is_refused(embedder: Engine, variant: Variant) -> None:
    engine = variant(embedder, include_prompt=False)
    params = Params(prompt="bread " * 9, add_special_tokens=False, truncate=True, max_length=4)
    message = "item 0: the prompt takes all of its 4 tokens, and this model's pooling does not"
    with pytest.raises(InvalidText, match=message):
        engine.prepare(Task.EMBED, ["a dog"], params)


def test_prompt_is_counted_by_its_own_length(embedder: Engine, variant: Variant) -> None:
    engine = variant(embedder, include_prompt=False)
    prompt = engine.tokenize("query: ")[1:-1]
    for params in (Params(prompt="query: "), Params(prompt="query: ", chunk=True)):
        for sequence in engine.prepare(Task.EMBED, ["a dog", [5, 6]], params).sequences[:1]:
            assert sequence.counted is not None
            assert sequence.counted.tolist() == [False] * (1 + len(prompt)) + [True] * 3
    assert engine.prepare(Task.EMBED, ["a dog"], Params(prompt="")).sequences[0].counted is None


def test_prepared_items_without_windows(embedder: Engine) -> None:
    prepared = embedder.prepare(Task.EMBED, ["a", "b"], Params())
    assert [len(item) for item in prepared.items] == [1, 1]
    assert len(replace(prepared, windows=np.array([0, 2])).items) == 1
