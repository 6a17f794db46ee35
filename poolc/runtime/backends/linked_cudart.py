"""The CUDA runtime that ONNX Runtime links, with what ``cuda_device`` calls of cuda-bindings'.

That package is not needed where ONNX Runtime runs, and its own runtime may be another version.
"""

from __future__ import annotations

import ctypes
from types import ModuleType
from typing import Any


class Code(int):
    """An error's number, or 0, and what CUDA says of it."""

    name: str


class CudaErrors:
    """Those errors that callers tell from others."""

    cudaErrorMemoryAllocation = Code(2)


class LinkedCudart:
    """Functions of a loaded library that return as cuda-bindings' do: a code, then results."""

    cudaError_t = CudaErrors

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        library.cudaGetErrorString.restype = ctypes.c_char_p

    def cudaGetDeviceCount(self) -> tuple[Any, ...]:
        """Return how many GPUs there are."""
        count = ctypes.c_int()
        return self._called("cudaGetDeviceCount", ctypes.byref(count)), count.value

    def cudaSetDevice(self, index: int) -> tuple[Any, ...]:
        """Make a GPU the calling thread's current one."""
        return (self._called("cudaSetDevice", ctypes.c_int(index)),)

    def cudaMalloc(self, size_bytes: int) -> tuple[Any, ...]:
        """Return the address of new memory on the current GPU."""
        address = ctypes.c_void_p()
        code = self._called("cudaMalloc", ctypes.byref(address), ctypes.c_size_t(size_bytes))
        return code, address.value or 0

    def cudaFree(self, address: int) -> tuple[Any, ...]:
        """Give memory back."""
        return (self._called("cudaFree", ctypes.c_void_p(address)),)

    def cudaMemcpy(self, to: int, source: int, size_bytes: int, kind: int) -> tuple[Any, ...]:
        """Copy bytes; ``kind`` is cudaMemcpyKind."""
        addresses = ctypes.c_void_p(to), ctypes.c_void_p(source)
        return (self._called("cudaMemcpy", *addresses, ctypes.c_size_t(size_bytes), kind),)

    def cudaDeviceSynchronize(self) -> tuple[Any, ...]:
        """Wait until the current GPU has done everything."""
        return (self._called("cudaDeviceSynchronize"),)

    def _called(self, name: str, *arguments: Any) -> Code:
        code = Code(getattr(self._library, name)(*arguments))
        said = self._library.cudaGetErrorString(ctypes.c_int(code)) if code else None
        code.name = said.decode() if said else str(int(code))
        return code


def linked_cudart(ort: ModuleType) -> LinkedCudart | None:
    """Return the runtime of the CUDA that ``ort`` was built for, which it has to have loaded.

    None where it cannot be found: sessions say then what is missing.
    """
    version = getattr(ort, "cuda_version", None)
    if not version:
        return None
    try:
        return LinkedCudart(ctypes.CDLL(f"libcudart.so.{version.partition('.')[0]}"))
    except OSError:
        return None
