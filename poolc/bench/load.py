"""Requests to a server, by so many clients or at a rate, and what became of each.

Closed loop: every client sends its next request once the one before is answered. Open loop:
requests are sent when they are due (a Poisson process), whatever became of the others, and their
latency counts from when they were due: a server that stalls cannot hide it by not being asked.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import resource
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from poolc.bench.asks import SEED, Ask
from poolc.bench.connections import Connections, NoConnection, Target, run
from poolc.errors import InvalidOption

_PERCENTILES = (50, 90, 95, 99)
_NOBODY = "no connection"
_LATE = "timeout"


@dataclass(slots=True)
class Outcome:
    """What became of all requests of one run; times in seconds."""

    latencies_s: list[float] = field(default_factory=list)  # of those that were answered with 200
    statuses: Counter[str] = field(default_factory=Counter)
    texts: int = 0  # of those that were answered with 200
    seconds: float = 0.0
    late_s: list[float] = field(default_factory=list)  # sent after they were due, of an open loop
    generator_cpu_s: float = 0.0  # what sending and receiving took of a core

    def summary(self) -> dict[str, Any]:
        """Return the figures: rates a second, latencies in milliseconds, answers by status."""
        ordered = sorted(self.latencies_s)
        return {
            "requests": sum(self.statuses.values()),
            "requests_per_s": len(ordered) / self.seconds,
            "texts_per_s": self.texts / self.seconds,
            "seconds": self.seconds,
            "statuses": dict(sorted(self.statuses.items())),
            "latency_ms": {
                **{f"p{p}": 1000 * percentile(ordered, p) for p in _PERCENTILES},
                "max": 1000 * ordered[-1] if ordered else float("nan"),
                "mean": 1000 * sum(ordered) / len(ordered) if ordered else float("nan"),
            },
            "generator_cpu_share": self.generator_cpu_s / self.seconds,
            # A generator that does not keep up offers less than it was asked to.
            **({"sent_late_ms_p99": 1000 * percentile(sorted(self.late_s), 99)}
               if self.late_s else {}),
        }  # fmt: skip


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the smallest value that ``percent`` % are not above (nearest rank); NaN of none."""
    if not ordered:
        return float("nan")
    rank = max(1, -(-len(ordered) * percent // 100))
    return ordered[int(rank) - 1]


def closed(target: Target, asks: Sequence[Ask], clients: int, seconds: float) -> Outcome:
    """Let ``clients`` ask one after the other for so long.

    Raises InvalidOption for numbers below 1 and for what no request can carry, PoolcError where
    nothing answers, MissingDependency without httptools.
    """
    if clients < 1 or seconds <= 0:
        raise InvalidOption(f"{clients} clients for {seconds:g} s: both must be more than 0")
    return run(_measured(target, lambda load: _closed(load, asks, clients, seconds)))


def open_loop(target: Target, asks: Sequence[Ask], rate: float, seconds: float) -> Outcome:
    """Send ``rate`` requests a second, as they would come from many who know nothing of each other.

    Raises as ``closed`` does.
    """
    if rate <= 0 or seconds <= 0:
        raise InvalidOption(f"{rate:g} requests/s for {seconds:g} s: both must be more than 0")
    return run(_measured(target, lambda load: _open(load, asks, rate, seconds)))


class _Load:
    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self.outcome = Outcome()

    def send(self, ask: Ask, due_s: float | None = None) -> asyncio.Future[int]:
        """Send a request; what became of it is noted once the future is done."""
        began_s = time.perf_counter() if due_s is None else due_s
        answer = self._connections.post(ask.path, ask.body)
        answer.add_done_callback(partial(self._note, ask, began_s))
        return answer

    def _note(self, ask: Ask, began_s: float, answer: asyncio.Future[int]) -> None:
        error = answer.exception()
        if error is None:
            status = str(answer.result())
        elif isinstance(error, TimeoutError):
            status = _LATE
        elif isinstance(error, NoConnection):
            status = _NOBODY
        else:
            raise error
        self.outcome.statuses[status] += 1
        if status == "200":
            self.outcome.latencies_s.append(time.perf_counter() - began_s)
            self.outcome.texts += ask.num_texts


async def _measured(target: Target, drive: Callable[[_Load], Awaitable[None]]) -> Outcome:
    connections = Connections(
        replace(target, headers={"Content-Type": "application/json", **target.headers})
    )
    load = _Load(connections)
    await connections.check()
    began_s, cpu_s = time.perf_counter(), _cpu_s()
    try:
        await drive(load)
    finally:
        load.outcome.seconds = time.perf_counter() - began_s
        load.outcome.generator_cpu_s = _cpu_s() - cpu_s
        connections.close()
        await asyncio.sleep(0)  # the loop closes sockets in its next turn
    return load.outcome


async def _closed(load: _Load, asks: Sequence[Ask], clients: int, seconds: float) -> None:
    until_s = time.perf_counter() + seconds
    endless: Iterator[Ask] = itertools.cycle(asks)

    async def client() -> None:
        while time.perf_counter() < until_s:
            with suppress(NoConnection, TimeoutError):  # noted already
                await load.send(next(endless))

    await asyncio.gather(*(client() for _ in range(clients)))


async def _open(load: _Load, asks: Sequence[Ask], rate: float, seconds: float) -> None:
    draw, endless = random.Random(SEED), itertools.cycle(asks)
    began_s = time.perf_counter()
    due_s, sent = began_s, set[asyncio.Future[int]]()
    while (due_s := due_s + draw.expovariate(rate)) < began_s + seconds:
        # Also where it is late already: answers have to be read meanwhile.
        await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
        now_s = time.perf_counter()  # timers are exact to a millisecond
        load.outcome.late_s.append(max(0.0, now_s - due_s))
        answer = load.send(next(endless), min(now_s, due_s))
        sent.add(answer)
        answer.add_done_callback(sent.discard)
    if sent:
        await asyncio.wait(sent)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
