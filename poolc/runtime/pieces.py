"""Tokenising a text of any size in bounded memory: piece by piece, to the ids of the whole.

A tokenizer takes some 150 bytes of memory a character, so a long text is read in pieces that
overlap, and two pieces are joined where they agree. What a cut changes lies near the cut: a word or
a run of digits that it falls into, a space put before the first word. Where both pieces begin the
same tokens, far from their ends, the tokens before are those of the left piece and the tokens after
those of the right one. Knows nothing about items, windows or special tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from poolc.errors import TextTooLong

Int64 = npt.NDArray[np.int64]

PIECE_CHARS = 1 << 18
# More of it where pieces do not agree: inside a word or run of spaces that is longer.
_OVERLAPS = (1 << 12, 1 << 15, 1 << 18)
# One token on which both pieces agree proves the join for WordPiece and BPE, whose later choices
# follow from where a token begins. Unigram's best path may in theory differ for longer.
_AGREEING_TOKENS = 16


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """Ids and the characters of the text that each stands for, all int64 [n]."""

    ids: Int64
    starts: Int64
    ends: Int64

    def __len__(self) -> int:
        return len(self.ids)

    def cut(self, part: slice) -> Tokens:
        """Return some of the tokens."""
        return Tokens(self.ids[part], self.starts[part], self.ends[part])

    def moved(self, chars: int) -> Tokens:
        """Return these with offsets counted from ``chars`` characters earlier."""
        return Tokens(self.ids, self.starts + chars, self.ends + chars)


Encode = Callable[[str], Tokens]
"""A text -> its tokens, without special ones."""


def read(text: str, encode: Encode, index: int) -> Iterator[Tokens]:
    """Yield the tokens of ``text``, in order, as they are when it is tokenised whole.

    Raises TextTooLong, naming the item ``index``, where pieces of the text do not agree: where a
    run of characters without a word's end is longer than what is read at once.
    """
    piece, end = encode(text[:PIECE_CHARS]), PIECE_CHARS
    while end < len(text):
        for overlap in _OVERLAPS:
            begin = max(0, end - overlap)
            following = encode(text[begin : end + PIECE_CHARS]).moved(begin)
            places = _agreement(piece, following)
            if places is not None:
                break
        else:
            raise TextTooLong(
                f"item {index} has {len(text)} characters, and those around character {end} form "
                f"no tokens of their own within {_OVERLAPS[-1]}: a text that is chunked is read in "
                "pieces, so split it",
                index=index,
            )
        yield piece.cut(slice(places[0]))
        piece, end = following.cut(slice(places[1], None)), end + PIECE_CHARS
    yield piece


def _agreement(left: Tokens, right: Tokens) -> tuple[int, int] | None:
    """Return a token that is the same in both, by its place in each: the middle of the longest run
    of equal tokens; None where no run is long enough."""
    if not len(left) or not len(right):
        return None
    first = int(np.searchsorted(left.starts, right.starts[0]))
    of_left = np.arange(first, len(left))
    of_right = np.searchsorted(right.starts, left.starts[of_left])
    # Tokens of one character's bytes share their start: count on from the first of them.
    of_right += of_left - np.searchsorted(left.starts, left.starts[of_left])
    inside = of_right < len(right)
    of_left, of_right = of_left[inside], of_right[inside]
    same = np.ones(len(of_left), np.bool_)
    for one, other in (
        (left.ids, right.ids),
        (left.starts, right.starts),
        (left.ends, right.ends),
    ):
        same &= one[of_left] == other[of_right]
    # A run is of neighbours in both.
    same[1:] &= (np.diff(of_right) == 1) | ~same[:-1]
    edges = np.flatnonzero(np.diff(np.concatenate(([0], same.astype(np.int8), [0]))))
    if not len(edges):
        return None
    begins, ends = edges[::2], edges[1::2]
    longest = int(np.argmax(ends - begins))
    if ends[longest] - begins[longest] < _AGREEING_TOKENS:
        return None
    middle = int(begins[longest] + ends[longest]) // 2
    return int(of_left[middle]), int(of_right[middle])
