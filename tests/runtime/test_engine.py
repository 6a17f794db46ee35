"""The engine's seam, and that an answer depends on nothing but its own text."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import poolc
from poolc.errors import ArtifactIncompatible, BackendError, InvalidText
from poolc.runtime import engine as engine_module
from poolc.runtime.backends.base import Feeds, Fetches
from poolc.runtime.cores import allowed_cores, computing, shared_executor
from poolc.runtime.engine import Engine
from poolc.runtime.request import Item, Params, Prepared, Row
from poolc.spec import (
    ATTENTION_MASK,
    INPUT_IDS,
    MAIN_SET,
    TOKEN_TYPE_IDS,
    MatryoshkaSpec,
    Target,
    Task,
)
from tests.runtime.conftest import Variant
from tests.runtime.texts import PAIRS, VARIED, mixed

TEXTS = [*VARIED, *mixed(40)]
SAME = 1e-6  # of values of at most 1
# Logits and hidden states are sums of products larger than they are: twelve random models' logits
# differed by up to 1.2e-6 in a thousand micro-batches each. A wrong mask is off by over 1e-3.
SAME_SUMS = 5e-6
NEIGHBOURS = st.lists(st.sampled_from(TEXTS), max_size=12)


def run_by_hand(engine: Engine, prepared: Prepared) -> list[Row]:
    """Do what ``submit`` and ``wait`` do, on this thread."""
    rows: list[Row] = [{}] * len(prepared.sequences)
    for batch in engine.plan(prepared.lengths):
        chosen = [prepared.sequences[i] for i in batch.indices]
        for index, row in zip(
            batch.indices, engine.execute(chosen, prepared.output_set), strict=True
        ):
            rows[index] = row
    return rows


def test_seam_composed_by_hand(embedder: Engine) -> None:
    prepared = embedder.prepare(Task.EMBED, TEXTS, Params())
    found = embedder.finish(prepared, run_by_hand(embedder, prepared))
    np.testing.assert_array_equal(found, embedder.embed(TEXTS))


def test_prepared_counts_tokens(embedder: Engine) -> None:
    prepared = embedder.prepare(Task.EMBED, TEXTS, Params())
    assert prepared.lengths == [len(embedder.tokenize(text)) for text in TEXTS]
    assert prepared.num_tokens == sum(prepared.lengths)
    assert (prepared.task, prepared.output_set) == (Task.EMBED, MAIN_SET)


def test_prepare_refuses_nothing_to_do(embedder: Engine) -> None:
    for task in (Task.EMBED, Task.SCORE, Task.ENCODE):
        with pytest.raises(InvalidText, match="the list of texts is empty"):
            embedder.prepare(task, [], Params())


def test_prepare_counts_errors_from_the_first_index(embedder: Engine) -> None:
    with pytest.raises(InvalidText, match="item 101 is empty") as caught:
        embedder.prepare(Task.EMBED, ["a", ""], Params(), first_index=100)
    assert caught.value.index == 101
    with pytest.raises(InvalidText, match="item 101 is empty"):
        embedder.prepare(Task.SCORE, [("a", "a"), ("a", "")], Params(), first_index=100)


def test_requests_of_different_params_share_a_micro_batch(embedder: Engine) -> None:
    asked = [
        Params(),
        Params(dimensions=8),
        Params(normalize=False),
        Params(prompt_name="query"),
        Params(output_dtype="int8"),
        Params(max_length=5, truncate=True),
        Params(add_special_tokens=False),
    ]
    text = "a river runs through the old town"
    prepared = [embedder.prepare(Task.EMBED, [text], params) for params in asked]
    rows = embedder.execute([one.sequences[0] for one in prepared], MAIN_SET)
    for one, row in zip(prepared, rows, strict=True):
        found = np.asarray(embedder.finish(one, [row]))
        alone = np.asarray(embedder.finish(one, run_by_hand(embedder, one)))
        assert found.dtype == alone.dtype
        np.testing.assert_allclose(found, alone, atol=SAME)


def test_tasks_share_a_micro_batch(embedder: Engine) -> None:
    embed = embedder.prepare(Task.EMBED, TEXTS[:3], Params())
    score = embedder.prepare(Task.SCORE, [("a fox", "a dog")], Params())
    rows = embedder.execute([*embed.sequences, *score.sequences], MAIN_SET)
    np.testing.assert_allclose(
        np.asarray(embedder.finish(embed, rows[:3])), embedder.embed(TEXTS[:3]), atol=SAME
    )
    np.testing.assert_allclose(
        np.asarray(embedder.finish(score, rows[3:])), embedder.score("a fox", "a dog"), atol=SAME
    )


class EchoBackend:
    """Returns what it is fed."""

    name = "echo"
    streams = spread = 1
    pool_cpu_s = 0.0
    executor = shared_executor()

    def run(self, output_set: str, feeds: Feeds, *, alone: bool = False) -> Fetches:
        return feeds

    def close(self) -> None:
        pass


def test_a_restart_closes_what_was_open_and_loses_nothing(
    embedder: Engine, variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A micro-batch that reaches the old sessions after they were closed runs on the new ones."""
    closed: list[bool] = []

    class Old(EchoBackend):
        def run(self, output_set: str, feeds: Feeds, *, alone: bool = False) -> Fetches:
            engine.restart()
            raise BackendError("the model was closed: load it again")

        def close(self) -> None:
            closed.append(True)

    backends = [Old(), EchoBackend()]
    monkeypatch.setattr(engine_module, "open_backend", lambda *_: backends.pop(0))
    engine = variant(embedder, inputs=(INPUT_IDS, ATTENTION_MASK))
    prepared = engine.prepare(Task.ENCODE, [[5, 6]], Params())
    (row,) = engine.execute(prepared.sequences, prepared.output_set)
    assert row[INPUT_IDS].tolist() == [5, 6]
    assert closed == [True]


