"""Rounding of weights and activations, and the choice between calibrated and token-wise scales."""

from __future__ import annotations

import numpy as np
import pytest

from poolc.compiler.quantize.schemes import (
    Activations,
    Array,
    Scheme,
    choose,
    quantize_weights,
    smoothing,
    static_range,
)

RANDOM = np.random.default_rng(3)
WEIGHTS = RANDOM.normal(size=(64, 48)).astype(np.float32)


def seen(sample: Array) -> Activations:
    return Activations(sample.min(axis=0), sample.max(axis=0), sample)


def even() -> Array:
    return RANDOM.normal(size=(200, 64)).astype(np.float32)


@pytest.mark.parametrize("levels", [127, 63])
def test_weights_are_within_half_a_step(levels: int) -> None:
    matrix = WEIGHTS.copy()
    matrix[:, 5] = 0
    weights = quantize_weights(matrix, levels)
    assert weights.values.dtype == np.int8
    largest = np.abs(weights.values).max(axis=0)
    assert largest.tolist() == [0 if column == 5 else levels for column in range(48)]
    error = np.abs(weights.values * weights.scales - matrix)
    assert (error <= 0.5001 * weights.scales).all()


def test_static_range_covers_what_was_seen_and_zero() -> None:
    sample = np.array([[1.0, 5.0], [2.0, -1.0]], np.float32)
    scale, zero_point = static_range(seen(sample), None)
    low, high = -zero_point * scale, (255 - zero_point) * scale
    assert low <= -1 + scale and high >= 5 - scale
    scale, zero_point = static_range(seen(sample[:, :1]), None)
    assert zero_point == 0
    assert 255 * scale == pytest.approx(2.0)


def test_smoothing_is_equation_4_with_geometric_mean_1() -> None:
    sample = even() * np.geomspace(0.1, 30, 64).astype(np.float32)
    factors = smoothing(seen(sample), WEIGHTS, 0.5)
    plain = np.sqrt(np.abs(sample).max(axis=0) / np.abs(WEIGHTS).max(axis=1))
    np.testing.assert_allclose(factors / factors[0], plain / plain[0], rtol=1e-5)
    assert np.log(factors).mean() == pytest.approx(0, abs=1e-6)


def test_choose_smooths_channels_that_stand_out() -> None:
    sample = even()
    sample[:, 7] *= 60
    found = choose(seen(sample), WEIGHTS, 127, (Scheme.STATIC,))
    assert found.alpha is not None
    plain = sample @ WEIGHTS
    scale, zero_point = static_range(seen(sample), None)
    weights = quantize_weights(WEIGHTS, 127)
    rounded = (np.clip(np.rint(sample / scale) + zero_point, 0, 255) - zero_point) * scale
    rough = np.linalg.norm(rounded @ (weights.values * weights.scales) - plain)
    assert found.error < 0.5 * rough / np.linalg.norm(plain)


def test_choose_scales_tokens_where_one_stands_out() -> None:
    sample = even()
    sample[11] *= 80
    assert choose(seen(sample), WEIGHTS, 127).scheme is Scheme.ROW
    assert choose(seen(sample), WEIGHTS, 127, (Scheme.STATIC,)).scheme is Scheme.STATIC
    assert choose(seen(even()), WEIGHTS, 127).scheme is Scheme.STATIC


def test_fewer_levels_cost_accuracy() -> None:
    sample = even()
    assert choose(seen(sample), WEIGHTS, 63).error > choose(seen(sample), WEIGHTS, 127).error
