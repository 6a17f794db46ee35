"""Rounds alternate, and a slow side runs fewer items; on a clock that only answers move."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from poolc.compare import speed
from poolc.compare.sides import Asked
from poolc.runtime.outputs import Float32
from poolc.runtime.request import Item
from poolc.spec import Task

ASKED = Asked(Task.EMBED)
ITEMS = [str(i) for i in range(256)]


class Clock:
    """Seconds that pass where a side answers."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[tuple[str, int]] = []

    def perf_counter(self) -> float:
        return self.now

    def side(self, name: str, seconds_an_item: float) -> Any:
        clock = self

        class _Side:
            def answers(self, asked: Asked, items: Sequence[Item]) -> Iterator[Float32]:
                clock.calls.append((name, len(items)))
                clock.now += seconds_an_item * len(items)
                yield np.zeros((len(items), 1), np.float32)

        return _Side()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(speed, "time", made)
    return made


def test_rates_and_ratio(clock: Clock) -> None:
    sides = [clock.side("a", 0.002), clock.side("b", 0.001)]
    found = speed.measure(sides, ASKED, ITEMS, 10.0)
    assert found.num_items == 256
    assert found.per_s == pytest.approx((500, 1000))
    assert (found.ratio, *found.spread) == pytest.approx((2, 2, 2))
    rounds = [name for name, count in clock.calls if count == 256]
    assert rounds[:6] == ["a", "b", "b", "a", "a", "b"]
    assert len(rounds) == 2 * len(found.ratios)
    assert 10 <= clock.now < 12


def test_slow_side_runs_fewer_items(clock: Clock) -> None:
    sides = [clock.side("a", 0.001), clock.side("original", 0.1)]
    found = speed.measure(sides, ASKED, ITEMS, 10.0)
    assert 8 <= found.num_items < 20
    assert found.ratio == pytest.approx(0.01)
    assert clock.now < 16


def test_rounds_are_not_endless(clock: Clock) -> None:
    sides = [clock.side("a", 1e-6), clock.side("b", 1e-6)]
    assert len(speed.measure(sides, ASKED, ITEMS, 10.0).ratios) == 50
