"""How much memory texts take, by what the compiler measured, and never more of it than allowed.

A limit is on the whole process as if this model were all of it: what is resident once the model has
run, and what the micro-batches take that run at the moment. Knows nothing about graphs.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from poolc.errors import InvalidOption, TextTooLong
from poolc.runtime.request import Prepared

# Shorter texts share a micro-batch, whose budget bounds what they take: models of no longer ones
# are not measured.
SHORTEST_MEASURED = 256  # tokens
_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*$", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


@dataclass(frozen=True, slots=True)
class MemoryFit:
    """Bytes that a micro-batch of so many tokens takes, by polynomials of their number.

    ``long`` holds above ``max_whole_tokens``, where attention runs in blocks.
    """

    resident_bytes: int  # of a process that has run one short text
    whole: tuple[float, ...]  # of rising power
    long: tuple[float, ...] = ()
    max_whole_tokens: int = 0

    @classmethod
    def recorded(cls, report: Mapping[str, Any]) -> MemoryFit | None:
        """Read an artifact's report; None where nothing was measured."""
        found = report.get("memory", {}).get("fit")
        if not isinstance(found, Mapping):
            return None
        return cls(
            int(found["resident_bytes"]),
            tuple(map(float, found["whole"])),
            tuple(map(float, found.get("long", ()))),
            int(found.get("max_whole_tokens", 0)),
        )

    @classmethod
    def needed(cls, report: Mapping[str, Any], max_length: int) -> MemoryFit | None:
        """Read an artifact's report for a limit; None for a model of short texts only.

        Raises InvalidOption where a model of long texts was not measured: no limit would hold.
        """
        found = cls.recorded(report)
        if found is None and max_length >= SHORTEST_MEASURED:
            raise InvalidOption(
                "memory_limit: what texts take was not measured when this artifact was compiled: "
                "compile the model again, or leave the limit out",
                param="memory_limit",
            )
        return found

    def estimate(self, num_tokens: int) -> int:
        """Return the bytes that so many tokens take beside what is resident.

        The first texts in blocks may take less than the longest as a whole: never estimated so, for
        a text that is refused is then refused for its length.
        """
        if self.long and num_tokens > self.max_whole_tokens:
            longest_whole = _polynomial(self.whole, self.max_whole_tokens)
            return max(_polynomial(self.long, num_tokens), longest_whole)
        return _polynomial(self.whole, num_tokens)


class MemoryGuard:
    """Refuses texts beyond a limit, and lets micro-batches run while they fit into it together.

    Raises InvalidOption for a limit that the model alone exceeds.
    """

    def __init__(self, fit: MemoryFit | None, limit_bytes: int | None, max_length: int) -> None:
        self._fit = fit if limit_bytes is not None else None
        self._limit_bytes = limit_bytes or 0
        self._room = self._limit_bytes - (fit.resident_bytes if fit else 0)
        self._held = 0  # bytes of what runs
        self._free = threading.Condition()
        self.most_tokens = max_length if self._fit is None else self._most(self._fit, max_length)

    def _most(self, fit: MemoryFit, max_length: int) -> int:
        most = 0
        step = 1 << max_length.bit_length()
        while step:
            tokens = most + step
            if tokens <= max_length and fit.estimate(tokens) <= self._room:
                most = tokens
            step //= 2
        if not most:
            least = fit.resident_bytes + fit.estimate(1)
            raise InvalidOption(
                f"memory_limit is {shown(self._limit_bytes)}; this model takes {shown(least)} "
                "before any text: raise the limit",
                param="memory_limit",
            )
        return most

    def check(self, prepared: Prepared, first_index: int = 0) -> None:
        """Raise TextTooLong, with the figure, for an item that would exceed the limit alone."""
        fit = self._fit
        if fit is None:
            return
        for place, num_tokens in enumerate(prepared.lengths):
            if num_tokens > self.most_tokens:
                index = first_index + prepared.item_of(place)
                takes = shown(fit.resident_bytes + fit.estimate(num_tokens))
                raise TextTooLong(
                    f"item {index} has {num_tokens} tokens, which takes about {takes} of memory; "
                    f"the limit is {shown(self._limit_bytes)}, enough for {self.most_tokens} "
                    "tokens: split it, ask for chunks or for truncation to those (max_length), or "
                    "raise the memory limit",
                    index=index,
                )

    @contextmanager
    def holding(self, num_tokens: int) -> Iterator[None]:
        """Wait until a micro-batch fits beside those that run, and count it while it does.

        One that fits nowhere runs alone: nothing waits for ever.
        """
        if self._fit is None:
            yield
            return
        size = self._fit.estimate(num_tokens)
        with self._free:
            self._free.wait_for(lambda: not self._held or self._held + size <= self._room)
            self._held += size
        try:
            yield
        finally:
            with self._free:
                self._held -= size
                self._free.notify_all()


def _polynomial(factors: tuple[float, ...], num_tokens: int) -> int:
    size = sum(factor * float(num_tokens) ** power for power, factor in enumerate(factors))
    return max(0, round(size))


def parse_bytes(given: int | str | None, param: str) -> int | None:
    """Read a number of bytes: 2000000000, "2GB", "512 MiB". Raises InvalidOption."""
    if given is None:
        return None
    match = _SIZE.match(str(given))
    if match is None or isinstance(given, bool):
        raise InvalidOption(
            f"{param} is {given!r}; allowed: bytes, or a size like 2GB or 512MiB", param=param
        )
    number, unit, binary = match.groups()
    base: int = 1024 if binary else 1000
    return int(float(number) * float(base) ** _POWERS[unit.lower()])


def shown(size_bytes: int) -> str:
    """Write a size for people: 1.29 GB."""
    if size_bytes >= 10**9:
        return f"{size_bytes / 1e9:.2f} GB"
    return f"{size_bytes / 1e6:.0f} MB" if size_bytes >= 10**7 else f"{size_bytes / 1e6:.1f} MB"
