"""One stream of an engine: its contexts, buffers and recorded graphs. Not thread-safe.

A lane runs one micro-batch at a time, so that all its contexts share one scratch allocation.
Inputs go through pinned memory to the device and outputs back, on the lane's own stream: another
lane computes meanwhile. Buffers grow to what was needed so far, in steps of the micro-batches that
come: one that does not fit can be halved. Knows nothing about texts or artifacts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from poolc.errors import BackendError
from poolc.runtime.backends.cuda_device import (
    DeviceMemory,
    OutOfMemoryError,
    PinnedMemory,
    call,
)
from poolc.runtime.profiles import Placement

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of an engine; a str in ``shape`` is "batch" or "seq"."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str, ...]
    is_input: bool

    def sized(self, rows: int, seq: int) -> tuple[int, ...]:
        """Return the shape of a micro-batch."""
        sizes = {"batch": rows, "seq": seq}
        return tuple(sizes[size] if isinstance(size, str) else size for size in self.shape)

    def num_bytes(self, rows: int, seq: int) -> int:
        """Return the bytes of a micro-batch."""
        return int(np.prod(self.sized(rows, seq))) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Opened:
    """An engine with its libraries. ``said`` returns what the library said of the last failure."""

    trt: ModuleType
    cudart: ModuleType
    engine: Any
    tensors: tuple[Tensor, ...]
    said: Callable[[], str]


@dataclass(slots=True)
class _Buffer:
    """A tensor's memory on the device, and the pinned memory that it is copied from or to."""

    device: DeviceMemory
    pinned: PinnedMemory


