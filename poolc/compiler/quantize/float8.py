"""fp8 (E4M3) of a group of products: formulas in NumPy.

E4M3 has 4 bits of exponent and 3 of mantissa, no infinities, and 448 as its largest number
(Micikevicius et al. 2022, https://arxiv.org/abs/2209.05433, section 3). Its rounding error is
relative to each number over 15 binades, so that large channels do not cost small ones anything and
SmoothQuant has nothing to repair; a scale has to keep numbers inside the range, no more.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import numpy.typing as npt

from poolc.compiler.quantize.schemes import Activations, Array, Choice, Scheme

E4M3 = np.dtype(ml_dtypes.float8_e4m3fn)
LARGEST = 448.0
# Texts may go beyond what calibration saw. Twice the range costs one binade of the smallest.
_HEADROOM = 2.0
# TensorRT wants scales in the type of the activations, here fp16: this is its smallest number of
# full precision.
_SMALLEST_SCALE = 2.0**-14


def scales_of(largest: npt.ArrayLike) -> Array:
    """Return what numbers up to ``largest`` are divided by, as numbers that fp16 has."""
    scales = np.maximum(np.asarray(largest, np.float32) / np.float32(LARGEST), _SMALLEST_SCALE)
    return np.asarray(scales.astype(np.float16), np.float32)


def to_e4m3(values: Array, scales: npt.ArrayLike) -> npt.NDArray[ml_dtypes.float8_e4m3fn]:
    """Return ``values / scales`` in E4M3; what is larger than it holds becomes its largest."""
    scaled = np.clip(values / np.asarray(scales, np.float32), -LARGEST, LARGEST)
    return np.asarray(scaled.astype(E4M3))


def choose_float8(seen: Activations, matrix: Array) -> Choice:
    """Return one scale for the activations of a group, and the error on the sample, relative.

    ``matrix`` is [K, N] of the group, which has one scale too.
    """
    largest = max(float(-seen.lowest.min()), float(seen.highest.max()), 0.0)
    scale = float(scales_of(_HEADROOM * largest))
    exact = seen.sample @ matrix
    step = scales_of(np.abs(matrix).max())
    weights = to_e4m3(matrix, step).astype(np.float32) * step
    found = (to_e4m3(seen.sample, scale).astype(np.float32) * np.float32(scale)) @ weights
    size = max(float(np.square(exact, dtype=np.float64).sum()), 1e-30)
    error = float(np.sqrt(np.square(found - exact, dtype=np.float64).sum() / size))
    return Choice(Scheme.STATIC, error, scale=scale)
