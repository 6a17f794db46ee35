"""Who is let into a model's queue: by the tokens that wait, and by when a request would begin.

A count of tokens and an estimate, of one scheduler; knows nothing about requests or the engine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from poolc.errors import Overloaded
from poolc.serve.settings import Settings

_MAX_RETRY_AFTER_S = 60.0
# Requests that come faster than the event loop reads them wait where nobody counts them. While it
# is that far behind, and the streams have that much to do, reading more gains nothing.
_BEHIND_S = 0.5
_ENOUGH_WORK_S = 1.0


class Admission:
    """Counts what was admitted and is not yet computed, and refuses what is too much."""

    def __init__(self, settings: Settings, streams: int) -> None:
        self.queued_tokens = 0
        self.behind_s = 0.0  # the event loop, when it last looked; told by the server
        self._max_queued_tokens = settings.max_queued_tokens
        self._max_queue_s = settings.max_queue_s
        self._streams = streams
        self._tokens_per_s = 0.0  # of one stream; 0 until the first micro-batch has run
        # Of first turns that were not yet taken, by priority: later turns do not delay newcomers.
        self._first_tokens = Counter[int]()
        self._by_priority = False  # whether any request had another priority than 0

    def refuse_if_full(self, num_tokens: int, priority: int) -> None:
        """Raise Overloaded for a request for which there is no room, or that would begin too late.

        One that is larger than the whole queue still gets in when nobody is before it.
        """
        self._by_priority = self._by_priority or priority != 0
        if not self.queued_tokens:
            return
        if num_tokens > self._max_queued_tokens - self.queued_tokens:
            raise self._overloaded(
                f"{self.queued_tokens} tokens wait, the limit is {self._max_queued_tokens}"
            )
        before = sum(tokens for p, tokens in self._first_tokens.items() if p <= priority)
        wait_s = self._seconds(before)
        if wait_s > self._max_queue_s:
            raise self._overloaded(
                f"requests begin after about {wait_s:.1f} s, the limit is {self._max_queue_s:g} s"
            )

    def is_full(self) -> bool:
        """Return whether any request would be refused now, unread. Asked for every one: cheap."""
        if self._by_priority or not self.queued_tokens:
            return False
        wait_s = self._seconds(self._first_tokens[0])
        return (
            wait_s > self._max_queue_s
            or self.queued_tokens >= self._max_queued_tokens
            or (self.behind_s > _BEHIND_S and wait_s > _ENOUGH_WORK_S)
        )

    def overloaded(self) -> Overloaded | None:
        """Return why any request would be refused now, unread; None where one may get in."""
        if not self.is_full():
            return None
        try:
            self.refuse_if_full(1, 0)
        except Overloaded as error:
            return error
        return self._overloaded(
            f"requests come faster than they are read, by {self.behind_s:.1f} s"
        )

    @contextmanager
    def reserved(self, num_tokens: int) -> Iterator[None]:
        """Count tokens as queued that are not yet."""
        self.queued_tokens += num_tokens
        try:
            yield
        finally:
            self.queued_tokens -= num_tokens

    def waits(self, first_tokens: int, priority: int) -> None:
        """Count the first turn of a request that was queued."""
        self._first_tokens[priority] += first_tokens

    def waits_no_more(self, first_tokens: int, priority: int) -> None:
        """Count it no more: it was taken, or its request ended."""
        self._first_tokens[priority] -= first_tokens
        if not self._first_tokens[priority]:  # clients send timestamps: no two are the same
            del self._first_tokens[priority]

    def measured(self, num_tokens: int, seconds: float) -> None:
        """Note how long a micro-batch took."""
        rate = num_tokens / max(seconds, 1e-6)
        self._tokens_per_s = 0.9 * self._tokens_per_s + 0.1 * rate if self._tokens_per_s else rate

    def _seconds(self, num_tokens: int) -> float:
        """Return how long tokens take, by what was measured; 0 where nothing was yet."""
        rate = self._tokens_per_s * self._streams
        return num_tokens / rate if rate else 0.0

    def _overloaded(self, said: str) -> Overloaded:
        wait_s = self._seconds(self.queued_tokens)
        return Overloaded(
            f"the queue is full: {said}; try again later",
            retry_after_s=min(max(wait_s, 1.0), _MAX_RETRY_AFTER_S),
        )
