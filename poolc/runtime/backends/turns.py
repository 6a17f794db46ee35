"""Who may use the GPUs of this process while kernels are recorded: nobody else.

CUDA refuses what could be part of a recording: allocating, freeing, waiting for a device. ONNX
Runtime records so that this holds for every thread, whichever model and library it is about. Knows
nothing about either library.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """Runs go side by side, but none while somebody records. A thread takes one turn at a time."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._opening = 0
        self._recording = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Run, open or free beside others."""
        with self._changed:
            self._changed.wait_for(lambda: not self._recording)
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    @contextmanager
    def opening(self) -> Iterator[None]:
        """Open or drop what takes seconds, beside what runs."""
        with self._changed:
            self._changed.wait_for(lambda: not self._recording)
            self._opening += 1
        try:
            yield
        finally:
            with self._changed:
                self._opening -= 1
                self._changed.notify_all()

    @contextmanager
    def alone_unless_opening(self) -> Iterator[bool]:
        """``alone``, or False at once while something is opened: runs would wait for it too."""
        with self._changed:
            self._changed.wait_for(lambda: not self._recording)
            may = not self._opening
            if may:
                self._recording = True
                self._changed.wait_for(lambda: not self._running)
        if not may:
            yield False
            return
        try:
            yield True
        finally:
            self._recorded()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until nothing runs or is opened, and let nothing run meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: not (self._recording or self._opening))
            self._recording = True
            self._changed.wait_for(lambda: not self._running)
        try:
            yield
        finally:
            self._recorded()

    def _recorded(self) -> None:
        with self._changed:
            self._recording = False
            self._changed.notify_all()


turns = Turns()  # of the process, whatever models it runs
