"""The same artifact on several devices: each micro-batch goes to the one that has least to do."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from poolc.runtime.backends.base import Backend, Feeds, Fetches


class Replicas:
    """Backends of one artifact as one."""

    def __init__(self, backends: Sequence[Backend]) -> None:
        self._backends = tuple(backends)
        self._busy = [0] * len(backends)
        self._next = 0
        self._lock = threading.Lock()
        self.name = backends[0].name
        self.streams = sum(backend.streams for backend in backends)
        self.spread = len(backends) * backends[0].spread
        self.executor = ThreadPoolExecutor(self.streams, thread_name_prefix="poolc-replicas")

    def run(self, output_set: str, feeds: Feeds, *, alone: bool = False) -> Fetches:
        """Run one micro-batch on one of the devices; see ``Backend.run``."""
        place = self._take()
        try:
            return self._backends[place].run(output_set, feeds, alone=alone)
        finally:
            with self._lock:
                self._busy[place] -= 1

    @property
    def pool_cpu_s(self) -> float:
        """See ``Backend``."""
        return sum(backend.pool_cpu_s for backend in self._backends)

    def close(self) -> None:
        """Close all of them."""
        for backend in self._backends:
            backend.close()

    def _take(self) -> int:
        """Choose the least busy one; of several, each in turn."""
        with self._lock:
            count = len(self._backends)
            order = [(self._next + i) % count for i in range(count)]
            place = min(order, key=lambda i: self._busy[i])
            self._next = (place + 1) % count
            self._busy[place] += 1
            return place
