"""Work under way: the micro-batches of one request on the executor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Protocol

from poolc.runtime.batching import MicroBatch
from poolc.runtime.cores import nobody_computes
from poolc.runtime.request import Row


class Running(Protocol):
    """A micro-batch that was begun, or will be."""

    def result(self) -> list[Row]:
        """Wait for its rows; raises what it raised."""

    def cancel(self) -> bool:
        """Drop it unless it runs."""


class Lone:
    """The only micro-batch of a request: whoever waits for it runs it, if no other runs.

    A short text takes less than a millisecond; so it is not handed to another thread and back.
    """

    def __init__(self, run: Callable[[], list[Row]], executor: Executor) -> None:
        self._run = run
        self._executor = executor

    def result(self) -> list[Row]:
        """See ``Running``."""
        # Beside others it waits for a stream: callers' threads are not bounded, streams are.
        return self._run() if nobody_computes() else self._executor.submit(self._run).result()

    def cancel(self) -> bool:
        """See ``Running``."""
        return True


class Work:
    """A submitted request; ``wait`` returns its rows in the order of its sequences."""

    def __init__(self, count: int, started: Sequence[tuple[MicroBatch, Running]]) -> None:
        self._count = count
        self._started = started

    def wait(self) -> list[Row]:
        """Wait for every micro-batch; raises what one of them raised, after cancelling the rest."""
        rows: list[Row] = [{}] * self._count
        try:
            for batch, future in self._started:
                for index, row in zip(batch.indices, future.result(), strict=True):
                    rows[index] = row
        finally:
            self.cancel()
        return rows

    def cancel(self) -> None:
        """Drop micro-batches that have not started; those that run finish unseen."""
        for _, future in self._started:
            future.cancel()
