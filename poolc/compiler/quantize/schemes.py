"""How a group of products is quantised: formulas in NumPy, and the choice between them.

Weights are symmetric int8 with a scale a column. Activations are uint8, either with one calibrated
scale and zero point (static), or with a scale for each token (row); neither depends on the batch.
SmoothQuant (Xiao et al. 2022, https://arxiv.org/abs/2211.10438, equation 4) moves large channels of
the activations into the weights: x / c, c * W with c = max|x|^a / max|W|^(1-a), here with geometric
mean 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

# SmoothQuant's migration strength: None does not smooth.
_ALPHAS = (None, 0.5, 0.65, 0.8)
# A scale a token costs passes over the activations; it has to be so much better to be taken.
_ROW_ADVANTAGE = 1.5
_ZERO_POINT = 128  # of rows, which are symmetric


class Scheme(StrEnum):
    """Where an activation's scale comes from; fp32 leaves the products as they are."""

    STATIC = "static"
    ROW = "row"
    FP32 = "fp32"


@dataclass(frozen=True, slots=True)
class Activations:
    """What calibration saw of [tokens, K] activations."""

    lowest: Array  # [K]
    highest: Array  # [K]
    sample: Array  # [rows, K]


@dataclass(frozen=True, slots=True)
class Choice:
    """How one group is quantised. ``error`` is of its outputs on the sample, relative."""

    scheme: Scheme
    error: float
    alpha: float | None = None
    smooth: Array | None = None  # [K], what activations are divided by
    scale: float = 1.0  # static only, as ``zero_point``
    zero_point: int = _ZERO_POINT


@dataclass(frozen=True, slots=True)
class Weights:
    """Quantised [K, N] weights: ``values * scales`` is the matrix."""

    values: npt.NDArray[np.int8]  # [K, N]
    scales: Array  # [N]


def quantize_weights(matrix: Array, levels: int) -> Weights:
    """Round each column to ``levels`` steps on either side of zero (127, or 63 without VNNI)."""
    scales = np.abs(matrix).max(axis=0) / levels
    scales[scales == 0] = 1.0
    values = np.clip(np.rint(matrix / scales), -levels, levels).astype(np.int8)
    return Weights(values, scales.astype(np.float32))


def choose(
    seen: Activations, matrix: Array, levels: int, schemes: Sequence[Scheme] = tuple(Scheme)
) -> Choice:
    """Return the scheme with the smallest error on the sample; ``matrix`` is [K, N] of the group.

    All its products side by side share one smoothing, as they share their input.
    """
    exact = seen.sample @ matrix
    size = max(float(np.square(exact, dtype=np.float64).sum()), 1e-30)
    best: dict[Scheme, Choice] = {}
    for alpha in _ALPHAS:
        smooth = None if alpha is None else smoothing(seen, matrix, alpha)
        x = seen.sample if smooth is None else seen.sample / smooth
        weights = quantize_weights(matrix if smooth is None else matrix * smooth[:, None], levels)
        scale, zero_point = static_range(seen, smooth)
        for scheme in schemes:
            if scheme is Scheme.FP32:
                continue
            static = scheme is Scheme.STATIC
            rounded = _round_static(x, scale, zero_point) if static else _round_rows(x)
            found = (rounded @ weights.values.astype(np.float32)) * weights.scales
            error = float(np.sqrt(np.square(found - exact, dtype=np.float64).sum() / size))
            if scheme not in best or error < best[scheme].error:
                calibrated = (scale, zero_point) if static else ()
                best[scheme] = Choice(scheme, error, alpha, smooth, *calibrated)
    return min(best.values(), key=lambda one: one.error / _advantage(one.scheme))


def _advantage(scheme: Scheme) -> float:
    return _ROW_ADVANTAGE if scheme is Scheme.STATIC else 1.0


def smoothing(seen: Activations, matrix: Array, alpha: float) -> Array:
    """Return SmoothQuant's divisors of the activations, [K]."""
    largest = np.maximum(np.maximum(-seen.lowest, seen.highest), 1e-3)
    weights = np.maximum(np.abs(matrix).max(axis=1), 1e-6)
    factors = largest**alpha / weights ** (1 - alpha)
    factors /= np.exp(np.log(factors).mean())
    return np.asarray(factors, np.float32)


def static_range(seen: Activations, smooth: Array | None) -> tuple[float, int]:
    """Return scale and zero point of uint8 activations that cover what was seen, and zero."""
    divisors = np.ones_like(seen.lowest) if smooth is None else smooth
    low = min(0.0, float((seen.lowest / divisors).min()))
    high = max(0.0, float((seen.highest / divisors).max()))
    scale = float(np.float32(max(high - low, 1e-8) / 255))
    return scale, int(np.clip(np.rint(-low / scale), 0, 255))


def _round_static(x: Array, scale: float, zero_point: int) -> Array:
    levels = np.clip(np.rint(x / scale) + zero_point, 0, 255) - zero_point
    return np.asarray(levels * scale, np.float32)


def _round_rows(x: Array) -> Array:
    scales = np.maximum(np.abs(x).max(axis=-1, keepdims=True), 1e-8) / 127
    return np.asarray(np.rint(x / scales) * scales, np.float32)
