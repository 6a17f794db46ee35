"""The seam between the engine and what executes graphs."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Feeds = Mapping[str, npt.NDArray[np.int64]]
Fetches = Mapping[str, npt.NDArray[Any]]


class Backend(Protocol):
    """Executes the graphs of one artifact. Thread-safe; ``run`` computes without the GIL.

    ``streams`` micro-batches run side by side, on the threads of ``executor``; a backlog that is
    too small for that is cut into ``spread`` micro-batches.
    """

    name: str
    streams: int
    spread: int

    @property
    def pool_cpu_s(self) -> float:
        """Processor time of the library's own threads so far; callers' threads not included."""
        ...

    @property
    def executor(self) -> ThreadPoolExecutor:
        """The threads that micro-batches run on."""
        ...

    def run(self, output_set: str, feeds: Feeds, *, alone: bool = False) -> Fetches:
        """Run one micro-batch through the graph of ``output_set``: [batch, seq] arrays in, all
        outputs out.

        ``alone``: nothing else runs or waits, so that it may have all cores.
        Raises BackendError when the library fails on it.
        """
        ...

    def close(self) -> None:
        """Release sessions and memory; the backend cannot run afterwards."""
        ...
