"""Windows of a long text: its tokens, framed by the special tokens of a whole text.

Knows nothing about tokenizers or requests.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from poolc.errors import InvalidOption
from poolc.runtime.request import TokenSequence

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """The special tokens before and after a whole text, and the segments of all three parts."""

    head: Int64
    tail: Int64
    head_types: Int64
    tail_types: Int64
    text_type: int = 0

    @classmethod
    def empty(cls) -> Frame:
        """No special tokens."""
        none = np.zeros(0, np.int64)
        return cls(none, none, none, none)

    def __len__(self) -> int:
        return len(self.head) + len(self.tail)

    def holds(self, ids: Int64) -> bool:
        """Return whether ``ids`` begin and end with these special tokens."""
        return len(ids) >= len(self) > 0 and (
            np.array_equal(ids[: len(self.head)], self.head)
            and np.array_equal(ids[len(ids) - len(self.tail) :], self.tail)
        )

    def around(self, ids: Int64, *, types: bool) -> TokenSequence:
        """Return the sequence of a text with these ids."""
        framed = np.concatenate((self.head, ids, self.tail))
        if not types:
            return TokenSequence(framed, None)
        segment = np.full(len(ids), self.text_type, np.int64)
        return TokenSequence(framed, np.concatenate((self.head_types, segment, self.tail_types)))


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """An item without its special tokens; the first ``num_prompt`` of its tokens are a prompt's."""

    ids: Int64
    num_prompt: int = 0


def windows(body: Body, frame: Frame, limit: int, *, types: bool) -> list[TokenSequence]:
    """Cut a text into sequences of at most ``limit`` tokens: one where it fits.

    Raises InvalidOption where special tokens and prompt leave no room for a token of the text.
    """
    if len(body.ids) + len(frame) <= limit:
        return [frame.around(body.ids, types=types)]
    prompt, text = body.ids[: body.num_prompt], body.ids[body.num_prompt :]
    room = limit - len(frame) - len(prompt)
    if room < 1:
        raise InvalidOption(
            f"windows have {limit} tokens, of which special tokens take {len(frame)} and the "
            f"prompt {len(prompt)}: no room is left for text; shorten the prompt or raise "
            "max_length",
            param="max_length",
        )
    starts = range(0, max(len(text), 1), room)
    return [
        frame.around(np.concatenate((prompt, text[start : start + room])), types=types)
        for start in starts
    ]
