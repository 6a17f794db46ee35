"""What the compiler tells its caller while it works: stages with times, warnings, downloads.

Events are plain dicts, because they cross a process boundary as JSON lines.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

Event = dict[str, Any]
Sink = Callable[[Event], None]


@dataclass(slots=True)
class Progress:
    """Sends events to ``sink`` and keeps each stage's seconds."""

    sink: Sink
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Announce a stage, and its time when it ends without an error."""
        self.sink({"event": "stage", "name": name, "status": "start"})
        start = time.perf_counter()
        yield
        took = round(time.perf_counter() - start, 3)
        self.seconds[name] = took
        self.sink({"event": "stage", "name": name, "status": "done", "seconds": took})

    def warn(self, message: str) -> None:
        """Tell the user something that they should know but that does not stop the compile."""
        self.warnings.append(message)
        self.sink({"event": "warning", "message": message})

    def downloaded(self, file: str, done: int, total: int) -> None:
        """Report bytes of a file fetched so far."""
        self.sink({"event": "download", "file": file, "done": done, "total": total})
