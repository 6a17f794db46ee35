"""Arrays as bytes: vLLM's ``embed_dtype`` and ``endianness``, for base64 and for whole bodies.

bfloat16 keeps the upper half of a float32, rounded to nearest even. fp8 is that of the OCP 8-bit
floating point specification (E4M3 ends at 448, E5M2 at 57,344); larger numbers become the largest.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

EncodingFormat = Literal["float", "base64", "bytes", "bytes_only"]
EmbedDtype = Literal["float32", "float16", "bfloat16", "fp8_e4m3", "fp8_e5m2"]
Endianness = Literal["native", "big", "little"]

_ORDERS: Mapping[Endianness, Literal["=", ">", "<"]] = {"native": "=", "big": ">", "little": "<"}
# Bits of the exponent and of the mantissa, and the code of the largest number.
_FP8 = {"fp8_e4m3": (4, 3, 0x7E), "fp8_e5m2": (5, 2, 0x7B)}


def encode_bytes(array: npt.NDArray[Any], dtype: EmbedDtype, endianness: Endianness) -> bytes:
    """Return the numbers of an array, row by row; packed bits stay as they are."""
    if array.dtype.kind in "iu":
        return array.tobytes()
    if dtype in _FP8:
        return _fp8(array.astype(np.float32, copy=False), dtype).tobytes()
    if dtype == "bfloat16":
        converted: npt.NDArray[Any] = _bfloat16(array.astype(np.float32, copy=False))
    else:
        converted = array.astype(np.dtype(dtype), copy=False)
    ordered = converted.dtype.newbyteorder(_ORDERS[endianness])
    return converted.astype(ordered, copy=False).tobytes()


def encode_base64(array: npt.NDArray[Any], dtype: EmbedDtype, endianness: Endianness) -> str:
    """Return the numbers of an array, row by row, as base64."""
    return base64.b64encode(encode_bytes(array, dtype, endianness)).decode("ascii")


def _bfloat16(array: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    bits = np.ascontiguousarray(array).view(np.uint32)
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)
    return (rounded >> 16).astype(np.uint16)


def _fp8(array: npt.NDArray[np.float32], dtype: str) -> npt.NDArray[np.uint8]:
    """Round to the nearest number, of two as near to the one with an even code."""
    values = _fp8_values(dtype)
    size = np.minimum(np.abs(array), values[-1])
    above = np.searchsorted(values, size).clip(1, len(values) - 1)
    low, high = size - values[above - 1], values[above] - size
    even = (above - 1) % 2 == 0
    code = np.where((low < high) | ((low == high) & even), above - 1, above).astype(np.uint8)
    return np.asarray(code | (np.signbit(array).astype(np.uint8) << 7), np.uint8)


@cache
def _fp8_values(dtype: str) -> npt.NDArray[np.float32]:
    """Return the numbers of all positive codes, in order."""
    exponent_bits, mantissa_bits, last = _FP8[dtype]
    codes = np.arange(last + 1)
    exponent, mantissa = codes >> mantissa_bits, codes % (1 << mantissa_bits)
    bias = (1 << (exponent_bits - 1)) - 1
    fraction = mantissa / (1 << mantissa_bits)
    subnormal = exponent == 0
    scale = 2.0 ** (np.where(subnormal, 1, exponent) - bias)
    return (scale * np.where(subnormal, fraction, 1 + fraction)).astype(np.float32)
