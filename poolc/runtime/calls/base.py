"""What every public method is written over: the seam, windows of texts, and worker threads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, ParamSpec, TypeVar

from poolc.runtime.calls.arguments import as_iterable
from poolc.runtime.heads import Result
from poolc.runtime.items import all_texts
from poolc.runtime.outputs import Ragged
from poolc.runtime.request import Item, Params, Prepared, Row
from poolc.runtime.work import Work
from poolc.spec import ModelSpec, Task

P = ParamSpec("P")
T = TypeVar("T")

# Texts tokenised and sorted together. Large enough that sorting leaves almost no padding, small
# enough that the next window is tokenised while this one runs and that streams stay flat in memory.
WINDOW = 1024
# Long texts make shorter windows: chunked, they are all tokens of theirs.
_WINDOW_CHARS = 1 << 23
_WINDOWS_IN_FLIGHT = 2


class Seam(ABC):
    """The functions of an engine that its public methods are made of.

    Streams: any iterable in, results out one by one, in order, in bounded memory. An error comes
    when its text is read, after the results of the windows before.
    """

    spec: ModelSpec
    window_chars = _WINDOW_CHARS  # of one window, about

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

    def run(
        self, task: Task, items: list[Any], params: Params, truncated: list[bool] | None = None
    ) -> list[Any]:
        """Return what ``stream`` yields."""
        self.require(task)
        if len(next(windows(items, self.window_chars), [])) < max(len(items), 1):
            # A mistake in the last window must not cost the work of the first.
            self.check(task, items, params)
        return list(self.stream(task, items, params, truncated))

    def stream(
        self,
        task: Task,
        items: Iterable[Item],
        params: Params,
        truncated: list[bool] | None = None,
    ) -> Iterator[Any]:
        """Yield one result a window; window k + 1 is tokenised while window k runs.

        ``truncated`` receives, before a window is yielded, whether each of its texts was cut.
        """
        self.require(task)
        pending: deque[tuple[Prepared, Work]] = deque()
        done = 0
        try:
            for window in windows(as_iterable(items), self.window_chars):
                prepared = self.prepare(task, window, params, first_index=done)
                done += len(window)
                pending.append((prepared, self.submit(prepared)))
                if len(pending) > _WINDOWS_IN_FLIGHT:
                    yield self._finished(*pending.popleft(), truncated)
            while pending:
                yield self._finished(*pending.popleft(), truncated)
        finally:
            for _, work in pending:  # after an error or an early stop nothing runs on unseen
                work.cancel()

    def _finished(self, prepared: Prepared, work: Work, truncated: list[bool] | None) -> Any:
        result = self.finish(prepared, work.wait())
        if truncated is not None:
            truncated += prepared.truncated.tolist()
        return result


async def on_thread(call: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    import asyncio  # 15 ms that a cold start without an event loop does not pay

    return await asyncio.to_thread(call, *args, **options)


def windows(items: Iterable[Any], most_chars: int = _WINDOW_CHARS) -> Iterator[list[Any]]:
    """Cut items into windows of at most ``WINDOW`` of them, and of bounded size."""
    if isinstance(items, list):
        yield from _slices(items, most_chars)
        return
    window: list[Any] = []
    size = 0
    for item in items:
        window.append(item)
        size += _size(item)
        if len(window) == WINDOW or size >= most_chars:
            yield window
            window, size = [], 0
    if window:
        yield window


def _slices(items: list[Any], most_chars: int) -> Iterator[list[Any]]:
    """Cut a list as ``windows`` cuts what it cannot look ahead in, without a step for each item."""
    start = 0
    while start < len(items):
        window = items[start : start + WINDOW]
        sizes = list(accumulate(map(len if all_texts(window) else _size, window)))
        if sizes[-1] >= most_chars:
            window = window[: bisect_left(sizes, most_chars) + 1]
        yield window
        start += len(window)


def _size(item: Any) -> int:
    """Return the characters or token ids of an item; what is neither is refused later."""
    if isinstance(item, tuple):
        return sum(map(_size, item))
    return len(item) if isinstance(item, (str, list)) else getattr(item, "size", 0)


def joined(parts: list[Ragged]) -> Ragged:
    return (
        parts[0] if len(parts) == 1 else Ragged.from_rows([row for part in parts for row in part])
    )
