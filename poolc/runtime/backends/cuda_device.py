"""NVIDIA GPUs through cuda-python (the package cuda-bindings): which there are, and their memory.

Owns the error codes of the CUDA runtime: every call goes through ``call``. Knows nothing about
engines. Imports without a GPU or a driver, and says which of them is missing.
"""

from __future__ import annotations

import ctypes
import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from poolc.errors import BackendError, InvalidOption, MissingDependency
from poolc.model_cache.host import EngineHost
from poolc.runtime.backends.linked_cudart import LinkedCudart


class OutOfMemoryError(Exception):
    """The device has no room for what was asked."""


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU; ``driver`` is the CUDA version that the driver is for, like "13.0"."""

    index: int
    name: str
    compute_capability: str
    driver: str

    def host(self, version: str) -> EngineHost:
        """Return what an engine finds here, with a version of its library."""
        return EngineHost(version, self.compute_capability, self.name, self.driver)


def import_cudart() -> ModuleType:
    """Import the CUDA runtime. Raises MissingDependency."""
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except (ImportError, OSError, RuntimeError) as error:
        raise MissingDependency(
            f"engines are run through cuda-bindings, which cannot be imported ({error}): pip "
            'install "poolc[tensorrt]"'
        ) from error


def find_device(index: int = 0) -> Device:
    """Return a GPU.

    Raises MissingDependency without any, InvalidOption for one that is not there.
    """
    cudart = import_cudart()
    try:
        count = int(call(cudart, "cudaGetDeviceCount"))
    except (BackendError, RuntimeError) as error:  # the latter where there is no driver's library
        raise MissingDependency(
            f"no NVIDIA GPU can be used ({error}): install its driver, or run where it is"
        ) from error
    if index >= count:
        raise no_such_device(index, count)
    found = call(cudart, "cudaGetDeviceProperties", index)
    name = found.name.decode() if isinstance(found.name, bytes) else str(found.name)
    version = int(call(cudart, "cudaDriverGetVersion"))
    driver = f"{version // 1000}.{version % 1000 // 10}"
    return Device(index, name.rstrip("\0"), f"{found.major}.{found.minor}", driver)


def select_device(device: Device) -> None:
    """Make a GPU the calling thread's current one."""
    call(import_cudart(), "cudaSetDevice", device.index)


def no_such_device(index: int, count: int) -> InvalidOption:
    """Return the error for a device beyond those that there are."""
    return InvalidOption(
        f"device is cuda:{index}; this machine has {count} GPU{'' if count == 1 else 's'}",
        param="device",
    )


def device_problem() -> str | None:
    """Say why no GPU can be used here; None where one can."""
    try:
        find_device()
    except (MissingDependency, InvalidOption) as error:
        return str(error)
    return None


def call(cudart: ModuleType | LinkedCudart, name: str, *arguments: Any) -> Any:
    """Call a function of the CUDA runtime and return its result: nothing, one value or a tuple.

    Raises OutOfMemoryError, or BackendError with the name of the error.
    """
    code, *results = getattr(cudart, name)(*arguments)
    if int(code) == int(cudart.cudaError_t.cudaErrorMemoryAllocation):
        raise OutOfMemoryError(f"{name}: the GPU has no memory left")
    if int(code):
        raise BackendError(f"{name} failed: {getattr(code, 'name', code)}")
    return results[0] if len(results) == 1 else tuple(results) or None


class DeviceMemory:
    """Bytes on the device; freed with the object."""

    def __init__(self, cudart: ModuleType | LinkedCudart, size_bytes: int) -> None:
        self._cudart = cudart
        self.size_bytes = max(1, size_bytes)
        self.address = int(call(cudart, "cudaMalloc", self.size_bytes))

    def free(self) -> None:
        """Give the memory back; a second time is nothing."""
        address, self.address = self.address, 0
        if address:
            self._cudart.cudaFree(address)

    def __del__(self) -> None:
        if getattr(self, "address", 0):
            self.free()


class PinnedMemory:
    """Bytes of the host that the device copies from and to while the processor does other work."""

    def __init__(self, cudart: ModuleType, size_bytes: int) -> None:
        self._cudart = cudart
        self.size_bytes = max(1, size_bytes)
        self.address = int(call(cudart, "cudaMallocHost", self.size_bytes))
        self._bytes = np.ctypeslib.as_array(
            (ctypes.c_uint8 * self.size_bytes).from_address(self.address)
        )

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Return the first bytes as an array, which is good until ``free``."""
        size = int(np.prod(shape)) * dtype.itemsize
        return self._bytes[:size].view(dtype).reshape(shape)

    def free(self) -> None:
        """Give the memory back; a second time is nothing."""
        address, self.address = self.address, 0
        if address:
            self._cudart.cudaFreeHost(address)

    def __del__(self) -> None:
        if getattr(self, "address", 0):
            self.free()
