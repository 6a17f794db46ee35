"""Shapes that an engine is built for, and the one that a micro-batch runs in. Pure functions.

A profile is a range of (rows, tokens a row). Automatic ones are of two kinds: a fixed shape for
each length that a lone short text is padded to, and for each length bucket a range from one row to
as many as the budget of tokens holds. A single range over all lengths would reserve memory for its
corner, the most rows of the longest texts, and be tuned for that alone.

Knows nothing about engines or devices.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from poolc.errors import InvalidOption
from poolc.spec import Profile

AUTO = "auto"
# Enough to fill a large GPU.
BUDGET_TOKENS = 16384
# Padded tokens up to which launching kernels takes longer than running them.
GRAPH_TOKENS = 2048

_GRAPH_ROWS = (1, 2, 4, 8, 16, 32, 64)
_GRAPH_LENGTHS = (16, 32, 64, 128, 256, 512)
_MOST_TOKENS = 1 << 24  # of a profile: more than any GPU has memory for
_SHORTEST_RANGE = 64  # tokens: shorter texts share a profile
# Rows of an attention mask of any other length have no fast kernel.
_ALIGNMENT = 8
_EXAMPLE = "batch=1..64,seq=16..512"
_RANGE = re.compile(r"(\d{1,9})(?:\.\.(\d{1,9}))?(?:\.\.(\d{1,9}))?")


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a micro-batch runs: the profile's index, and (rows, tokens a row) with padding.

    ``recorded``: it is worth a recorded graph of kernels, which later ones of its shape replay.
    """

    profile: int
    rows: int
    seq: int
    recorded: bool


def read_profiles(text: str, max_length: int) -> tuple[Profile, ...]:
    """Return the profiles that an option asks for, for texts of up to ``max_length`` tokens.

    Raises InvalidOption for what is no profile, or for profiles that longer texts do not fit.
    """
    if text == AUTO:
        return auto_profiles(max_length)
    profiles = parse_profiles(text)
    longest = max(profile.max_shape[1] for profile in profiles)
    if longest < max_length:
        raise InvalidOption(
            f"profiles reach {longest} tokens a text ({text}); the model takes {max_length}: add a "
            f"profile for longer texts, or --max-length {longest}",
            param="profiles",
        )
    if longest > max_length:
        raise InvalidOption(
            f"profiles reach {longest} tokens a text ({text}); the model takes only {max_length}: "
            "no text needs more",
            param="profiles",
        )
    return profiles


def parse_profiles(text: str) -> tuple[Profile, ...]:
    """Read ``batch=1..64,seq=16..512``: ranges, or least..tuned for..most; several by semicolons.

    Without a middle number the engine is tuned for the most. Raises InvalidOption.
    """
    return tuple(_profile(part.strip(), text) for part in text.split(";"))


