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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from poolc.bench.asks import SEED, Ask
from poolc.errors import InvalidOption, MissingDependency

if TYPE_CHECKING:
    from aiohttp import ClientSession

_PERCENTILES = (50, 90, 95, 99)
_NOBODY = "no connection"
_LATE = "timeout"


@dataclass(frozen=True, slots=True)
class Target:
    """The server, and what every request carries."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 60.0


@dataclass(slots=True)
class Outcome:
    """What became of all requests of one run; times in seconds."""

    latencies_s: list[float] = field(default_factory=list)  # of those that were answered with 200
    statuses: Counter[str] = field(default_factory=Counter)
    texts: int = 0  # of those that were answered with 200
    seconds: float = 0.0
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
        }


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the smallest value that ``percent`` % are not above (nearest rank); NaN of none."""
    if not ordered:
        return float("nan")
    rank = max(1, -(-len(ordered) * percent // 100))
    return ordered[int(rank) - 1]


def closed(target: Target, asks: Sequence[Ask], clients: int, seconds: float) -> Outcome:
    """Let ``clients`` ask one after the other for so long.

    Raises InvalidOption for numbers below 1, MissingDependency without aiohttp.
    """
    if clients < 1 or seconds <= 0:
        raise InvalidOption(f"{clients} clients for {seconds:g} s: both must be more than 0")
    return asyncio.run(_measured(target, lambda run: _closed(run, asks, clients, seconds), clients))


def open_loop(target: Target, asks: Sequence[Ask], rate: float, seconds: float) -> Outcome:
    """Send ``rate`` requests a second, as they would come from many who know nothing of each other.

    Raises as ``closed`` does.
    """
    if rate <= 0 or seconds <= 0:
        raise InvalidOption(f"{rate:g} requests/s for {seconds:g} s: both must be more than 0")
    return asyncio.run(_measured(target, lambda run: _open(run, asks, rate, seconds), 0))


class _Run:
    def __init__(self, session: ClientSession, target: Target) -> None:
        self._session, self._target = session, target
        self.outcome = Outcome()

    async def send(self, ask: Ask, due_s: float | None = None) -> None:
        """Send a request and note what became of it."""
        import aiohttp

        began_s = time.perf_counter() if due_s is None else due_s
        try:
            async with self._session.post(self._target.url + ask.path, data=ask.body) as response:
                await response.read()
                status = str(response.status)
        except TimeoutError:
            status = _LATE
        except aiohttp.ClientError:
            status = _NOBODY
        self.outcome.statuses[status] += 1
        if status == "200":
            self.outcome.latencies_s.append(time.perf_counter() - began_s)
            self.outcome.texts += ask.num_texts


async def _measured(target: Target, drive: Any, connections: int) -> Outcome:
    aiohttp = _aiohttp()
    connector = aiohttp.TCPConnector(limit=connections)
    timeout = aiohttp.ClientTimeout(total=target.timeout_s)
    headers = {"Content-Type": "application/json", **target.headers}
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, headers=headers
    ) as session:
        run = _Run(session, target)
        began_s, cpu_s = time.perf_counter(), _cpu_s()
        await drive(run)
        run.outcome.seconds = time.perf_counter() - began_s
        run.outcome.generator_cpu_s = _cpu_s() - cpu_s
        return run.outcome


async def _closed(run: _Run, asks: Sequence[Ask], clients: int, seconds: float) -> None:
    until_s = time.perf_counter() + seconds
    endless: Iterator[Ask] = itertools.cycle(asks)

    async def client() -> None:
        while time.perf_counter() < until_s:
            await run.send(next(endless))

    await asyncio.gather(*(client() for _ in range(clients)))


async def _open(run: _Run, asks: Sequence[Ask], rate: float, seconds: float) -> None:
    draw, endless = random.Random(SEED), itertools.cycle(asks)
    began_s = time.perf_counter()
    due_s, sent = began_s, set[asyncio.Task[None]]()
    while (due_s := due_s + draw.expovariate(rate)) < began_s + seconds:
        await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
        task = asyncio.ensure_future(run.send(next(endless), due_s))
        sent.add(task)
        task.add_done_callback(sent.discard)
    await asyncio.gather(*sent)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _aiohttp() -> Any:
    try:
        import aiohttp
    except ModuleNotFoundError as error:
        raise MissingDependency(
            'load needs aiohttp, which is not installed: pip install "poolc[bench]"'
        ) from error
    return aiohttp
