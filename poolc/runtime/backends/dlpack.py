"""Memory that somebody else owns as a value of ONNX Runtime's.

Handed over as DLPack says: https://dmlc.github.io/dlpack/latest/c_api.html. Knows nothing about
artifacts.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from types import ModuleType
from typing import Any

CPU, CUDA = 1, 2  # DLPack's numbers of kinds of devices
# ONNX's number of a type -> DLPack's code of it, and its bits. Numbers that are computed with.
_CODES = {1: (2, 32), 10: (2, 16), 16: (4, 16)}
BITS = {data_type: bits for data_type, (_, bits) in _CODES.items()}
_NAME = b"dltensor"  # of a capsule that nobody has taken yet


class _Tensor(ctypes.Structure):
    """DLTensor."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),  # none: row after row
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    """DLManagedTensor."""

    _fields_ = (
        ("tensor", _Tensor),
        ("manager_ctx", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    )


_new_capsule = ctypes.PYFUNCTYPE(
    ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p
)(("PyCapsule_New", ctypes.pythonapi))


def borrowed(
    ort: ModuleType, address: int, shape: Sequence[int], data_type: int, device: tuple[int, int]
) -> Any:
    """Return memory at ``address`` as a value, which has to be gone before the memory is.

    ``data_type`` is ONNX's number of it, one of ``BITS``; ``device`` DLPack's kind and a number.
    """
    libc, rank = ctypes.CDLL(None), len(shape)
    libc.malloc.restype = ctypes.c_void_p
    # One block that C frees: Python may be gone by the time that the value is.
    start = libc.malloc(ctypes.c_size_t(ctypes.sizeof(_Managed) + 8 * rank))
    sizes = start + ctypes.sizeof(_Managed)
    (ctypes.c_int64 * rank).from_address(sizes)[:] = list(shape)
    managed = _Managed.from_address(start)
    managed.tensor = _Tensor(address, *device, rank, *_CODES[data_type], 1, sizes, None, 0)
    managed.manager_ctx = None
    managed.deleter = ctypes.cast(libc.free, ctypes.c_void_p)
    # The public class has no ``from_dlpack`` before ONNX Runtime 1.26.
    value = ort.capi.onnxruntime_pybind11_state.OrtValue
    return ort.OrtValue(value.from_dlpack(_new_capsule(start, _NAME, None)))