def auto_profiles(max_length: int, budget_tokens: int = BUDGET_TOKENS) -> tuple[Profile, ...]:
    """Return the profiles for texts of up to ``max_length`` tokens in micro-batches of a budget."""
    fixed = [(1, min(seq, max_length)) for seq in _covering(_GRAPH_LENGTHS, max_length)]
    made = [Profile(shape, shape, shape) for shape in fixed]
    seq = _SHORTEST_RANGE
    while True:
        longest = min(seq, max_length)
        most = (max(1, budget_tokens // longest), longest)
        made.append(Profile((1, 1), most, most))
        if longest == max_length:
            return tuple(made)
        seq *= 2


def budget(profiles: Sequence[Profile]) -> int:
    """Return how many padded tokens a micro-batch may have: what the largest profile holds."""
    largest = max(rows * seq for rows, seq in (profile.max_shape for profile in profiles))
    return min(BUDGET_TOKENS, largest)


def pieces(profiles: Sequence[Profile], rows: int, seq: int) -> Iterator[slice]:
    """Cut rows of ``seq`` tokens into as few equal parts as fit a profile each.

    Raises ValueError for a text that is longer than every profile.
    """
    reaching = [profile.max_shape[0] for profile in profiles if profile.max_shape[1] >= seq]
    if not reaching:
        raise ValueError(f"no profile has room for {seq} tokens")
    count = -(-rows // max(reaching))
    size = -(-rows // count)
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def place(profiles: Sequence[Profile], rows: int, seq: int) -> Placement:
    """Choose the profile and the padded shape of a micro-batch that ``pieces`` has cut.

    Small ones are padded to a shape of few, so that their kernels are recorded once. Of several
    profiles the one with the smallest largest shape is tuned nearest.
    """
    longest = max(profile.max_shape[1] for profile in profiles)
    bucket = _bucket(rows, seq, longest)
    found = None if bucket is None else _nearest(profiles, *bucket)
    if bucket is None or found is None:
        bucket, found = None, _nearest(profiles, rows, seq)
    if found is None:
        raise ValueError(f"no profile has room for {rows} texts of {seq} tokens")
    profile = profiles[found]
    wanted = bucket or (rows, min(seq + -seq % _ALIGNMENT, profile.max_shape[1]))
    padded = (max(wanted[0], profile.min_shape[0]), max(wanted[1], profile.min_shape[1]))
    recorded = bucket is not None and padded[0] * padded[1] <= GRAPH_TOKENS
    return Placement(found, *padded, recorded)


def _bucket(rows: int, seq: int, longest: int) -> tuple[int, int] | None:
    """Return the shape whose kernels are recorded; None: launching them takes no longer."""
    many = next((n for n in _GRAPH_ROWS if n >= rows), None)
    length = next((n for n in _GRAPH_LENGTHS if n >= seq), None)
    if many is None or length is None or many * length > GRAPH_TOKENS:
        return None
    return many, min(length, longest)


def _nearest(profiles: Sequence[Profile], rows: int, seq: int) -> int | None:
    """Return the profile that wastes least on these rows, and is the smallest of those."""

    def cost(index: int) -> tuple[int, int, int]:
        (least_rows, shortest), most = profiles[index].min_shape, profiles[index].max_shape
        return max(rows, least_rows) * max(seq, shortest), most[0] * most[1], index

    fitting = [
        index
        for index, profile in enumerate(profiles)
        if profile.max_shape[0] >= rows and profile.max_shape[1] >= seq
    ]
    return min(fitting, key=cost, default=None)


def _covering(lengths: Sequence[int], max_length: int) -> list[int]:
    """Return the lengths up to the first that holds every text."""
    shorter = [length for length in lengths if length < max_length]
    return [*shorter, *lengths[len(shorter) : len(shorter) + 1]]


def _profile(part: str, whole: str) -> Profile:
    found: dict[str, tuple[int, int, int]] = {}
    for item in part.split(","):
        name, _, given = item.partition("=")
        name = name.strip()
        if name not in ("batch", "seq") or name in found:
            raise _refused(whole, f"{item.strip()!r} is not one of batch= and seq=, each once")
        found[name] = _numbers(name, given.strip(), whole)
    if len(found) != 2:
        raise _refused(whole, f"{part!r} needs both batch= and seq=")
    least, tuned, most = zip(found["batch"], found["seq"], strict=True)
    if most[0] * most[1] > _MOST_TOKENS:
        raise _refused(whole, f"{most[0]} x {most[1]} tokens are more than {_MOST_TOKENS:,}")
    return Profile(least, tuned, most)


def _numbers(name: str, given: str, whole: str) -> tuple[int, int, int]:
    match = _RANGE.fullmatch(given)
    if match is None:
        raise _refused(whole, f"{name} is {given!r}, not a number or a range")
    numbers = [int(number) for number in match.groups() if number is not None]
    least, most = numbers[0], numbers[-1]
    tuned = numbers[1] if len(numbers) == 3 else most
    if not 1 <= least <= tuned <= most:
        raise _refused(whole, f"{name} is {given}: it has to rise, from 1 or more")
    return least, tuned, most


def _refused(given: str, why: str) -> InvalidOption:
    return InvalidOption(
        f"profiles is {given!r}: {why}; allowed: {AUTO}, or ranges like {_EXAMPLE} "
        "(least..most, or least..tuned for..most), several separated by semicolons",
        param="profiles",
    )
