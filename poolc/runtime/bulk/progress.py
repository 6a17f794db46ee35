"""How far a job is, by what was computed and not by what was read.

Knows counts and a clock; prints nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

_INTERVAL_S = 0.2


@dataclass(frozen=True, slots=True)
class BulkProgress:
    """How far a job is; bytes are those of the inputs, None in total for standard input.

    Rows and bytes count those of earlier runs too, ``resumed_bytes`` and ``num_resumed`` of them;
    tokens, padding included in ``num_computed``, and seconds are of this run.
    """

    num_rows: int
    done_bytes: int
    total_bytes: int | None
    num_failed: int = 0
    num_tokens: int = 0
    num_computed: int = 0
    elapsed_s: float = 0.0
    resumed_bytes: int = 0
    num_resumed: int = 0

    @property
    def tokens_per_s(self) -> float:
        """Tokens without padding, of all of this run."""
        return self.num_tokens / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def padding(self) -> float:
        """Share of the computed tokens that was padding."""
        return 1 - self.num_tokens / self.num_computed if self.num_computed else 0.0

    @property
    def eta_s(self) -> float | None:
        """Seconds until the end at the rate of this run; None where nobody knows."""
        done = self.done_bytes - self.resumed_bytes
        if self.total_bytes is None or done <= 0 or self.elapsed_s <= 0:
            return None
        return max(0.0, (self.total_bytes - self.done_bytes) * self.elapsed_s / done)


OnProgress = Callable[[BulkProgress], None]


class Meter:
    """Counts, and tells ``on_progress`` now and then and at the end of every part."""

    def __init__(
        self,
        on_progress: OnProgress | None,
        total_bytes: int | None,
        *,
        resumed: tuple[int, int] = (0, 0),
    ) -> None:
        self._on_progress = on_progress
        self._total_bytes = total_bytes
        self._resumed_rows, self._resumed_bytes = resumed
        self._rows, self._bytes = resumed
        self._failed = self._tokens = self._computed = 0
        self._part = (0, 0, 1)  # rows, bytes and tokens of the part that runs
        self._part_tokens = 0
        self._began_s = time.perf_counter()
        self._told_s = self._began_s

    @property
    def num_tokens(self) -> int:
        """Tokens that were computed, without padding."""
        return self._tokens

    @property
    def num_computed(self) -> int:
        """Tokens that were computed, with padding."""
        return self._computed

    @property
    def elapsed_s(self) -> float:
        """Seconds since the job began."""
        return time.perf_counter() - self._began_s

    def start_part(self, num_rows: int, num_bytes: int, num_tokens: int) -> None:
        """Say what is in the part whose micro-batches come next."""
        self._part, self._part_tokens = (num_rows, num_bytes, max(num_tokens, 1)), 0

    def add(self, num_tokens: int, num_computed: int) -> None:
        """Count a micro-batch."""
        self._tokens += num_tokens
        self._computed += num_computed
        self._part_tokens += num_tokens
        if time.perf_counter() - self._told_s >= _INTERVAL_S:
            self._tell()

    def end_part(self, num_failed: int) -> None:
        """Count a part as computed."""
        self._rows += self._part[0]
        self._bytes += self._part[1]
        self._failed += num_failed
        self._part, self._part_tokens = (0, 0, 1), 0
        self._tell()

    def _tell(self) -> None:
        self._told_s = time.perf_counter()
        if self._on_progress is None:
            return
        rows, num_bytes, tokens = self._part
        share = self._part_tokens / tokens
        self._on_progress(
            BulkProgress(
                self._rows + int(rows * share),
                self._bytes + int(num_bytes * share),
                self._total_bytes,
                self._failed,
                self._tokens,
                self._computed,
                self.elapsed_s,
                self._resumed_bytes,
                self._resumed_rows,
            )
        )
