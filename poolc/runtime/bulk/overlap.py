"""Reading ahead of the work and writing behind it, each on a thread of its own.

Both are bounded, so that memory is; an error on either side reaches the caller. Knows nothing about
parts.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
_POLL_S = 0.1


class Ahead(Generic[T]):
    """An iterator over ``items`` that are made on a thread, at most ``depth`` + 1 early.

    A context: what was not taken when it ends is not made.
    """

    def __init__(self, items: Iterator[T], depth: int = 1) -> None:
        self._items = items
        self._made: queue.Queue[tuple[T] | BaseException | None] = queue.Queue(depth)
        self._stopped = threading.Event()
        self.ended = False  # whether ``made`` has returned the last item
        # A daemon: nobody can interrupt a thread that waits for standard input.
        self._thread = threading.Thread(target=self._make, name="poolc-bulk-read", daemon=True)

    def __enter__(self) -> Iterator[T]:
        self._thread.start()
        return self._taken()

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        self._thread.join(timeout=1.0)

    def made(self) -> list[T]:
        """Return the next item if it is made by now; the iterator would wait for it.

        Raises what making it raised.
        """
        try:
            made = self._made.get_nowait()
        except queue.Empty:
            return []
        self.ended = not isinstance(made, tuple)
        if isinstance(made, BaseException):
            raise made
        return [] if made is None else [*made]

    def wait(self, timeout_s: float) -> None:
        """Wait so many seconds, or until no more items will be made."""
        self._thread.join(timeout_s)

    def _taken(self) -> Iterator[T]:
        while (made := self._made.get()) is not None:
            if isinstance(made, BaseException):
                raise made
            yield made[0]

    def _make(self) -> None:
        try:
            for item in self._items:
                if not self._offer((item,)):
                    return
            self._offer(None)
        except BaseException as error:  # raised again where the items are taken
            self._offer(error)

    def _offer(self, made: tuple[T] | BaseException | None) -> bool:
        while not self._stopped.is_set():
            try:
                self._made.put(made, timeout=_POLL_S)
                return True
            except queue.Full:
                continue
        return False


class Behind(Generic[T]):
    """Does ``work`` with one item after the other, in order, on a thread."""

    def __init__(self, work: Callable[[T], object], depth: int = 1) -> None:
        self._work = work
        self._waiting: queue.Queue[T | None] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="poolc-bulk-write", daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Hand over an item, waiting for room. Raises what an earlier one raised."""
        self._raise()
        self._waiting.put(item)
        self._raise()

    def close(self) -> None:
        """Wait until everything is done. Raises what an item raised."""
        self._waiting.put(None)
        self._thread.join()
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            if self._error is not None:
                continue  # what follows a failed part must not be committed
            try:
                self._work(item)
            except BaseException as error:  # raised again where items are handed over
                self._error = error
