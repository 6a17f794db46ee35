"""Micro-batch plans, for any lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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


@given(st.integers(1, 8), st.integers(1, 8))
def test_plan_does_not_split_a_little(length: int, count: int) -> None:
    (batch,) = plan([length] * count, 256, 8)
    assert batch.num_tokens == length * count


@given(st.lists(st.integers(1, 60), min_size=1, max_size=9), st.integers(60, 120))
def test_plan_costs_as_little_as_any(lengths: list[int], budget: int) -> None:
    falling = sorted(lengths, reverse=True)

    def cost(rows: Sequence[int]) -> int:
        starts = [sum(rows[:i]) for i in range(len(rows))]
        return sum(16 + n * falling[start] for n, start in zip(rows, starts, strict=True))

    def ways(left: int) -> Iterator[list[int]]:
        if not left:
            yield []
        for n in range(1, left + 1):
            if n == 1 or n * falling[len(falling) - left] <= budget:
                yield from ([n, *rest] for rest in ways(left - n))

    found = [len(batch.indices) for batch in plan(lengths, budget)]
    assert cost(found) == min(map(cost, ways(len(falling))))


def test_plan_of_gpus_fills_batches() -> None:
    assert [len(batch.indices) for batch in plan([2000, 10, 10, 10], 16384)] == [4]


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
