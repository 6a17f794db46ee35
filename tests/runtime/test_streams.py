"""Streaming and async twins: the answers of the lists, read lazily, cancelled when dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from poolc.errors import InvalidText
from poolc.runtime.calls import Calls, base
from poolc.runtime.engine import Engine
from poolc.runtime.heads import Result
from poolc.runtime.request import Item, Params, Prepared, Row, TokenSequence
from poolc.runtime.work import Work
from poolc.spec import Task
from tests.runtime.texts import mixed

TEXTS = mixed(20)


@pytest.mark.usefixtures("small_windows")
def test_streams_equal_lists(
    embedder: Engine, classifier: Engine, cross_encoder: Engine, token_rewarder: Engine
) -> None:
    options: Any = {"dimensions": 8, "prompt_name": "query"}
    streamed = np.stack(list(embedder.embed_iter(iter(TEXTS), **options)))
    np.testing.assert_allclose(streamed, embedder.embed(TEXTS, **options), atol=1e-6)
    for row, expected in zip(embedder.encode_iter(TEXTS), embedder.encode(TEXTS), strict=True):
        np.testing.assert_allclose(row, expected, atol=1e-6)
    found = classifier.classify(TEXTS)
    labels, probs = zip(*classifier.classify_iter(iter(TEXTS)), strict=True)
    assert list(labels) == found.labels
    np.testing.assert_allclose(probs, found.probs, atol=1e-6)
    pairs = [("a river", text) for text in TEXTS]
    for engine in (embedder, cross_encoder):
        scores = list(engine.score_iter(iter(pairs)))
        assert isinstance(scores[0], float)
        np.testing.assert_allclose(scores, engine.score("a river", TEXTS), atol=1e-6)
    rewards = np.asarray(list(cross_encoder.reward_iter(iter(TEXTS))))
    np.testing.assert_allclose(rewards, np.asarray(cross_encoder.reward(TEXTS)), atol=1e-6)
    assert [np.shape(row)[1] for row in token_rewarder.reward_iter(TEXTS)] == [32] * 20


@pytest.mark.parametrize("kind", ["query", "document"])
def test_streams_and_async_twins_with_prompts(embedder: Engine, kind: str) -> None:
    expected = getattr(embedder, f"embed_{kind}")(TEXTS)
    streamed = list(getattr(embedder, f"embed_{kind}_iter")(iter(TEXTS)))
    np.testing.assert_array_equal(np.stack(streamed), expected)
    np.testing.assert_array_equal(asyncio.run(getattr(embedder, f"aembed_{kind}")(TEXTS)), expected)
    assert not np.array_equal(expected, embedder.embed(TEXTS))


@pytest.mark.parametrize("texts", [None, 5, b"bytes", {"text": 1}, np.array("text")])
def test_stream_of_no_iterable(embedder: Engine, texts: Any) -> None:
    with pytest.raises(InvalidText, match="allowed: a string or a list of strings"):
        next(embedder.embed_iter(texts))


TEXT = st.text(max_size=9)
IDS = st.lists(st.integers(0, 9), max_size=9)


@pytest.mark.usefixtures("small_windows")
@given(st.lists(TEXT | st.tuples(TEXT, TEXT) | IDS, max_size=40), st.integers(1, 60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_lists_are_cut_as_what_cannot_be_looked_ahead_in(items: list[Any], chars: int) -> None:
    found = list(base.windows(items, chars))
    assert found == list(base.windows(iter(items), chars))
    assert [item for window in found for item in window] == items


def test_stream_of_nothing(embedder: Engine) -> None:
    assert list(embedder.embed_iter([])) == []


def test_stream_of_a_lone_text(embedder: Engine) -> None:
    assert len(list(embedder.embed_iter("one text"))) == 1


class Counted:
    """An endless iterable of texts that knows how far it was read."""

    def __init__(self) -> None:
        self.read = 0

    def __iter__(self) -> Iterator[str]:
        while True:
            self.read += 1
            yield f"text {self.read}"


@pytest.mark.usefixtures("small_windows")
def test_stream_reads_ahead_three_windows(embedder: Engine) -> None:
    texts = Counted()
    stream = embedder.embed_iter(texts)
    assert texts.read == 0
    for taken in range(1, 50):
        next(stream)
        assert taken <= texts.read <= taken + 3 * base.WINDOW


@pytest.mark.usefixtures("small_windows")
def test_stream_error_names_the_item(embedder: Engine) -> None:
    stream = embedder.embed_iter([*TEXTS, *TEXTS, ""])
    assert next(stream).shape == (32,)
    with pytest.raises(InvalidText, match="item 40 is empty") as caught:
        list(stream)
    assert caught.value.index == 40


class RecordedWork(Work):
    """Work that is never done by itself and knows whether it was cancelled."""

    def __init__(self, count: int) -> None:
        super().__init__(count, [])
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Recorder(Calls):
    """The methods over a seam that runs nothing and records what is submitted."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.submitted: list[RecordedWork] = []
        self.fail_at = fail_at

    def require(self, task: Task) -> None:
        pass

    def check(self, task: Task, items: Sequence[Item], params: Params) -> None:
        pass

    def prepare(
        self, task: Task, items: Sequence[Item], params: Params, *, first_index: int = 0
    ) -> Prepared:
        if self.fail_at is not None and first_index >= self.fail_at:
            raise InvalidText("refused", index=first_index)
        sequence = TokenSequence(np.array([1]), None)
        return Prepared(task, params, [sequence] * len(items), "main")

    def submit(self, prepared: Prepared) -> Work:
        self.submitted.append(RecordedWork(len(prepared.sequences)))
        return self.submitted[-1]

    def finish(self, prepared: Prepared, rows: Sequence[Row]) -> Result:
        return np.zeros((len(rows), 2), np.float32)


@pytest.mark.usefixtures("small_windows")
def test_stream_closed_early_cancels() -> None:
    recorder = Recorder()
    stream: Any = recorder.embed_iter(Counted())
    next(stream)
    stream.close()
    assert len(recorder.submitted) == 3
    assert all(work.cancelled for work in recorder.submitted)


@pytest.mark.usefixtures("small_windows")
def test_stream_error_cancels() -> None:
    recorder = Recorder(fail_at=16)
    with pytest.raises(InvalidText, match="refused"):
        recorder.embed(TEXTS)
    assert [work.cancelled for work in recorder.submitted] == [True, True]


# Async twins.


def test_async_twins(embedder: Engine, classifier: Engine, cross_encoder: Engine) -> None:
    async def ask() -> tuple[Any, ...]:
        return await asyncio.gather(
            embedder.aembed(TEXTS, dimensions=16),
            embedder.aencode(TEXTS),
            classifier.aclassify(TEXTS, use_activation=False),
            cross_encoder.ascore("a", TEXTS),
            cross_encoder.areward(TEXTS),
        )

    embedded, encoded, classified, scored, rewarded = asyncio.run(ask())
    np.testing.assert_array_equal(embedded, embedder.embed(TEXTS, dimensions=16))
    np.testing.assert_array_equal(encoded.values, embedder.encode(TEXTS).values)
    logits = classifier.classify(TEXTS, use_activation=False)
    np.testing.assert_array_equal(classified.probs, logits.probs)
    np.testing.assert_array_equal(scored, cross_encoder.score("a", TEXTS))
    np.testing.assert_array_equal(rewarded, cross_encoder.reward(TEXTS))


def test_async_raises(embedder: Engine) -> None:
    with pytest.raises(InvalidText, match="item 0 is empty"):
        asyncio.run(embedder.aembed([""]))
