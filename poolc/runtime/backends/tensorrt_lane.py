"""One stream of an engine: its contexts, buffers and recorded kernels. Not thread-safe.

A lane runs one micro-batch at a time, so that all its contexts share one scratch allocation.
Inputs go through pinned memory to the device and outputs back, on the lane's own stream: another
lane computes meanwhile. Buffers grow to what was needed so far, in steps of the micro-batches that
come: one that does not fit can be halved. A failure leaves a lane that can be used. Knows nothing
about texts or artifacts.
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
from poolc.runtime.backends.tensorrt_contexts import Contexts
from poolc.runtime.backends.tensorrt_recordings import Recordings, Shape
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
    """An engine with its libraries. ``said`` returns what the library said of failures since the
    run began; ``contexts`` are shared by its lanes.
    """

    trt: ModuleType
    cudart: ModuleType
    engine: Any
    tensors: tuple[Tensor, ...]
    said: Callable[[], str]
    contexts: Contexts | None = None


@dataclass(frozen=True, slots=True)
class _Buffer:
    """A tensor's memory on the device, and the pinned memory that it is copied from or to."""

    device: DeviceMemory
    pinned: PinnedMemory

    def free(self) -> None:
        self.device.free()
        self.pinned.free()


class Lane:
    """A stream, and what runs on it. The device has to be the calling thread's current one."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._cudart = opened.cudart
        self._new_contexts = opened.contexts or Contexts(opened.trt, opened.engine)
        flags = self._cudart.cudaStreamNonBlocking
        self._stream = call(self._cudart, "cudaStreamCreateWithFlags", flags)
        self._recordings = Recordings(self._cudart, self._stream)
        self._scratch: DeviceMemory | None = None
        self._buffers: dict[str, _Buffer] = {}
        self._contexts: dict[int, Any] = {}  # by profile
        self._unrecorded: tuple[Shape, Any] | None = None

    @property
    def has_to_record(self) -> bool:
        """Whether what ran last is to be recorded: see ``record``."""
        return self._unrecorded is not None

    def run(self, arrays: Arrays, place: Placement, rows: int) -> dict[str, npt.NDArray[Any]]:
        """Run a micro-batch that is padded to ``place``; return the first ``rows`` of each output.

        Raises OutOfMemoryError, or BackendError with what the library said.
        """
        self._unrecorded = None
        try:
            return self._run(arrays, place, rows)
        except BaseException:
            self._unrecorded = None
            # What was enqueued before must not find its memory given to others.
            self._cudart.cudaStreamSynchronize(self._stream)
            raise

    def record(self) -> None:
        """Record what ran last for later micro-batches of its shape, where that is possible.

        Apart from ``run``, since nothing of the process may run meanwhile (``turns.py``), and the
        run has its answer whether or not this fails.
        """
        if self._unrecorded is not None:
            shape, context = self._unrecorded
            self._unrecorded = None
            self._recordings.record(shape, context)

    def release(self) -> bool:
        """Free what later runs make again; return whether that was anything. Fails on no device."""
        held = bool(self._buffers or self._contexts or self._scratch or self._recordings)
        self._unrecorded = None
        self._recordings.forget()
        self._contexts.clear()
        for buffer in self._buffers.values():
            buffer.free()
        self._buffers.clear()
        if self._scratch is not None:
            self._scratch.free()
            self._scratch = None
        return held

    def close(self) -> None:
        """Free everything; contexts go before the engine. Fails on no device."""
        self.release()
        self._cudart.cudaStreamDestroy(self._stream)

    def _run(self, arrays: Arrays, place: Placement, rows: int) -> dict[str, npt.NDArray[Any]]:
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

    def _reserve(self, tensor: Tensor, place: Placement) -> None:
        needed = tensor.num_bytes(place.rows, place.seq)
        held = self._buffers.get(tensor.name)
        if held is not None and held.device.size_bytes >= needed:
            return
        self._recordings.forget()  # their kernels have the old address
        if held is not None:
            del self._buffers[tensor.name]
            held.free()
        device = DeviceMemory(self._cudart, needed)
        try:
            pinned = PinnedMemory(self._cudart, needed)
        except BaseException:  # whose traceback would keep it
            device.free()
            raise
        self._buffers[tensor.name] = _Buffer(device, pinned)

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
        if self._recordings.replay(shape):
            return
        if not place.recorded or not self._recordings.may_have(shape):
            if place.profile not in self._contexts:
                self._contexts[place.profile] = self._new_context(place.profile, recorded=False)
            self._launch(self._contexts[place.profile], place)
            return
        # A recording keeps its context's shapes and addresses: the context is its own. It runs
        # before it is recorded, since what it does once must not be.
        context = self._new_context(place.profile, recorded=True)
        self._launch(context, place)
        self._unrecorded = shape, context

    def _new_context(self, profile: int, *, recorded: bool) -> Any:
        context = self._new_contexts.new(recorded=recorded)
        if context is None:
            raise self._failure("no execution context could be made")
        if not context.set_optimization_profile_async(profile, int(self._stream)):
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
        try:
            missing = context.infer_shapes()
        except RuntimeError as error:  # of the bindings; what it says is the library's
            raise self._failure(f"shapes cannot be inferred ({error})") from error
        if missing:
            raise self._failure(f"shapes of {', '.join(missing)} are missing")
        scratch = self._scratch_of(context.update_device_memory_size_for_shapes())
        context.set_device_memory(scratch.address, scratch.size_bytes)
        if not context.execute_async_v3(int(self._stream)):
            raise self._failure("the engine did not run")

    def _scratch_of(self, size_bytes: int) -> DeviceMemory:
        if self._scratch is None or self._scratch.size_bytes < size_bytes:
            self._recordings.forget()  # their kernels have the old address
            if self._scratch is not None:
                call(self._cudart, "cudaStreamSynchronize", self._stream)
                self._scratch.free()
                self._scratch = None
            self._scratch = DeviceMemory(self._cudart, size_bytes)
        return self._scratch

    def _failure(self, what: str) -> Exception:
        reason = self._opened.said()
        told = f"{what}: {reason}" if reason else what
        if "out of memory" in reason.lower() or "outofmemory" in reason.lower():
            return OutOfMemoryError(told)
        return BackendError(told)


def tensors_of(inputs: Sequence[Any], outputs: Sequence[Any]) -> tuple[Tensor, ...]:
    """Return the tensors of a manifest's graph."""
    return tuple(
        Tensor(info.name, np.dtype(info.dtype), tuple(info.shape), is_input)
        for infos, is_input in ((inputs, True), (outputs, False))
        for info in infos
    )
