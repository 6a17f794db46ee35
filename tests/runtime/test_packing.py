"""Packing: every real token once, in order, and back to where it was."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from poolc.runtime.backends.cuda import aligned, filled_up
from poolc.runtime.packing import packing
from poolc.spec import (
    ATTENTION_MASK,
    CU_SEQLENS,
    INPUT_IDS,
    RESTORE_INDICES,
    TOKEN_INDICES,
    TOKEN_OFFSET,
)

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=12)


def padded(lengths: list[int], seq: int) -> npt.NDArray[np.int64]:
    """Number the real tokens from 1; padding is 0."""
    mask = np.arange(seq) < np.array(lengths)[:, None]
    values = np.zeros(mask.shape, np.int64)
    values[mask] = np.arange(1, sum(lengths) + 1)
    return values


@given(lengths=LENGTHS, extra=st.integers(0, 9))
def test_tokens_are_packed_and_restored(lengths: list[int], extra: int) -> None:
    seq = max(lengths) + extra
    values = padded(lengths, seq)
    found = packing(np.array(lengths), seq)
    packed = values.reshape(-1)[found[TOKEN_INDICES]]
    assert packed.tolist() == list(range(1, sum(lengths) + 1))
    assert found[CU_SEQLENS].tolist() == [0, *np.cumsum(lengths).tolist()]
    restored = packed[found[RESTORE_INDICES]]
    assert restored.shape == values.shape
    assert (restored == values)[values > 0].all()


@given(lengths=LENGTHS, extra=st.integers(0, 9))
def test_offsets_are_all_places_real_ones_first(lengths: list[int], extra: int) -> None:
    """As PackedMultiHeadAttention documents its token_offset."""
    seq = max(lengths) + extra
    found = packing(np.array(lengths), seq)
    offsets = found[TOKEN_OFFSET].reshape(-1)
    assert sorted(offsets.tolist()) == list(range(len(lengths) * seq))
    assert (offsets[: sum(lengths)] == found[TOKEN_INDICES]).all()
    assert {array.dtype for array in found.values()} == {np.dtype(np.int32)}


@given(lengths=st.lists(st.integers(1, 16), min_size=1, max_size=8))
def test_a_bucket_always_has_the_same_number_of_tokens(lengths: list[int]) -> None:
    """A recorded graph of kernels pins every size."""
    seq = max(lengths)
    mask = (np.arange(seq) < np.array(lengths)[:, None]).astype(np.int64)
    feeds = {INPUT_IDS: padded(lengths, seq) + 1, ATTENTION_MASK: mask}
    made = filled_up(feeds, (8, 16), 1, packed=True)
    assert {name: array.shape for name, array in made.items()} == {
        INPUT_IDS: (16, 16),
        ATTENTION_MASK: (16, 16),
        TOKEN_INDICES: (8 * 16,),
        TOKEN_OFFSET: (16, 16),
        CU_SEQLENS: (17,),
        RESTORE_INDICES: (16, 16),
    }
    taken = np.diff(made[CU_SEQLENS])
    assert taken[: len(lengths)].tolist() == lengths  # no text has gained a token
    assert taken.sum() == 8 * 16 and taken.max() <= 16
    assert (made[INPUT_IDS][: len(lengths), :seq] == feeds[INPUT_IDS]).all()
    assert made[ATTENTION_MASK].sum() == sum(lengths)


def test_a_padded_bucket_has_no_row_that_sees_nothing() -> None:
    feeds = {INPUT_IDS: np.full((2, 3), 7), ATTENTION_MASK: np.ones((2, 3), np.int64)}
    made = filled_up(feeds, (4, 16), 1, packed=False)
    assert made[INPUT_IDS].shape == made[ATTENTION_MASK].shape == (4, 16)
    assert made[ATTENTION_MASK].sum(axis=1).tolist() == [3, 3, 1, 1]
    assert made[INPUT_IDS][0].tolist() == [7] * 3 + [1] * 13


def test_rows_are_padded_to_what_kernels_of_masks_want() -> None:
    feeds = {INPUT_IDS: np.full((2, 9), 7), ATTENTION_MASK: np.ones((2, 9), np.int64)}
    made = aligned(feeds, 1)
    assert made[INPUT_IDS].shape == (2, 16)
    assert made[INPUT_IDS][0, 9:].tolist() == [1] * 7
    assert made[ATTENTION_MASK][0, 9:].tolist() == [0] * 7
    assert aligned(made, 1)[INPUT_IDS] is made[INPUT_IDS]
