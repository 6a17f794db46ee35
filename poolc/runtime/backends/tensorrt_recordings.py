"""Kernels of a stream that were recorded once and are replayed (CUDA graphs), by shape.

Recording is an optimisation: a shape that cannot be recorded is launched kernel by kernel from then
on, and nothing fails. Not thread-safe. Knows nothing about buffers.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

from poolc.runtime.backends.cuda_device import call

Shape = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Recorded:
    """A graph of kernels and the context whose addresses it has, which it must not outlive."""

    executable: Any
    graph: Any
    context: Any


class Recordings:
    """What was recorded on one stream."""

    def __init__(self, cudart: ModuleType, stream: Any) -> None:
        self._cudart, self._stream = cudart, stream
        self._made: dict[Shape, _Recorded] = {}
        self._refused: set[Shape] = set()

    def __len__(self) -> int:
        return len(self._made)

    def may_have(self, shape: Shape) -> bool:
        """Whether a shape is recorded, or can be for all that is known."""
        return shape not in self._refused

    def replay(self, shape: Shape) -> bool:
        """Launch what was recorded for a shape; False where nothing was."""
        recorded = self._made.get(shape)
        if recorded is None:
            return False
        call(self._cudart, "cudaGraphLaunch", recorded.executable, self._stream)
        return True

    def record(self, shape: Shape, context: Any) -> None:
        """Record the kernels of a context, which has run in this shape and keeps its addresses.

        Nothing else may run meanwhile: see ``turns.py``.
        """
        try:
            recorded = self._record(context)
        except Exception:  # CUDA's and the bindings' share no base; what it ran has its answer
            recorded = None
        if recorded is None:
            self._refused.add(shape)
        else:
            self._made[shape] = recorded

    def forget(self) -> None:
        """Destroy what was recorded, on a device that is lost as well as that can be done."""
        if self._made:
            self._cudart.cudaStreamSynchronize(self._stream)
        for recorded in self._made.values():
            self._cudart.cudaGraphExecDestroy(recorded.executable)
            self._cudart.cudaGraphDestroy(recorded.graph)
        self._made.clear()

    def _record(self, context: Any) -> _Recorded | None:
        # TensorRT-RTX knows of engines that allocate while they run.
        if hasattr(context, "is_stream_capturable") and not context.is_stream_capturable(
            int(self._stream)
        ):
            return None
        graph = self._capture(context)
        if graph is None:
            return None
        try:
            executable = call(self._cudart, "cudaGraphInstantiate", graph, 0)
        except BaseException:
            self._cudart.cudaGraphDestroy(graph)
            raise
        return _Recorded(executable, graph, context)

    def _capture(self, context: Any) -> Any:
        """Return a graph of what a context enqueues, or None; the stream is as before after it."""
        mode = self._cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        call(self._cudart, "cudaStreamBeginCapture", self._stream, mode)
        ran = False
        try:
            ran = bool(context.execute_async_v3(int(self._stream)))
        finally:
            code, graph = self._cudart.cudaStreamEndCapture(self._stream)
            if not ran and not int(code):
                self._cudart.cudaGraphDestroy(graph)
        return graph if ran and not int(code) else None
