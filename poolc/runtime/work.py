"""Work under way: the micro-batches of one request on the executor."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

from poolc.runtime.batching import MicroBatch
from poolc.runtime.request import Row


class Work:
    """A submitted request; ``wait`` returns its rows in the order of its sequences."""

    def __init__(self, count: int, started: Sequence[tuple[MicroBatch, Future[list[Row]]]]) -> None:
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