class Lane:
    """A stream, and what runs on it. The device has to be the calling thread's current one."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._cudart = opened.cudart
        flags = self._cudart.cudaStreamNonBlocking
        self._stream = call(self._cudart, "cudaStreamCreateWithFlags", flags)
        self._scratch: DeviceMemory | None = None
        self._buffers: dict[str, _Buffer] = {}
        self._contexts: dict[int, Any] = {}  # by profile
        self._recorded: dict[tuple[int, int], _Recorded] = {}  # by shape
        self._unrecordable: set[tuple[int, int]] = set()

    def run(self, arrays: Arrays, place: Placement, rows: int) -> dict[str, npt.NDArray[Any]]:
        """Run a micro-batch that is padded to ``place``; return the first ``rows`` of each output.

        Raises OutOfMemoryError, or BackendError with what the library said.
        """
        tensors = self._opened.tensors
        for tensor in tensors:
            self._reserve(tensor, place)
        inputs = [tensor for tensor in tensors if tensor.is_input]
        for tensor in inputs:
            self._send(tensor, arrays[tensor.name])
        self._compute(place)
        outputs = [tensor for tensor in tensors if not tensor.is_input]
        for tensor in outputs:
            self._fetch(tensor, rows, place.seq)
        call(self._cudart, "cudaStreamSynchronize", self._stream)
        return {tensor.name: self._copy(tensor, rows, place.seq) for tensor in outputs}

    def close(self) -> None:
        """Free everything; contexts go before the engine."""
        self._forget_recorded()
        self._contexts.clear()
        for buffer in self._buffers.values():
            buffer.device.free()
            buffer.pinned.free()
        self._buffers.clear()
        if self._scratch is not None:
            self._scratch.free()
        self._cudart.cudaStreamDestroy(self._stream)

    def _reserve(self, tensor: Tensor, place: Placement) -> None:
        needed = tensor.num_bytes(place.rows, place.seq)
        held = self._buffers.get(tensor.name)
        if held is not None and held.device.size_bytes >= needed:
            return
        self._forget_recorded()  # their kernels have the old address
        if held is not None:
            del self._buffers[tensor.name]
            held.device.free()
            held.pinned.free()
        device = DeviceMemory(self._cudart, needed)
        self._buffers[tensor.name] = _Buffer(device, PinnedMemory(self._cudart, needed))

    def _send(self, tensor: Tensor, array: npt.NDArray[Any]) -> None:
        buffer = self._buffers[tensor.name]
        staged = buffer.pinned.array(array.shape, tensor.dtype)
        staged[...] = array  # ids are far from the limits of int32
        self._copy_async(
            buffer.device.address, buffer.pinned.address, staged.nbytes, "HostToDevice"
        )

    def _fetch(self, tensor: Tensor, rows: int, seq: int) -> None:
        buffer, size = self._buffers[tensor.name], tensor.num_bytes(rows, seq)
        self._copy_async(buffer.pinned.address, buffer.device.address, size, "DeviceToHost")

    def _copy_async(self, to: int, source: int, size: int, kind: str) -> None:
        direction = getattr(self._cudart.cudaMemcpyKind, f"cudaMemcpy{kind}")
        call(self._cudart, "cudaMemcpyAsync", to, source, size, direction, self._stream)

    def _copy(self, tensor: Tensor, rows: int, seq: int) -> npt.NDArray[Any]:
        return self._buffers[tensor.name].pinned.array(tensor.sized(rows, seq), tensor.dtype).copy()

    def _compute(self, place: Placement) -> None:
        shape = (place.rows, place.seq)
        recorded = self._recorded.get(shape)
        if recorded is not None:
            call(self._cudart, "cudaGraphLaunch", recorded.executable, self._stream)
            return
        if not place.recorded or shape in self._unrecordable:
            if place.profile not in self._contexts:
                self._contexts[place.profile] = self._new_context(place.profile)
            self._launch(self._contexts[place.profile], place)
            return
        # A recording keeps its context's shapes and addresses: the context is its own.
        context = self._new_context(place.profile)
        self._launch(context, place)  # what a context does once must not be recorded
        self._record(context, place)

    def _new_context(self, profile: int) -> Any:
        strategy = self._opened.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        context = self._opened.engine.create_execution_context(strategy)
        if context is None:
            raise self._failure("no execution context could be made")
        if not context.set_optimization_profile_async(profile, self._stream):
            raise self._failure(f"profile {profile} could not be chosen")
        return context

    def _launch(self, context: Any, place: Placement) -> None:
        for tensor in self._opened.tensors:
            if tensor.is_input and not context.set_input_shape(
                tensor.name, tensor.sized(place.rows, place.seq)
            ):
                raise self._failure(f"{tensor.name} cannot have {place.rows} x {place.seq}")
            address = self._buffers[tensor.name].device.address
            if not context.set_tensor_address(tensor.name, address):
                raise self._failure(f"{tensor.name} could not be bound")
        missing = context.infer_shapes()
        if missing:
            raise self._failure(f"shapes of {', '.join(missing)} are missing")
        scratch = self._scratch_of(context.update_device_memory_size_for_shapes())
        context.set_device_memory(scratch.address, scratch.size_bytes)
        self._execute(context)

    def _execute(self, context: Any) -> None:
        if not context.execute_async_v3(int(self._stream)):
            raise self._failure("the engine did not run")

    def _scratch_of(self, size_bytes: int) -> DeviceMemory:
        if self._scratch is None or self._scratch.size_bytes < size_bytes:
            self._forget_recorded()  # their kernels have the old address
            if self._scratch is not None:
                call(self._cudart, "cudaStreamSynchronize", self._stream)
                self._scratch.free()
                self._scratch = None
            self._scratch = DeviceMemory(self._cudart, size_bytes)
        return self._scratch

    def _record(self, context: Any, place: Placement) -> None:
        """Record a context's kernels for later micro-batches of the shape, where they can be."""
        mode = self._cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        call(self._cudart, "cudaStreamSynchronize", self._stream)
        call(self._cudart, "cudaStreamBeginCapture", self._stream, mode)
        ran = context.execute_async_v3(int(self._stream))
        shape = (place.rows, place.seq)
        try:
            graph = call(self._cudart, "cudaStreamEndCapture", self._stream)
        except BackendError:
            self._unrecordable.add(shape)
            return
        if not ran:
            call(self._cudart, "cudaGraphDestroy", graph)
            self._unrecordable.add(shape)
            return
        executable = call(self._cudart, "cudaGraphInstantiate", graph, 0)
        self._recorded[shape] = _Recorded(executable, graph, context)

    def _forget_recorded(self) -> None:
        if self._recorded:
            call(self._cudart, "cudaStreamSynchronize", self._stream)
        for recorded in self._recorded.values():
            self._cudart.cudaGraphExecDestroy(recorded.executable)
            self._cudart.cudaGraphDestroy(recorded.graph)
        self._recorded.clear()

    def _failure(self, what: str) -> Exception:
        reason = self._opened.said()
        if "out of memory" in reason.lower() or "outofmemory" in reason.lower():
            return OutOfMemoryError(reason)
        return BackendError(f"{what}: {reason}" if reason else what)


@dataclass(frozen=True, slots=True)
class _Recorded:
    """A graph of kernels and the context whose addresses it has, which it must not outlive."""

    executable: Any
    graph: Any
    context: Any


def tensors_of(inputs: Sequence[Any], outputs: Sequence[Any]) -> tuple[Tensor, ...]:
    """Return the tensors of a manifest's graph."""
    return tuple(
        Tensor(info.name, np.dtype(info.dtype), tuple(info.shape), is_input)
        for infos, is_input in ((inputs, True), (outputs, False))
        for info in infos
    )
