"""Recording kernels is an optimisation: where it fails, everything is answered all the same."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poolc.compiler.events import Progress
from poolc.compiler.pipeline import Request, compile_model
from poolc.model_cache.store import Store
from poolc.runtime.backends.turns import turns
from poolc.runtime.engine import Engine
from poolc.spec import CompileOptions, Target
from tests.runtime.backends import fake_tensorrt
from tests.runtime.backends.fake_cudart import OUT_OF_MEMORY, Code
from tests.runtime.backends.fake_tensorrt_rtx import FakeTensorRTRtx
from tests.runtime.backends.fakes import Fakes, install

NOT_SUPPORTED = Code(801, "cudaErrorNotSupported")


def cannot_begin(fakes: Fakes, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fakes.cudart, "cudaStreamBeginCapture", lambda stream, mode: (NOT_SUPPORTED,))


def cannot_end(fakes: Fakes, patch: pytest.MonkeyPatch) -> None:
    fakes.cudart.can_record = False


def cannot_instantiate(fakes: Fakes, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fakes.cudart, "cudaGraphInstantiate", lambda *_: (NOT_SUPPORTED, None))


def has_no_room(fakes: Fakes, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fakes.cudart, "cudaGraphInstantiate", lambda *_: (OUT_OF_MEMORY, None))


def _while_recording(fakes: Fakes, patch: pytest.MonkeyPatch, fail: Callable[[], bool]) -> None:
    execute = fake_tensorrt.IExecutionContext.execute_async_v3

    def run(self: Any, stream_handle: int) -> bool:
        return fail() if stream_handle in fakes.cudart._recording else execute(self, stream_handle)

    patch.setattr(fake_tensorrt.IExecutionContext, "execute_async_v3", run)


def does_not_run(fakes: Fakes, patch: pytest.MonkeyPatch) -> None:
    _while_recording(fakes, patch, lambda: False)


def raises(fakes: Fakes, patch: pytest.MonkeyPatch) -> None:
    def fail() -> bool:
        raise RuntimeError("of the bindings")

    _while_recording(fakes, patch, fail)


@pytest.mark.parametrize(
    "breaks", [cannot_begin, cannot_end, cannot_instantiate, has_no_room, does_not_run, raises]
)
def test_a_recording_that_fails_fails_no_request(
    breaks: Callable[[Fakes, pytest.MonkeyPatch], None],
    engine: Engine,
    fakes: Fakes,
    embedder: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And is not tried again; the stream records no more, and no graph is left."""
    with monkeypatch.context() as patch:
        breaks(fakes, patch)
        np.testing.assert_allclose(engine.embed(["a"]), embedder.embed(["a"]), atol=2e-6)
        assert not fakes.cudart._recording and not fakes.cudart._graphs
    recorded = fakes.cudart.recordings
    for _ in range(2):
        np.testing.assert_allclose(engine.embed(["a"]), embedder.embed(["a"]), atol=2e-6)
    assert (fakes.cudart.recordings, fakes.cudart.launches) == (recorded, 0)
    fakes.cudart.can_record = True
    for _ in range(2):  # other shapes are
        engine.embed(["how do I reset my password?"] * 2)
    assert (fakes.cudart.recordings, fakes.cudart.launches) == (recorded + 1, 1)


def test_a_model_for_tensorrt_rtx_is_recorded_once_it_was_compiled(
    tiny_embedder_source: Path, embedder: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cudart = install(monkeypatch).cudart
    trt = FakeTensorRTRtx(cudart)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", trt)
    cudart.capability = (8, 9)
    request = Request(str(tiny_embedder_source), CompileOptions(target=Target.TENSORRT_RTX))
    made = compile_model(request, Store(tmp_path), Progress(lambda event: None))
    trt.made.clear()
    engine = Engine(made)
    for _ in range(2):
        np.testing.assert_allclose(engine.embed(["a"]), embedder.embed(["a"]), atol=2e-6)
        engine.embed(["bread needs salt " * 9] * 300)
    assert cudart.launches
    # A lane has one for the shape that it recorded, one for all others.
    assert {specialization for _, specialization, _ in trt.made} == {"lazy", "eager"}
    assert len({cache for _, _, cache in trt.made}) == 1
    engine.close()
    assert (cudart.held, cudart.pinned) == (0, 0)


def test_while_a_model_is_opened_nothing_is_recorded_and_all_is_answered(
    engine: Engine, fakes: Fakes
) -> None:
    with turns.opening():
        engine.embed(["a"])
    assert fakes.cudart.recordings == 0
    engine.embed(["a"])
    assert fakes.cudart.recordings == 1


def test_while_another_library_records_nothing_runs_or_is_opened(
    engine: Engine, fakes: Fakes
) -> None:
    """ONNX Runtime's recordings are broken by what any thread allocates."""
    before = fakes.cudart.held, fakes.trt.contexts
    with ThreadPoolExecutor(2) as threads:
        with turns.alone_unless_opening():
            asked = threads.submit(engine.embed, ["a"])
            opened = threads.submit(Engine, engine.artifact)
            for one in (asked.result, opened.result):
                with pytest.raises(TimeoutError):
                    one(0.3)
            assert (fakes.cudart.held, fakes.trt.contexts) == before
        assert asked.result(30).shape[0] == 1
        opened.result(30).close()


def test_nothing_else_runs_while_kernels_are_recorded(
    engine: Engine, fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = fakes.cudart.cudaStreamBeginCapture
    running = []

    def count(stream: int, mode: int) -> Any:
        running.append(turns._under_way["running"])
        return begin(stream, mode)

    monkeypatch.setattr(fakes.cudart, "cudaStreamBeginCapture", count)
    engine.embed(["a"])
    assert running == [0]
