"""Loads artifacts for cuda and runs them, where nothing is computed; prints what happened as JSON.

    python -m tests.runtime.backends.silent_cuda.program QUESTION ARTIFACT...

Runs beside ONNX Runtime's GPU build, which the environment of the suite does not have.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from poolc.errors import PoolcError
from poolc.model_cache.artifact import open_artifact
from poolc.runtime.engine import Engine

_RUNTIME = "libcudart.so.13"
_THREADS, _OPENINGS = 3, 5
_SHAPES = ((1, 9), (3, 40), (64, 200))  # the last one is too large to be recorded


def opened(path: str, device: str | None = None) -> Engine:
    return Engine(open_artifact(Path(path)), device=device)


def run(engine: Engine, output_set: str, rows: int, length: int) -> None:
    """Run a micro-batch of token ids."""
    (sequence,) = engine.prepare(engine.spec.tasks[0], [[5] * length], _params()).sequences
    found = engine.execute([sequence] * rows, output_set)
    assert len(found) == rows


def _params() -> Any:
    from poolc.runtime.request import Params

    return Params(prompt="", truncate=True, add_special_tokens=False)


def graphs(path: str) -> Any:
    """Run every graph in each shape; return how many shapes of each were recorded."""
    engine = opened(path)
    recorded = {}
    for output_set in engine.artifact.manifest.graphs:
        for rows, length in _SHAPES:
            run(engine, output_set, rows, length)
        backend: Any = engine._backend
        recorded[output_set] = len(backend._models[output_set]._buckets)
    engine.close()
    return recorded


def third_device(path: str) -> Any:
    opened(path, "cuda:2")


def room_for_one(path: str) -> Any:
    """Answer a short text where the weights fit once; return how many shapes were recorded."""
    engine = opened(path)
    for _ in range(3):
        run(engine, "main", 1, 9)
    backend: Any = engine._backend
    return len(backend._models["main"]._buckets)


def restart(path: str) -> Any:
    """Return the bytes held when a model is open, was opened anew, and was closed."""
    engine = opened(path)
    gc.freeze()  # as a server does
    held = []
    run(engine, "main", 1, 9)
    held.append(_used())
    engine.restart()
    run(engine, "main", 1, 9)
    held.append(_used())
    engine.close()
    held.append(_used())
    return held


def held_by_a_run(path: str) -> Any:
    """Return the bytes held after a close while a micro-batch is under way, and after it."""
    engine = opened(path)
    backend: Any = engine._backend
    running = backend._models["main"]
    engine.close()
    del backend
    held = [_used()]
    del running
    return [*held, _used()]


def every_set(path: str) -> Any:
    """Return the bytes held when each graph has run, recorded and not."""
    engine = opened(path)
    for output_set in engine.artifact.manifest.graphs:
        for rows, length in _SHAPES[:2]:
            run(engine, output_set, rows, length)
    return _used()


def lost(path: str) -> Any:
    """Lose the device; return what a run and a restart say then."""
    engine = opened(path)
    run(engine, "main", 1, 9)
    ctypes.CDLL(_RUNTIME).silent_lose(0)
    said = []
    calls: tuple[Callable[[], None], ...] = (lambda: run(engine, "main", 1, 9), engine.restart)
    for call in calls:
        try:
            call()
        except PoolcError as error:
            said.append(f"{type(error).__name__}: {error}")
    return said


def opening(path: str) -> Any:
    """Open, record, run and close a model in several threads at a time; return the errors."""
    errors = list[str]()

    def use() -> None:
        for _ in range(_OPENINGS):
            try:
                engine = opened(path)
                for rows, length in _SHAPES:
                    run(engine, "main", rows, length)
                run(engine, "tokens", 1, 9)
                engine.close()
            except PoolcError as error:
                errors.append(str(error))

    threads = [threading.Thread(target=use) for _ in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def _used() -> int:
    left, room = ctypes.c_size_t(), ctypes.c_size_t()
    ctypes.CDLL(_RUNTIME).cudaMemGetInfo(ctypes.byref(left), ctypes.byref(room))
    return room.value - left.value


def main() -> None:
    """Answer one question."""
    question, *paths = sys.argv[1:]
    try:
        answer = {"answer": globals()[question](*paths)}
    except PoolcError as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
