"""Result types and the arithmetic after the graph, against the libraries that define it."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from poolc.errors import InvalidOption
from poolc.runtime.outputs import (
    OUTPUT_DTYPES,
    Classification,
    Float32,
    Ragged,
    convert_dtype,
    l2_normalize,
    similarity,
)
from poolc.spec import Similarity

RNG = np.random.default_rng(0)
VECTORS = RNG.standard_normal((20, 32)).astype(np.float32)
OTHERS = RNG.standard_normal((20, 32)).astype(np.float32)


@pytest.fixture(scope="module")
def st_util() -> Any:
    """sentence_transformers.util."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers import util

        return util


# Ragged.

SHAPES = st.lists(st.integers(0, 5), min_size=1, max_size=6)


def rows_of(lengths: list[int]) -> list[Float32]:
    return [np.full((n, 3), i, np.float32) for i, n in enumerate(lengths)]


@given(SHAPES)
def test_ragged_gives_back_its_rows(lengths: list[int]) -> None:
    rows = rows_of(lengths)
    ragged = Ragged.from_rows(list(rows))
    assert len(ragged) == len(rows)
    assert ragged.offsets.dtype == np.int64
    assert ragged.offsets.tolist() == [0, *np.cumsum(lengths)]
    assert all(np.array_equal(a, b) for a, b in zip(ragged, rows, strict=True))
    assert all(np.array_equal(ragged[-1 - i], row) for i, row in enumerate(reversed(rows)))


@pytest.mark.parametrize("index", [2, -3, 100])
def test_ragged_out_of_range(index: int) -> None:
    with pytest.raises(IndexError, match=f"row {index} of 2"):
        Ragged.from_rows(list(rows_of([1, 2])))[index]


def test_ragged_shares_memory() -> None:
    ragged = Ragged.from_rows(list(rows_of([2, 3])))
    assert np.shares_memory(ragged[1], ragged.values)


def test_classification_has_a_length() -> None:
    assert len(Classification(["a", None], VECTORS[:2], ("a", "b"))) == 2


# Normalising.


def test_l2_normalize_equals_torch() -> None:
    import torch

    rows = np.concatenate([VECTORS * 1000, VECTORS * 1e-6, np.zeros((1, 32), np.float32)])
    expected = torch.nn.functional.normalize(torch.from_numpy(rows), dim=-1).numpy()
    normal = l2_normalize(rows)
    assert normal.dtype == np.float32
    np.testing.assert_allclose(normal, expected, atol=1e-6)
    assert not normal[-1].any()


def test_l2_normalize_leaves_its_argument() -> None:
    rows = VECTORS.copy()
    l2_normalize(rows)
    np.testing.assert_array_equal(rows, VECTORS)


def test_l2_normalize_works_on_the_last_axis() -> None:
    np.testing.assert_allclose(l2_normalize(VECTORS[0]), l2_normalize(VECTORS)[0], atol=1e-7)
    cube = VECTORS.reshape(4, 5, 32)
    np.testing.assert_array_equal(l2_normalize(cube).reshape(20, 32), l2_normalize(VECTORS))


# Output dtypes.


@pytest.mark.parametrize("dtype", ["binary", "ubinary"])
def test_convert_packs_as_sentence_transformers(dtype: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers.util import quantize_embeddings

        expected = quantize_embeddings(VECTORS, precision=dtype)
    packed = convert_dtype(VECTORS, dtype)
    assert packed.dtype == expected.dtype
    np.testing.assert_array_equal(packed, expected)


def test_convert_packs_the_first_number_into_the_highest_bit() -> None:
    row = np.array([[1, -1, -1, -1, -1, -1, -1, 0]], np.float32)
    assert convert_dtype(row, "ubinary").tolist() == [[0b10000001]]  # zero counts as positive
    assert convert_dtype(row, "binary").tolist() == [[0b10000001 - 128]]


def test_convert_int8_is_a_127th() -> None:
    row = np.array([[-1, -0.5, 0, 0.004, 0.5, 1]], np.float32)
    assert convert_dtype(row, "int8").tolist() == [[-127, -64, 0, 1, 64, 127]]
    assert convert_dtype(row, "uint8").tolist() == [[1, 64, 128, 129, 192, 255]]


@given(arrays.arrays(np.float32, (3, 8), elements=st.floats(-1, 1, width=32)))
def test_convert_int8_is_close(rows: Float32) -> None:
    quantised = convert_dtype(rows, "int8")
    assert quantised.dtype == np.int8
    assert np.abs(quantised / 127 - rows).max() <= 0.5 / 127 + 1e-6
    unsigned = convert_dtype(rows, "uint8")
    assert unsigned.dtype == np.uint8
    np.testing.assert_array_equal(unsigned.astype(int) - 128, quantised)


def test_convert_int8_does_not_wrap() -> None:
    far = np.array([[9.0, -9.0]], np.float32)
    assert convert_dtype(far, "int8").tolist() == [[127, -128]]
    assert convert_dtype(far, "uint8").tolist() == [[255, 0]]


def test_convert_floats() -> None:
    assert convert_dtype(VECTORS, "float32") is VECTORS
    half = convert_dtype(VECTORS, "float16")
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, VECTORS, rtol=1e-3)


@pytest.mark.parametrize("dtype", OUTPUT_DTYPES)
def test_convert_keeps_leading_axes(dtype: str) -> None:
    cube = VECTORS.reshape(4, 5, 32)
    flat = convert_dtype(VECTORS, dtype)
    np.testing.assert_array_equal(convert_dtype(cube, dtype).reshape(flat.shape), flat)


@pytest.mark.parametrize("dtype", ["binary", "ubinary"])
def test_convert_refuses_dimensions_that_do_not_pack(dtype: str) -> None:
    with pytest.raises(InvalidOption, match="30 dimensions do not divide by 8") as caught:
        convert_dtype(VECTORS[:, :30], dtype)
    assert caught.value.param == "output_dtype"


@pytest.mark.parametrize("dtype", ["float64", "", "INT8"])
def test_convert_refuses_unknown_dtypes(dtype: str) -> None:
    with pytest.raises(InvalidOption, match=r"output_dtype is .*; allowed: float32, float16, int8"):
        convert_dtype(VECTORS, dtype)


# Similarity.


@pytest.mark.parametrize("kind", list(Similarity))
def test_similarity_equals_sentence_transformers(st_util: Any, kind: Similarity) -> None:
    from sentence_transformers.util import SimilarityFunction

    compare = SimilarityFunction.to_similarity_pairwise_fn(kind.value)
    found = similarity(VECTORS, OTHERS, kind)
    assert found.dtype == np.float32
    assert found.shape == (20,)
    np.testing.assert_allclose(found, compare(VECTORS, OTHERS).numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", list(Similarity))
def test_similarity_of_one_with_many(kind: Similarity) -> None:
    repeated = np.repeat(VECTORS[:1], 20, axis=0)
    expected = similarity(repeated, OTHERS, kind)
    np.testing.assert_allclose(similarity(VECTORS[:1], OTHERS, kind), expected, rtol=1e-6)


@pytest.mark.parametrize("kind", list(Similarity))
def test_similarity_is_highest_with_itself(kind: Similarity) -> None:
    unit = l2_normalize(VECTORS)
    with_itself = similarity(unit, unit, kind)
    assert (with_itself >= similarity(unit, l2_normalize(OTHERS), kind)).all()
