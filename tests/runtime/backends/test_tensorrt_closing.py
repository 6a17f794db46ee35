"""Closing engines: while they run, twice, from several threads, and on a device that is lost."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poolc.errors import BackendError
from poolc.model_cache.artifact import open_artifact
from poolc.runtime.backends.tensorrt import TensorRTBackend
from poolc.runtime.engine import Engine
from tests.runtime.backends import fake_tensorrt
from tests.runtime.backends.fake_cudart import Code, FakeCudart
from tests.runtime.backends.fakes import Fakes

LOST = Code(719, "cudaErrorLaunchFailure")


def lose(cudart: FakeCudart) -> None:
    """Let every call fail, as they do once kernels went wrong."""
    for name in dir(cudart):
        if name.startswith("cuda") and callable(getattr(cudart, name)):
            setattr(cudart, name, lambda *_: (LOST,))


def feeds(backend: TensorRTBackend, rows: int = 1, seq: int = 4) -> dict[str, Any]:
    names = [value.name for value in backend.artifact.manifest.graphs["main"].inputs]
    return {name: np.ones((rows, seq), np.int64) for name in names}


@contextmanager
def without_gc() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def test_a_lost_device_is_closed(fakes: Fakes, compiled: Path) -> None:
    """Twice as well, and nobody waits for its lanes afterwards."""
    backend = TensorRTBackend(open_artifact(compiled))
    asked = feeds(backend)
    backend.run("main", asked)
    lose(fakes.cudart)
    with pytest.raises(BackendError, match="cudaErrorLaunchFailure"):
        backend.run("main", asked)
    with ThreadPoolExecutor(1) as threads:
        for _ in range(2):
            threads.submit(backend.close).result(30)
        with pytest.raises(BackendError, match="was closed: load it again"):
            threads.submit(backend.run, "main", asked).result(30)


def test_closing_waits_for_what_runs(
    fakes: Fakes, compiled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From two threads at once; what waits for a lane meanwhile is told that it was closed."""
    backend = TensorRTBackend(open_artifact(compiled))
    asked = feeds(backend)
    running, go_on = threading.Semaphore(0), threading.Event()
    execute = fake_tensorrt.IExecutionContext.execute_async_v3

    def slow(self: Any, stream_handle: int) -> bool:
        running.release()
        assert go_on.wait(30)
        return execute(self, stream_handle)

    monkeypatch.setattr(fake_tensorrt.IExecutionContext, "execute_async_v3", slow)
    with ThreadPoolExecutor(5) as threads:
        runs = [threads.submit(backend.run, "main", asked) for _ in range(2)]
        for _ in range(2):
            assert running.acquire(timeout=30)
        closed = [threads.submit(backend.close) for _ in range(2)]
        with pytest.raises(TimeoutError):
            closed[0].result(0.3)
        late = threads.submit(backend.run, "main", asked)
        go_on.set()
        for one in runs:
            assert next(iter(one.result(30).values())).shape[0] == 1
        with pytest.raises(BackendError, match="was closed: load it again"):
            late.result(30)
        for done in closed:
            done.result(30)
    assert (fakes.cudart.held, fakes.cudart.pinned) == (0, 0)


def test_an_engine_that_was_dropped_frees_its_memory_at_once(fakes: Fakes, compiled: Path) -> None:
    """A server freezes what it loaded: garbage in a cycle would stay for ever."""
    backend = TensorRTBackend(open_artifact(compiled))
    backend.run("main", feeds(backend))
    opened = weakref.ref(backend._plans["engine.plan"]._engine)
    assert fakes.cudart.held and fakes.cudart.pinned
    with without_gc():
        del backend
        assert (fakes.cudart.held, fakes.cudart.pinned) == (0, 0)
        assert not fakes.cudart._graphs and opened() is None


def test_a_restart_frees_what_was_there(fakes: Fakes, compiled: Path) -> None:
    engine = Engine(open_artifact(compiled))
    engine.embed(["a"])
    held = fakes.cudart.held, fakes.cudart.pinned
    with without_gc():
        engine.restart()
        engine.embed(["a"])
        assert (fakes.cudart.held, fakes.cudart.pinned) == held
        engine.close()
        assert (fakes.cudart.held, fakes.cudart._graphs) == (0, {})
