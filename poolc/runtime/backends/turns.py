"""Who may use the GPUs of this process while kernels are recorded: nobody else.

CUDA refuses what could be part of a recording: allocating, freeing, waiting for a device. ONNX
Runtime records so that this holds for every thread, whichever model and library it is about. Knows
nothing about either library.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

_RUNNING, _OPENING = "running", "opening"


class Turns:
    """Runs go side by side, but none while somebody records. A thread takes one turn at a time."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._under_way: Counter[str] = Counter()
        self._recording = False

    def shared(self) -> AbstractContextManager[None]:
        """Run beside others."""
        return self._beside(_RUNNING)

    def opening(self) -> AbstractContextManager[None]:
        """Open or drop what takes seconds, beside what runs."""
        return self._beside(_OPENING)

    @contextmanager
    def alone_unless_opening(self) -> Iterator[bool]:
        """Wait until nothing runs, and let nothing run meanwhile.

        False at once while something is opened: runs would wait for it too.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._recording)
            may = not self._under_way[_OPENING]
            if may:
                self._recording = True
                self._changed.wait_for(lambda: not self._under_way[_RUNNING])
        try:
            yield may
        finally:
            if may:
                with self._changed:
                    self._recording = False
                    self._changed.notify_all()

    @contextmanager
    def _beside(self, what: str) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._recording)
            self._under_way[what] += 1
        try:
            yield
        finally:
            with self._changed:
                self._under_way[what] -= 1
                self._changed.notify_all()


turns = Turns()  # of the process, whatever models it runs
