"""Micro-batch plans, for any lengths."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poolc.runtime.batching import MicroBatch, plan

LENGTHS = st.lists(st.integers(1, 600), max_size=120)
BUDGET = st.integers(1, 1024)
STREAMS = st.integers(1, 16)


@given(LENGTHS, BUDGET, STREAMS)
def test_plan_holds_every_text_once(lengths: list[int], budget: int, streams: int) -> None:
    batches = plan(lengths, budget, streams)
    assert sorted(i for batch in batches for i in batch.indices) == list(range(len(lengths)))
    assert all(batch.indices for batch in batches)


@given(LENGTHS, BUDGET, STREAMS)
def test_plan_keeps_the_budget(lengths: list[int], budget: int, streams: int) -> None:
    for batch in plan(lengths, budget, streams):
        assert batch.num_tokens <= budget or len(batch.indices) == 1


@given(LENGTHS, BUDGET, STREAMS)
def test_plan_pads_to_the_longest(lengths: list[int], budget: int, streams: int) -> None:
    batches = plan(lengths, budget, streams)
    assert [batch.seq for batch in batches] == [
        max(lengths[i] for i in batch.indices) for batch in batches
    ]
    assert [batch.seq for batch in batches] == sorted((b.seq for b in batches), reverse=True)


@given(LENGTHS, BUDGET, STREAMS)
def test_plan_is_deterministic(lengths: list[int], budget: int, streams: int) -> None:
    assert plan(lengths, budget, streams) == plan(tuple(lengths), budget, streams)


@given(st.lists(st.integers(1, 64), max_size=200), st.integers(64, 1024), STREAMS)
def test_plan_gives_every_stream_work(lengths: list[int], budget: int, streams: int) -> None:
    enough = sum(lengths) >= 64 * streams
    assert not enough or len(plan(lengths, budget, streams)) >= streams


@given(st.lists(st.integers(1, 20), min_size=1, max_size=3))
def test_plan_does_not_split_a_little(lengths: list[int]) -> None:
    (batch,) = plan(lengths, 256, 8)
    assert len(batch.indices) == len(lengths)


def test_plan_of_nothing() -> None:
    assert plan([], 256, 2) == []


def test_plan_keeps_the_order_of_equal_lengths() -> None:
    assert plan([5, 9, 5, 9], 18) == [MicroBatch((1, 3), 9), MicroBatch((0, 2), 5)]


def test_plan_gives_a_text_beyond_the_budget_its_own() -> None:
    assert [batch.indices for batch in plan([10, 500, 10], 256)] == [(1,), (0, 2)]


@pytest.mark.parametrize(
    ("lengths", "budget", "streams"),
    [([1], 0, 1), ([1], -5, 1), ([1], 8, 0), ([0], 8, 1), ([3, -1], 8, 1)],
)
def test_plan_refuses(lengths: Sequence[int], budget: int, streams: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        plan(lengths, budget, streams)
