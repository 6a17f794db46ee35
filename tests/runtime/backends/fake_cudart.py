"""The CUDA runtime of cuda-python as it is on a machine with a GPU, but in the host's memory.

What it has are names of the real one, which ``test_tensorrt_names.py`` checks. It is strict where a
device would answer with wrong numbers: copies outside of what is allocated, launches of what refers
to freed memory, and calls that a recording forbids are errors.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any


class Code(int):
    """An error's number with its name."""

    name: str

    def __new__(cls, number: int, name: str) -> Code:
        made = super().__new__(cls, number)
        made.name = name
        return made


SUCCESS = Code(0, "cudaSuccess")
INVALID_VALUE = Code(1, "cudaErrorInvalidValue")
OUT_OF_MEMORY = Code(2, "cudaErrorMemoryAllocation")
NO_DEVICE = Code(100, "cudaErrorNoDevice")


class Stream(int):
    """A stream's handle."""


class FakeCudart:
    """Stands for ``cuda.bindings.runtime``. ``room`` is the device's memory in bytes."""

    cudaStreamNonBlocking = 1
    cudaError_t = SimpleNamespace(cudaErrorMemoryAllocation=2)
    cudaMemcpyKind = SimpleNamespace(
        cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2, cudaMemcpyDeviceToDevice=3
    )
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)

    def __init__(self) -> None:
        self._device: dict[int, Any] = {}
        self._host: dict[int, Any] = {}
        self._streams = 0
        self._recording: dict[int, list[Callable[[], None]]] = {}
        self._graphs: dict[int, list[Callable[[], None]]] = {}
        self.room: int | None = None
        self.devices = 1
        self.selected: list[int] = []  # by cudaSetDevice, in order
        self.name = b"NVIDIA H200"
        self.capability = (9, 0)
        self.driver = 13010
        self.launches = 0
        self.recordings = 0
        self.can_record = True
        self.copied: list[tuple[str, int]] = []

    @property
    def held(self) -> int:
        """Bytes that are allocated on the device."""
        return sum(ctypes.sizeof(block) for block in self._device.values())

    @property
    def pinned(self) -> int:
        """Bytes of the host that are pinned."""
        return sum(ctypes.sizeof(block) for block in self._host.values())

    def compute(self, stream: int, work: Callable[[], None]) -> None:
        """Do what a kernel does, or record it: what an engine calls."""
        if stream in self._recording:
            self._recording[stream].append(work)
        else:
            work()

    def block(self, address: int, size: int) -> int:
        """Return an address of the device after checking that so many bytes are allocated there."""
        for start, held in self._device.items():
            if start <= address and address + size <= start + ctypes.sizeof(held):
                return address
        raise AssertionError(f"{size} bytes at {address:#x} are not allocated")

    def cudaGetDeviceCount(self) -> tuple[Any, ...]:
        return (SUCCESS, self.devices) if self.devices else (NO_DEVICE, 0)

    def cudaGetDeviceProperties(self, index: int) -> tuple[Any, ...]:
        major, minor = self.capability
        return SUCCESS, SimpleNamespace(name=self.name, major=major, minor=minor)

    def cudaDriverGetVersion(self) -> tuple[Any, ...]:
        return SUCCESS, self.driver

    def cudaSetDevice(self, index: int) -> tuple[Any, ...]:
        self.selected.append(index)
        return (SUCCESS if 0 <= index < self.devices else INVALID_VALUE,)

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:
        if self.room is not None and self.held + size > self.room:
            return OUT_OF_MEMORY, 0
        block = (ctypes.c_uint8 * size)()
        self._device[ctypes.addressof(block)] = block
        return SUCCESS, ctypes.addressof(block)

    def cudaFree(self, address: int) -> tuple[Any, ...]:
        del self._device[address]
        return (SUCCESS,)

    def cudaMallocHost(self, size: int) -> tuple[Any, ...]:
        block = (ctypes.c_uint8 * size)()
        self._host[ctypes.addressof(block)] = block
        return SUCCESS, ctypes.addressof(block)

    def cudaFreeHost(self, address: int) -> tuple[Any, ...]:
        del self._host[address]
        return (SUCCESS,)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        self._streams += 1
        return SUCCESS, Stream(self._streams)

    def cudaStreamDestroy(self, stream: int) -> tuple[Any, ...]:
        return (SUCCESS,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any, ...]:
        return (INVALID_VALUE if stream in self._recording else SUCCESS,)

    def cudaMemcpy(self, to: int, source: int, size: int, kind: int) -> tuple[Any, ...]:
        assert kind == 1
        ctypes.memmove(self.block(to, size), source, size)
        return (SUCCESS,)

    def cudaDeviceSynchronize(self) -> tuple[Any, ...]:
        return (SUCCESS,)

    def cudaMemcpyAsync(
        self, to: int, source: int, size: int, kind: int, stream: int
    ) -> tuple[Any, ...]:
        on_device = {1: [to], 2: [source], 3: [to, source]}[kind]
        for address in on_device:
            self.block(address, size)
        for host in {to, source} - set(on_device):
            assert any(
                start <= host and host + size <= start + ctypes.sizeof(held)
                for start, held in self._host.items()
            ), "not pinned"
        self.copied.append(({1: "in", 2: "out", 3: "within"}[kind], size))

        def move() -> None:
            ctypes.memmove(to, source, size)

        self.compute(stream, move)
        return (SUCCESS,)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[Any, ...]:
        assert stream not in self._recording
        self._recording[stream] = []
        return (SUCCESS,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Any, ...]:
        work = self._recording.pop(stream)
        if not self.can_record:
            return INVALID_VALUE, 0
        self.recordings += 1
        self._graphs[self.recordings] = work
        return SUCCESS, self.recordings

    def cudaGraphInstantiate(self, graph: int, flags: int) -> tuple[Any, ...]:
        return SUCCESS, -graph

    def cudaGraphLaunch(self, executable: int, stream: int) -> tuple[Any, ...]:
        self.launches += 1
        for work in self._graphs[-executable]:
            self.compute(stream, work)
        return (SUCCESS,)

    def cudaGraphExecDestroy(self, executable: int) -> tuple[Any, ...]:
        assert -executable in self._graphs
        return (SUCCESS,)

    def cudaGraphDestroy(self, graph: int) -> tuple[Any, ...]:
        del self._graphs[graph]
        return (SUCCESS,)