def test_feeds_are_padded_and_have_segments(
    embedder: Engine, variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "open_backend", lambda *_: EchoBackend())
    inputs = (INPUT_IDS, ATTENTION_MASK, TOKEN_TYPE_IDS)
    engine = variant(embedder, inputs=inputs, pad_token_id=9)
    items: list[Item] = [("the fox", "the dog"), [5, 6]]
    prepared = engine.prepare(Task.ENCODE, items, Params())
    pair, ids = engine.execute(prepared.sequences, prepared.output_set)
    assert pair[ATTENTION_MASK].tolist() == [1] * 7
    assert pair[TOKEN_TYPE_IDS].tolist() == [0] * 4 + [1] * 3
    assert ids[INPUT_IDS].tolist() == [5, 6] + [9] * 5
    assert ids[ATTENTION_MASK].tolist() == [1] * 2 + [0] * 5
    assert ids[TOKEN_TYPE_IDS].tolist() == [0] * 7


# Invariance.


@given(text=st.sampled_from(TEXTS), before=NEIGHBOURS, after=NEIGHBOURS)
@settings(deadline=None)
def test_embed_does_not_depend_on_neighbours(
    embedder: Engine, text: str, before: list[str], after: list[str]
) -> None:
    among = embedder.embed([*before, text, *after])[len(before)]
    assert np.abs(among - embedder.embed(text)[0]).max() <= SAME


@given(text=st.sampled_from(TEXTS), before=NEIGHBOURS, after=NEIGHBOURS)
@settings(deadline=None)
@pytest.mark.parametrize("task", [Task.EMBED, Task.ENCODE])
def test_rows_do_not_depend_on_padding(
    embedder: Engine, task: Task, text: str, before: list[str], after: list[str]
) -> None:
    """One micro-batch of everything, however much padding the planner would have avoided."""
    prepared = embedder.prepare(task, [*before, text, *after], Params())
    among = embedder.execute(prepared.sequences, prepared.output_set)[len(before)]
    alone = embedder.execute([prepared.sequences[len(before)]], prepared.output_set)[0]
    assert set(among) == set(alone)
    for name, value in alone.items():
        assert among[name].shape == value.shape
        assert np.abs(among[name] - value).max() <= SAME_SUMS * max(1.0, np.abs(value).max())


