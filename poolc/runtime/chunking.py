"""What happens to long texts: refused, cut or chunked; and how a chunked item becomes windows.

A window has at most as many tokens as the model takes, with the special tokens of a whole text and
the prompt. ``heads/embeddings.py`` averages the vectors of an item's windows. Knows nothing about
graphs or results.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from poolc.errors import InvalidOption
from poolc.runtime.excerpts import too_long
from poolc.runtime.frames import Body, Frame, windows
from poolc.runtime.items import check_item, is_text
from poolc.runtime.pieces import PIECE_CHARS, Tokens, read
from poolc.runtime.request import Item, Params, TokenSequence
from poolc.runtime.tokenize import How, TextTokenizer, checked, prefixed, runs
from poolc.spec import Kind, ModelSpec, Task

Int64 = npt.NDArray[np.int64]

SIDES = ("left", "right")


def chunks(spec: ModelSpec, task: Task, params: Params) -> bool:
    """Return whether the long texts of a request are chunked.

    Raises InvalidOption for policies that contradict each other, or that the task does not have.
    """
    _check_side(params)
    if params.chunk and params.truncate:
        raise InvalidOption(
            "chunk and truncate contradict each other: ask for windows of a long text "
            "(chunk=True), or for its beginning or end (truncate=True)",
            param="chunk",
        )
    averages = task in (Task.EMBED, Task.SCORE) and spec.kind in (Kind.EMBEDDING, Kind.HYBRID)
    if params.chunk and not averages:
        raise InvalidOption(
            f"chunk averages one vector a text, and {task} of this model has none: split the text, "
            "or ask for truncation (truncate=True)",
            param="chunk",
        )
    if params.chunk is None:
        return spec.chunk and averages and not params.truncate
    return params.chunk


def _check_side(params: Params) -> None:
    side = params.truncation_side
    if side is None:
        return
    if side not in SIDES:
        raise InvalidOption(
            f"truncation_side is {side!r}; allowed: {', '.join(SIDES)}", param="truncation_side"
        )
    if not params.truncate:
        raise InvalidOption(
            f"truncation_side is {side!r}, but nothing is cut off: ask for truncation "
            "(truncate=True) too",
            param="truncation_side",
        )


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Sequences, and where those of each item start and end: [items + 1], None for one each."""

    sequences: list[TokenSequence]
    edges: Int64 | None


class Chunker:
    """Tokenises items of any length. Thread-safe.

    ``most_tokens``: what an item may have, special tokens included; None for any number.
    """

    def __init__(self, tokenizer: TextTokenizer, most_tokens: int | None) -> None:
        self._tokenizer = tokenizer
        self._most_tokens = most_tokens

    def encode(self, items: Sequence[Item], **how: Unpack[How]) -> Windows:
        """Tokenise ``items`` in order.

        Token ids that begin and end with a whole text's special tokens get them in each window;
        others are cut as they are. Raises what ``TextTokenizer.encode`` does, and TextTooLong for
        an item of more than ``most_tokens``.
        """
        limits = self._tokenizer.limits
        indices = how.get("indices", range(len(items)))
        for item, index in zip(items, indices, strict=True):
            check_item(item, index, limits.vocab_size)
        sequences: list[TokenSequence] = []
        counts = []
        for run in runs(items):
            how["indices"] = indices[run]
            for own in self._run(items[run], how):
                sequences += own
                counts.append(len(own))
        return Windows(sequences, _edges(counts))

    def check_lengths(self, items: Sequence[Any], **how: Unpack[How]) -> None:
        """Raise TextTooLong for an item of more than ``most_tokens``, reading only suspects."""
        self._tokenizer.limit(how.get("max_length"))
        if self._most_tokens is None:
            return
        indices = how.get("indices", range(len(items)))
        for i in self._tokenizer.suspects(items, self._most_tokens, how):
            how["indices"] = [indices[i]]
            self.encode([items[i]], **how)

    @cached_property
    def _frame(self) -> Frame:
        return self._tokenizer.frame()

    def _run(self, items: Sequence[Any], how: How) -> Iterator[list[TokenSequence]]:
        limit = self._tokenizer.limit(how.get("max_length"))
        special = how.get("add_special_tokens", True)
        bodies = self._bodies(
            [prefixed(item, how.get("prefix", "")) for item in items if is_text(item)],
            [i for item, i in zip(items, how["indices"], strict=True) if is_text(item)],
            len(how.get("prefix", "")),
        )
        for item, index in zip(items, how["indices"], strict=True):
            frame = self._frame if special else Frame.empty()
            if is_text(item):
                body = next(bodies)
            else:
                body, frame = _of_ids(np.array(item, np.int64), frame)
            self._check_total(len(body.ids) + len(frame), index)
            types = self._tokenizer.limits.has_type_ids
            own = windows(body, frame, limit, types=types)
            if is_text(item):
                own = [self._tokenizer.without_prompt(one, limit, how) for one in own]
                # A last window that is all prompt, as the model counts it, adds nothing.
                own = [one for one in own if one.num_counted] or own[:1]
            checked(own[0], index)
            yield own

    def _bodies(self, texts: list[str], indices: list[int], prompt_chars: int) -> Iterator[Body]:
        if len(texts) > 1 or sum(map(len, texts)) <= PIECE_CHARS:
            for tokens in self._tokenizer.tokens(texts):
                yield Body(tokens.ids, _num_within(tokens, prompt_chars))
            return
        (text,), (index,) = texts, indices
        ids: list[Int64] = []
        num_prompt = num_tokens = 0
        for piece in read(text, lambda part: self._tokenizer.tokens([part])[0], index):
            num_prompt += _num_within(piece, prompt_chars)
            num_tokens += len(piece)
            self._check_total(num_tokens, index, "at least ")
            ids.append(piece.ids)
        yield Body(np.concatenate(ids), num_prompt)

    def _check_total(self, num_tokens: int, index: int, how_many: str = "") -> None:
        if self._most_tokens is not None and num_tokens > self._most_tokens:
            raise too_long(f"{how_many}{num_tokens}", self._most_tokens, index)


def _of_ids(ids: Int64, frame: Frame) -> tuple[Body, Frame]:
    """Return token ids without the special tokens that they carry, and those."""
    if not frame.holds(ids):
        return Body(ids), Frame.empty()
    return Body(ids[len(frame.head) : len(ids) - len(frame.tail)]), frame


def _num_within(tokens: Tokens, chars: int) -> int:
    """Return how many leading tokens lie within the first ``chars`` characters."""
    beyond = tokens.ends > chars
    return int(np.argmax(beyond)) if beyond.any() else len(tokens)


def _edges(counts: Sequence[int]) -> Int64 | None:
    if all(count == 1 for count in counts):
        return None
    return np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
