"""What every public method is written over: the seam, windows of texts, and worker threads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, ParamSpec, TypeVar

from poolc.runtime.calls.arguments import as_iterable
from poolc.runtime.heads import Result
from poolc.runtime.outputs import Ragged
from poolc.runtime.request import Item, Params, Prepared, Row
from poolc.runtime.work import Work
from poolc.spec import ModelSpec, Task

P = ParamSpec("P")
T = TypeVar("T")

# Texts tokenised and sorted together. Large enough that sorting leaves almost no padding, small
# enough that the next window is tokenised while this one runs and that streams stay flat in memory.
WINDOW = 1024
_WINDOWS_IN_FLIGHT = 2


class Seam(ABC):
    """The functions of an engine that its public methods are made of.

    Streams: any iterable in, results out one by one, in order, in bounded memory. An error comes
    when its text is read, after the results of the windows before.
    """

    spec: ModelSpec

    @abstractmethod
    def require(self, task: Task) -> None:
        """Raise UnsupportedTask where the model does not do ``task``."""

    @abstractmethod
    def check(self, task: Task, items: Sequence[Item], params: Params) -> None:
        """Raise what ``prepare`` raises, with as little work as that takes."""

    @abstractmethod
    def prepare(
        self, task: Task, items: Sequence[Item], params: Params, *, first_index: int = 0
    ) -> Prepared:
        """Validate and tokenise."""

    @abstractmethod
    def submit(self, prepared: Prepared) -> Work:
        """Start the work."""

    @abstractmethod
    def finish(self, prepared: Prepared, rows: Sequence[Row]) -> Result:
        """Rows -> result."""

    def run(self, task: Task, items: list[Any], params: Params) -> list[Any]:
        self.require(task)
        if not items or len(items) > WINDOW:
            # A mistake in the last window must not cost the work of the first.
            self.check(task, items, params)
        return list(self.stream(task, items, params))

    def stream(self, task: Task, items: Iterable[Item], params: Params) -> Iterator[Any]:
        """Yield one result a window; window k + 1 is tokenised while window k runs."""
        self.require(task)
        pending: deque[tuple[Prepared, Work]] = deque()
        done = 0
        try:
            for window in _windows(as_iterable(items)):
                prepared = self.prepare(task, window, params, first_index=done)
                done += len(window)
                pending.append((prepared, self.submit(prepared)))
                if len(pending) > _WINDOWS_IN_FLIGHT:
                    yield self._finished(*pending.popleft())
            while pending:
                yield self._finished(*pending.popleft())
        finally:
            for _, work in pending:  # after an error or an early stop nothing runs on unseen
                work.cancel()

    def _finished(self, prepared: Prepared, work: Work) -> Any:
        return self.finish(prepared, work.wait())


async def on_thread(call: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    import asyncio  # 15 ms that a cold start without an event loop does not pay

    return await asyncio.to_thread(call, *args, **options)


def _windows(items: Iterable[Item]) -> Iterator[list[Item]]:
    iterator = iter(items)
    while window := list(islice(iterator, WINDOW)):
        yield window


def joined(parts: list[Ragged]) -> Ragged:
    return (
        parts[0] if len(parts) == 1 else Ragged.from_rows([row for part in parts for row in part])
    )
