"""How fast two sides are beside each other: the same items in alternating rounds.

A machine that changes its speed meanwhile slows both; the ratio of neighbouring rounds stands.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from poolc.compare.sides import Asked, Side
from poolc.runtime.request import Item

_LEAST_ROUNDS = 5
_MOST_ROUNDS = 50
_FEWEST = 8


@dataclass(frozen=True, slots=True)
class Speed:
    """Items a second of both, by the median of the rounds; ``ratios``: second to first, a round."""

    num_items: int
    per_s: tuple[float, float]
    ratios: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """The median of the ratios."""
        return statistics.median(self.ratios)

    @property
    def spread(self) -> tuple[float, float]:
        """The lowest and the highest ratio of a round."""
        return min(self.ratios), max(self.ratios)


def measure(sides: Sequence[Side], asked: Asked, items: Sequence[Item], seconds: float) -> Speed:
    """Run items through both sides in turns, for about ``seconds`` seconds, or fifty rounds.

    Who begins changes with every round. Where five rounds of all items would take longer, as of an
    original, fewer of them are run, from everywhere among them.
    """
    items = _fitting(sides, asked, items, seconds / _LEAST_ROUNDS)
    took: tuple[list[float], list[float]] = ([], [])
    until_s = time.perf_counter() + seconds
    while len(took[0]) < _LEAST_ROUNDS or (
        time.perf_counter() < until_s and len(took[0]) < _MOST_ROUNDS
    ):
        order = (0, 1) if len(took[0]) % 2 == 0 else (1, 0)
        for which in order:
            start = time.perf_counter()
            _run(sides[which], asked, items)
            took[which].append(time.perf_counter() - start)
    rates = [len(items) / statistics.median(times) for times in took]
    ratios = tuple(a / b for a, b in zip(*took, strict=True))
    return Speed(len(items), (rates[0], rates[1]), ratios)


def _fitting(
    sides: Sequence[Side], asked: Asked, items: Sequence[Item], round_s: float
) -> Sequence[Item]:
    """Return as many items as both sides answer in ``round_s``; warms both up with a few."""
    few = _spread(items, _FEWEST)
    for side in sides:
        _run(side, asked, few)
    start = time.perf_counter()
    for side in sides:
        _run(side, asked, few)
    took_s = time.perf_counter() - start
    return _spread(items, max(_FEWEST, int(len(few) * round_s / max(took_s, 1e-9))))


def _spread(items: Sequence[Item], most: int) -> Sequence[Item]:
    return items[:: -(-len(items) // most)]


def _run(side: Side, asked: Asked, items: Sequence[Item]) -> None:
    for _ in side.answers(asked, items):
        pass
