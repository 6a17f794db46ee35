"""The same artifact on several devices: each micro-batch goes to the one that has least to do.

A micro-batch that fails on one device is tried on another. A device that fails where others do not,
several times in a row, gets none any more: one that is lost would fail at once, so that it would
always have least to do.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor

from poolc.errors import BackendError, DeviceOutOfMemory
from poolc.runtime.backends.base import Backend, Feeds, Fetches

# Failures of a device in a row, of what another one computes, after which it is lost.
_LOST_AFTER = 3

log = logging.getLogger(__name__)


class Replicas:
    """Backends of one artifact as one; ``names`` are those of their devices."""

    def __init__(self, backends: Sequence[Backend], names: Sequence[str]) -> None:
        self.backends = tuple(backends)
        self._names = tuple(names)
        self._busy = [0] * len(backends)
        self._failures = [0] * len(backends)
        self._next = 0
        self._lock = threading.Lock()
        self.name = backends[0].name
        self.streams = sum(backend.streams for backend in backends)
        self.spread = len(backends) * backends[0].spread
        self.executor = ThreadPoolExecutor(self.streams, thread_name_prefix="poolc-replicas")

    def run(self, output_set: str, feeds: Feeds, *, alone: bool = False) -> Fetches:
        """Run one micro-batch on one of the devices; see ``Backend.run``."""
        first = self._take()
        try:
            fetched = self._on(first, output_set, feeds, alone)
        except BackendError as error:
            other = self._take(besides=(first,))
            if other == first:
                raise
            fetched = self._on(other, output_set, feeds, alone)  # its error says as much
            if not isinstance(error, DeviceOutOfMemory):  # it may be full, and is not lost for that
                self._count(first)
            return fetched
        self._failures[first] = 0
        return fetched

    @property
    def lost(self) -> tuple[str, ...]:
        """The devices that get nothing any more."""
        failures = zip(self._names, self._failures, strict=True)
        return tuple(name for name, count in failures if count >= _LOST_AFTER)

    @property
    def pool_cpu_s(self) -> float:
        """See ``Backend``."""
        return sum(backend.pool_cpu_s for backend in self.backends)

    def close(self) -> None:
        """Close all of them; the first error is raised after that."""
        errors = []
        for backend in self.backends:
            try:
                backend.close()
            except BackendError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def _on(self, place: int, output_set: str, feeds: Feeds, alone: bool) -> Fetches:
        try:
            return self.backends[place].run(output_set, feeds, alone=alone)
        finally:
            with self._lock:
                self._busy[place] -= 1

    def _take(self, besides: Collection[int] = ()) -> int:
        """Choose the least busy one that is not lost; of several, each in turn."""
        with self._lock:
            count = len(self.backends)
            order = [(self._next + i) % count for i in range(count)]
            order = [place for place in order if place not in besides] or order
            alive = [place for place in order if self._failures[place] < _LOST_AFTER]
            place = min(alive or order, key=lambda i: self._busy[i])
            self._next = (place + 1) % count
            self._busy[place] += 1
            return place

    def _count(self, place: int) -> None:
        """Note that a device failed at what another one computed."""
        with self._lock:
            self._failures[place] += 1
            lost = self._failures[place] == _LOST_AFTER
        if lost:
            log.error(
                "%s failed %d times in a row at what another device computed, and gets nothing "
                "any more: restart the process to use it again",
                *(self._names[place], _LOST_AFTER),
            )
