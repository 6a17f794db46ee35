"""The public methods: shapes, order, and what is refused before any work."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from poolc.errors import InputError, InvalidText, TextTooLong, UnsupportedTask
from poolc.runtime.engine import Engine
from poolc.runtime.outputs import Ragged
from poolc.runtime.request import Params
from poolc.runtime.tokenize import TextTokenizer
from poolc.spec import Task
from tests.runtime.conftest import Variant
from tests.runtime.texts import PAIRS, mixed

TEXTS = mixed(20)


# Shapes.


def test_embed_shapes(embedder: Engine) -> None:
    assert embedder.embed(TEXTS).shape == (20, 32)
    assert embedder.embed("one text").shape == (1, 32)
    assert embedder.embed(["one text"]).shape == (1, 32)
    assert embedder.embed([[2, 7, 3]]).shape == (1, 32)


@pytest.mark.parametrize("form", [tuple, iter, np.array, lambda texts: (t for t in texts)])
def test_embed_takes_any_list(embedder: Engine, form: Any) -> None:
    np.testing.assert_array_equal(embedder.embed(form(TEXTS)), embedder.embed(TEXTS))


def test_embed_of_ids_is_embed_of_their_text(embedder: Engine) -> None:
    ids = [embedder.tokenize(text) for text in TEXTS]
    np.testing.assert_allclose(embedder.embed(ids), embedder.embed(TEXTS), atol=1e-6)


def test_classify_shapes(classifier: Engine) -> None:
    found = classifier.classify(TEXTS)
    assert (found.probs.shape, len(found.labels)) == ((20, 3), 20)
    np.testing.assert_allclose(found.probs.sum(axis=1), 1, atol=1e-6)
    assert classifier.classify("one text").probs.shape == (1, 3)
    assert classifier.classify(("a", "pair")).probs.shape == (1, 3)


def test_encode_shapes(embedder: Engine) -> None:
    found = embedder.encode(TEXTS)
    assert [len(row) for row in found] == [len(embedder.tokenize(text)) for text in TEXTS]
    assert found.values.shape == (found.offsets[-1], 32)
    assert len(embedder.encode("one text")) == 1


def test_reward_shapes(cross_encoder: Engine, token_rewarder: Engine) -> None:
    assert np.asarray(cross_encoder.reward(TEXTS)).shape == (20,)
    assert np.asarray(cross_encoder.reward("one text")).shape == (1,)
    rewards = token_rewarder.reward(TEXTS)
    assert isinstance(rewards, Ragged)
    np.testing.assert_array_equal(rewards.values, token_rewarder.encode(TEXTS).values)


@pytest.mark.parametrize("dtype", ["float16", "int8", "uint8", "binary", "ubinary"])
def test_embed_output_dtypes(embedder: Engine, dtype: Any) -> None:
    from poolc.runtime.outputs import convert_dtype

    found = embedder.embed(TEXTS, output_dtype=dtype)
    np.testing.assert_array_equal(found, convert_dtype(embedder.embed(TEXTS), dtype))


def test_embed_int8_is_of_the_unit_vector(embedder: Engine) -> None:
    found = embedder.embed(TEXTS, normalize=False, output_dtype="int8")
    np.testing.assert_array_equal(found, embedder.embed(TEXTS, output_dtype="int8"))


# score


@pytest.mark.parametrize("name", ["embedder", "cross_encoder"])
def test_score_forms(request: pytest.FixtureRequest, name: str) -> None:
    engine: Engine = request.getfixturevalue(name)
    query, documents = "a river runs", TEXTS[:6]
    many = engine.score(query, documents)
    assert many.dtype == np.float32
    assert many.shape == (6,)
    np.testing.assert_allclose(many, engine.score([query] * 6, documents), atol=1e-6)
    np.testing.assert_allclose(many, engine.score((query,) * 6, tuple(documents)), atol=1e-6)
    np.testing.assert_allclose(many[:1], engine.score(query, documents[0]), atol=1e-6)


def test_score_embeds_each_text_once(embedder: Engine) -> None:
    pairs = [("query", text) for text in [*TEXTS, TEXTS[0]]]
    prepared = embedder.prepare(Task.SCORE, pairs, Params())
    assert len(prepared.sequences) == 1 + len(TEXTS)


@pytest.mark.parametrize(
    ("left", "right", "message"),
    [
        (["a", "b"], ["a", "b", "c"], "score got 2 and 3 texts; allowed: 1 and 1, 1 and N"),
        (["a", "b"], "c", "score got 2 and 1 texts"),
        ([], ["a"], "at least one text on each side"),
        ("a", [], "at least one text on each side"),
        ("a", ["b", ""], "item 1 is empty"),
        ("a", ["b", 5], "item 1: a score compares a pair of strings"),
        ("a", ["b", [5, 6]], "item 1: a score compares a pair of strings"),
        ("a", [("b", "c")], "item 0: a score compares a pair of strings"),
        ("a", b"c", "got bytes"),
    ],
)
@pytest.mark.parametrize("name", ["embedder", "cross_encoder"])
def test_score_refuses(
    request: pytest.FixtureRequest, name: str, left: Any, right: Any, message: str
) -> None:
    with pytest.raises(InvalidText, match=message):
        request.getfixturevalue(name).score(left, right)


def test_score_names_the_pair_of_a_repeated_text(embedder: Engine) -> None:
    with pytest.raises(TextTooLong, match="item 1 has") as caught:
        embedder.score(["a", "a", "a"], ["b", "word " * 99, "word " * 99])
    assert caught.value.index == 1


# Refused.


@pytest.mark.parametrize("name", ["embed", "classify", "reward", "encode"])
def test_empty_list(embedder: Engine, classifier: Engine, cross_encoder: Engine, name: str) -> None:
    engine = {"classify": classifier, "reward": cross_encoder}.get(name, embedder)
    with pytest.raises(InvalidText, match="the list of texts is empty"):
        getattr(engine, name)([])


@pytest.mark.parametrize("texts", [5, None, b"bytes", {"text": 1}, np.array("text"), 1.5])
def test_not_a_list(embedder: Engine, texts: Any) -> None:
    with pytest.raises(InvalidText, match="allowed: a string or a list of strings"):
        embedder.embed(texts)


def test_embed_refuses_pairs(embedder: Engine) -> None:
    with pytest.raises(InvalidText, match="item 0: embed takes single texts, not pairs"):
        embedder.embed(PAIRS)


@pytest.mark.parametrize(
    ("name", "task", "supported"),
    [
        ("embedder", "classify", "embed, score, encode"),
        ("embedder", "reward", "embed, score, encode"),
        ("classifier", "embed", "classify, score, encode"),
        ("classifier", "reward", "classify, score, encode"),
        ("cross_encoder", "embed", "classify, score, encode, reward"),
    ],
)
def test_wrong_task(request: pytest.FixtureRequest, name: str, task: str, supported: str) -> None:
    engine = request.getfixturevalue(name)
    message = f"this model does not support {task}; it supports: {supported}"
    with pytest.raises(UnsupportedTask, match=message):
        getattr(engine, task)(["a"])
    with pytest.raises(UnsupportedTask, match=message):
        next(getattr(engine, f"{task}_iter")(["a"]))


@pytest.mark.parametrize(
    "bad", ["", None, 5, "\ud800", [], [-1], [10**6], [1.5], ("a", "pair"), {"text": "a"}]
)
def test_errors_come_before_any_work(
    embedder: Engine, monkeypatch: pytest.MonkeyPatch, bad: Any
) -> None:
    texts: list[Any] = mixed(3000, longest=4)
    texts[2500] = bad
    executed: list[int] = []
    monkeypatch.setattr(embedder, "execute", lambda *_: executed.append(1))
    with pytest.raises(InvalidText, match="item 2500") as caught:
        embedder.embed(texts)
    assert caught.value.index == 2500
    assert not executed


@pytest.mark.parametrize("bad", ["bread " * 99, "東" * 62, [5] * 65], ids=["words", "bytes", "ids"])
def test_too_long_comes_before_any_work(
    embedder: Engine, monkeypatch: pytest.MonkeyPatch, bad: Any
) -> None:
    texts: list[Any] = mixed(3000, longest=4)
    texts[2500] = bad
    executed: list[int] = []
    tokenised: list[int] = []
    encode = TextTokenizer.encode

    def encode_counted(self: TextTokenizer, items: Any, **how: Any) -> Any:
        tokenised.append(len(items))
        return encode(self, items, **how)

    monkeypatch.setattr(TextTokenizer, "encode", encode_counted)
    monkeypatch.setattr(embedder, "execute", lambda *_: executed.append(1))
    with pytest.raises(TextTooLong, match="item 2500") as caught:
        embedder.embed(texts, prompt="a ")
    assert caught.value.index == 2500
    assert not executed
    assert sum(tokenised) < 100, "short texts are not tokenised ahead"


def test_too_long_pair_comes_before_any_work(
    embedder: Engine, cross_encoder: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = mixed(3000, longest=4)
    texts[2500] = "bread " * 99
    for engine in (embedder, cross_encoder):
        monkeypatch.setattr(engine, "execute", lambda *_: pytest.fail("work was done"))
        with pytest.raises(TextTooLong) as caught:
            engine.score("a", texts)
        assert caught.value.index == 2500


def test_long_texts_are_cut_in_any_window(embedder: Engine) -> None:
    texts = mixed(1200, longest=4)
    texts[1100] = "bread " * 99
    found = embedder.embed(texts, truncate=True)
    np.testing.assert_allclose(found[1100], embedder.embed("bread " * 62)[0], atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"dimensions": 7},
        {"dimensions": [8]},
        {"normalize": "no"},
        {"truncate": "no"},
        {"prompt_name": ["query"]},
        {"output_dtype": "float64"},
        {"output_dtype": "binary", "dimensions": 12},
        {"prompt_name": "nonsense"},
        {"prompt": 5},
        {"prompt": "\ud800"},
    ],
)
def test_options_are_checked_before_any_work(
    embedder: Engine, variant: Variant, options: dict[str, Any]
) -> None:
    from poolc.spec import MatryoshkaSpec

    engine = variant(embedder, matryoshka=MatryoshkaSpec(True, (8, 12)))
    engine.close()  # any work would fail with another error
    with pytest.raises(InputError) as caught:
        engine.embed(TEXTS, **options)
    assert caught.value.param in options


# Many texts.


def test_three_thousand_texts_keep_their_order(embedder: Engine) -> None:
    texts = mixed(3000)
    vectors = embedder.embed(texts)
    assert vectors.shape == (3000, 32)
    for index in range(0, 3000, 97):
        np.testing.assert_allclose(vectors[index], embedder.embed(texts[index])[0], atol=1e-6)


@pytest.mark.usefixtures("small_windows")
def test_windows_are_joined(
    embedder: Engine, classifier: Engine, cross_encoder: Engine, token_rewarder: Engine
) -> None:
    one_by_one = [embedder.encode(text)[0] for text in TEXTS]
    for row, alone in zip(embedder.encode(TEXTS), one_by_one, strict=True):
        np.testing.assert_allclose(row, alone, atol=1e-6)
    labels = [classifier.classify(text).labels[0] for text in TEXTS]
    assert classifier.classify(TEXTS).labels == labels
    assert len(token_rewarder.reward(TEXTS)) == 20
    scores = [cross_encoder.score("a", text)[0] for text in TEXTS]
    np.testing.assert_allclose(cross_encoder.score("a", TEXTS), scores, atol=1e-6)


def test_threads_get_their_own_answers(embedder: Engine) -> None:
    own = [mixed(40, seed=seed) for seed in range(8)]
    expected = [embedder.embed(texts) for texts in own]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(embedder.embed, own * 3))
    for vectors, right in zip(found, expected * 3, strict=True):
        np.testing.assert_allclose(vectors, right, atol=1e-6)