@given(item=st.sampled_from([*TEXTS, *PAIRS]), others=NEIGHBOURS)
@settings(deadline=None)
@pytest.mark.parametrize("name", ["classifier", "cross_encoder"])
def test_logits_do_not_depend_on_neighbours(
    request: pytest.FixtureRequest, name: str, item: Item, others: list[str]
) -> None:
    engine: Engine = request.getfixturevalue(name)
    among = engine.classify([*others, item], use_activation=False).probs[-1]
    alone = engine.classify([item], use_activation=False).probs[0]
    assert np.abs(among - alone).max() <= SAME_SUMS * max(1.0, np.abs(alone).max())


# The engine itself.


def test_engine_says_what_it_is(embedder: Engine, tiny_embedder: Path) -> None:
    assert embedder.artifact.path == tiny_embedder
    assert embedder.max_length == embedder.spec.max_length == 64
    assert embedder.streams == allowed_cores()


def test_submit_cancel(embedder: Engine) -> None:
    work = embedder.submit(embedder.prepare(Task.EMBED, TEXTS, Params()))
    work.cancel()
    assert embedder.embed("still works").shape == (1, 32)


def test_a_failing_micro_batch_fails_the_request(
    embedder: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise BackendError("broken")

    with monkeypatch.context() as patch:
        patch.setattr(embedder, "execute", fail)
        with pytest.raises(BackendError, match="broken"):
            embedder.embed(TEXTS)
    assert embedder.embed(TEXTS).shape == (len(TEXTS), 32)


def test_lone_micro_batches_run_where_they_are_awaited(
    embedder: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless another one computes: then a stream runs them, so that no more run than cores are."""
    threads: list[str] = []
    execute = embedder.execute

    def recorded(*args: Any, **options: Any) -> Any:
        threads.append(threading.current_thread().name)
        return execute(*args, **options)

    monkeypatch.setattr(embedder, "execute", recorded)
    here = threading.current_thread().name
    embedder.embed("a text")
    assert threads == [here]
    with computing():
        embedder.embed("a text")
    embedder.embed(["several texts that are too long for one micro-batch"] * 40)
    assert len(threads) > 3
    assert all(name.startswith("poolc-stream") for name in threads[1:])


def test_close(tiny_embedder: Path) -> None:
    engine = poolc.load(tiny_embedder)
    engine.embed("a text")
    engine.close()
    engine.close()
    with pytest.raises(BackendError, match="was closed"):
        engine.embed("a text")
    with pytest.raises(BackendError, match="was closed"):
        engine.encode("a text")


def test_artifact_of_another_target(embedder: Engine) -> None:
    manifest = replace(embedder.artifact.manifest, target=Target.TENSORRT)
    with pytest.raises(ArtifactIncompatible, match="is for tensorrt and does not say what"):
        Engine(replace(embedder.artifact, manifest=manifest))


def test_matryoshka_given_at_load(embedder: Engine) -> None:
    engine = Engine(embedder.artifact, matryoshka=MatryoshkaSpec(True, (4,)))
    assert engine.embed("a text", dimensions=4).shape == (1, 4)
    assert embedder.spec.matryoshka.dimensions == (8, 16)


def test_model_cpu_is_part_of_the_process(embedder: Engine) -> None:
    model_s, process_s = embedder.model_cpu_s, time.process_time()
    for _ in range(30):
        embedder.embed("a river runs through the old town " * 5)
    model_s, process_s = embedder.model_cpu_s - model_s, time.process_time() - process_s
    assert 0 < model_s <= process_s + 0.03  # the library's threads are counted by ticks of 0.01 s
