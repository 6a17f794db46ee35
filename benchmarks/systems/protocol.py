"""What every system's program does with its standard input and output: JSON, one object a line.

``python -m benchmarks.systems.NAME JOB`` loads the model, answers one text and prints ``ready``;
then each line read is a command and each line written its answer. ``--prepare JOB`` exports files
and ends. Libraries print to standard output as well, so the answers go to a copy of it.

Knows no system and measures nothing but seconds around one call.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Items = list[Any]  # texts, or [left, right] pairs
Setting = dict[str, Any]
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Job:
    """One system and one model; ``folder`` is where ``prepare`` puts what it exports."""

    model: str  # a Sentence Transformers folder
    folder: str
    variant: str = ""
    task: str = "embed"  # or "score"
    max_length: int = 512  # tokens
    first: Items = field(default_factory=lambda: ["a text"])
    threads: int = 0  # 0: as many as the process may use

    @property
    def cores(self) -> int:
        """Return how many cores the process may use."""
        return self.threads or len(os.sched_getaffinity(0))


class System(Protocol):
    """A loaded model; ``settings`` are the choices that its documentation leaves to the user."""

    settings: list[Setting]

    def run(self, items: Items, setting: Setting) -> Any:
        """Return a row of numbers for each item."""


Load = Callable[[Job], System]
Prepare = Callable[[Job], None]


def serve(load: Load, prepare: Prepare | None = None) -> None:
    """Be the program of a system: the last lines of every file beside this one."""
    *flags, path = sys.argv[1:]
    job = Job(**json.loads(Path(path).read_text(encoding="utf-8")))
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    if "--prepare" in flags:
        if prepare is not None:
            prepare(job)
        return
    try:
        system = load(job)
        system.run(job.first, system.settings[0])
    except Exception as error:  # the top frame of this process
        traceback.print_exc()
        _say(answers, {"error": f"{type(error).__name__}: {error}"})
        return
    _say(answers, {"ready": True, "settings": system.settings, "pid": os.getpid()})
    commands = Commands(system)
    for line in sys.stdin:
        _say(answers, commands.answer(json.loads(line)))


class Commands:
    """The commands of a loaded system, and the setting that they use."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._setting = system.settings[0]

    def answer(self, command: dict[str, Any]) -> dict[str, Any]:
        """Carry out one command; an error is an answer, so that the parent can go on."""
        try:
            answers: dict[str, Any] = getattr(self, command.pop("op"))(**command)
            return answers
        except Exception as error:  # the top frame of a request
            traceback.print_exc()
            return {"error": f"{type(error).__name__}: {error}"}

    def use(self, setting: Setting) -> dict[str, Any]:
        """Take a setting as given."""
        self._setting = {**self._setting, **setting}
        return {"setting": self._setting}

    def tune(self, items: str) -> dict[str, Any]:
        """Try every setting on some items and keep the fastest."""
        texts = read(items)
        tried: list[dict[str, Any]] = []
        for setting in self._system.settings:
            if len(self._system.settings) > 1:
                self._system.run(texts[:4], setting)
            tried.append({"setting": setting, "seconds": self._timed(texts, setting)[0]})
        self._setting = min(tried, key=lambda row: row["seconds"])["setting"]
        return {"setting": self._setting, "tried": tried}

    def run(self, items: str, output: str = "") -> dict[str, Any]:
        """Answer all items in one call; write the rows to ``output`` after the clock stopped."""
        texts = read(items)
        gc.collect()
        seconds, rows = self._timed(texts, self._setting)
        if output:
            np.save(output, np.asarray(rows, dtype=np.float32))
        return {"seconds": seconds}

    def each(self, items: str, count: int) -> dict[str, Any]:
        """Answer ``count`` items one after the other; the seconds of each."""
        texts = read(items)
        for text in texts[:8]:
            self._system.run([text], self._setting)
        chosen = [texts[i % len(texts)] for i in range(count)]
        return {"seconds": [self._timed([text], self._setting)[0] for text in chosen]}

    def _timed(self, items: Items, setting: Setting) -> tuple[float, Any]:
        start = time.perf_counter()
        rows = self._system.run(items, setting)
        return time.perf_counter() - start, rows


def read(path: str) -> Items:
    """Read items from a JSON file."""
    items: Items = json.loads(Path(path).read_text(encoding="utf-8"))
    return items


def batch_sizes(*sizes: int, **setting: Any) -> list[Setting]:
    """Return one setting a batch size."""
    return [{"batch_size": size, **setting} for size in sizes or (32, 8, 128)]


def columns(items: Items) -> tuple[list[str], list[str]]:
    """Return the left and right sides of pairs."""
    return [left for left, _ in items], [right for _, right in items]


def _say(stream: Any, answer: dict[str, Any]) -> None:
    stream.write(json.dumps(answer) + "\n")
    stream.flush()
