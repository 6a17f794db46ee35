"""Profiles: read, planned, and found for every shape, with little padding."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poolc.errors import InvalidOption
from poolc.runtime.batching import plan
from poolc.runtime.profiles import (
    BUDGET_TOKENS,
    GRAPH_TOKENS,
    auto_profiles,
    budget,
    parse_profiles,
    pieces,
    place,
    read_profiles,
)
from poolc.spec import Profile

lengths = st.integers(1, 40_000)
dims = st.tuples(st.integers(1, 64), st.integers(1, 600))


@st.composite
def profile_lists(draw: st.DrawFn) -> tuple[Profile, ...]:
    found = []
    for _ in range(draw(st.integers(1, 4))):
        corners = sorted(draw(dims) for _ in range(3))
        rows, seqs = (sorted(corner[axis] for corner in corners) for axis in (0, 1))
        found.append(Profile(*zip(rows, seqs, strict=True)))
    return tuple(found)


def fits(profile: Profile, rows: int, seq: int) -> bool:
    least, most = profile.min_shape, profile.max_shape
    return least[0] <= rows <= most[0] and least[1] <= seq <= most[1]


@given(max_length=lengths, data=st.data())
def test_every_shape_up_to_the_limits_has_a_place(max_length: int, data: st.DataObject) -> None:
    profiles = auto_profiles(max_length)
    seq = data.draw(st.integers(1, max_length))
    rows = data.draw(st.integers(1, max(1, BUDGET_TOKENS // seq)))
    parts = list(pieces(profiles, rows, seq))
    assert [i for part in parts for i in range(rows)[part]] == list(range(rows))
    for part in parts:
        found = place(profiles, part.stop - part.start, seq)
        assert found.rows >= part.stop - part.start and found.seq >= seq
        assert fits(profiles[found.profile], found.rows, found.seq)


@given(max_length=lengths, data=st.data())
def test_padding_is_bounded(max_length: int, data: st.DataObject) -> None:
    """To less than four times where kernels are replayed, else to the next multiple of 8."""
    profiles = auto_profiles(max_length)
    seq = data.draw(st.integers(1, max_length))
    rows = data.draw(st.integers(1, 80))
    for part in pieces(profiles, rows, seq):
        count = part.stop - part.start
        found = place(profiles, count, seq)
        if found.recorded:
            assert found.rows * found.seq <= GRAPH_TOKENS
            assert found.rows < 2 * count and found.seq <= max(16, 2 * seq - 1)
        else:
            assert found.rows == count and found.seq < seq + 8


@given(max_length=st.integers(1, 9000), data=st.data())
def test_planned_micro_batches_are_cut_into_two_at_most(
    max_length: int, data: st.DataObject
) -> None:
    """But of texts so short that a quarter of the budget fills a GPU too."""
    profiles = auto_profiles(max_length)
    lengths = st.integers(min(32, max_length), max_length)
    texts = data.draw(st.lists(lengths, min_size=1, max_size=300))
    for batch in plan(texts, budget(profiles)):
        assert len(list(pieces(profiles, len(batch.indices), batch.seq))) <= 2


@given(profiles=profile_lists(), data=st.data())
def test_any_profiles_take_what_they_reach(
    profiles: tuple[Profile, ...], data: st.DataObject
) -> None:
    longest = max(profile.max_shape[1] for profile in profiles)
    rows, seq = data.draw(st.integers(1, 200)), data.draw(st.integers(1, longest))
    for part in pieces(profiles, rows, seq):
        found = place(profiles, part.stop - part.start, seq)
        assert found.rows >= part.stop - part.start and found.seq >= seq
        assert fits(profiles[found.profile], found.rows, found.seq)


def test_automatic_profiles() -> None:
    found = auto_profiles(300, budget_tokens=1024)
    fixed = [profile for profile in found if profile.min_shape == profile.max_shape]
    ranges = [profile for profile in found if profile not in fixed]
    assert [profile.max_shape for profile in fixed] == [(1, n) for n in (16, 32, 64, 128, 256, 300)]
    assert [profile.max_shape for profile in ranges] == [(16, 64), (8, 128), (4, 256), (3, 300)]
    assert {profile.min_shape for profile in ranges} == {(1, 1)}
    assert budget(found) == 1024


def test_a_lone_text_runs_in_the_profile_of_its_shape() -> None:
    profiles = auto_profiles(512)
    found = place(profiles, 1, 20)
    assert (found.rows, found.seq, found.recorded) == (1, 32, True)
    assert profiles[found.profile] == Profile((1, 32), (1, 32), (1, 32))
    found = place(profiles, 3, 20)
    assert (found.rows, found.seq, found.recorded) == (4, 32, True)
    assert profiles[found.profile].max_shape == (256, 64)


def test_a_text_that_no_profile_holds_is_refused() -> None:
    with pytest.raises(ValueError, match="no profile has room for 65 tokens"):
        list(pieces(parse_profiles("batch=1..4,seq=64"), 1, 65))
    with pytest.raises(ValueError, match="no profile has room for 5 texts of 3 tokens"):
        place(parse_profiles("batch=1..4,seq=64"), 5, 3)


def test_profiles_as_they_are_written() -> None:
    assert parse_profiles("batch=1..64,seq=16..512") == (Profile((1, 16), (64, 512), (64, 512)),)
    assert parse_profiles("seq=8, batch=1..8..32 ; batch=4,seq=64..128") == (
        Profile((1, 8), (8, 8), (32, 8)),
        Profile((4, 64), (4, 128), (4, 128)),
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "'' is not one of batch= and seq="),
        ("batch=1..64", "needs both batch= and seq="),
        ("batch=1..64,seq=16..512,heads=2", "'heads=2' is not one of batch= and seq="),
        ("batch=1,seq=2,seq=3", "'seq=3' is not one of batch= and seq="),
        ("batch=64..1,seq=16", "batch is 64..1: it has to rise"),
        ("batch=0..4,seq=16", "batch is 0..4: it has to rise, from 1"),
        ("batch=1..9..4,seq=16", "batch is 1..9..4: it has to rise"),
        ("batch=few,seq=16", "batch is 'few', not a number or a range"),
        ("batch=1..64,seq=16..512;", "'' is not one of batch= and seq="),
    ],
)
def test_profiles_that_cannot_be_read(given: str, said: str) -> None:
    with pytest.raises(InvalidOption, match="profiles is") as caught:
        parse_profiles(given)
    assert said in str(caught.value) and caught.value.param == "profiles"


def test_profiles_and_the_models_length_agree() -> None:
    assert read_profiles("auto", 128) == auto_profiles(128)
    with pytest.raises(InvalidOption, match=r"reach 256 tokens.*takes 512: add.*--max-length 256"):
        read_profiles("batch=1,seq=1..256", 512)
    with pytest.raises(InvalidOption, match=r"reach 1024 tokens.*takes only 512"):
        read_profiles("batch=1,seq=1..1024", 512)
