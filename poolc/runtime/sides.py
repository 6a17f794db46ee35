"""Queries and documents of multi-vector models -> tokens: limits, markers, expansion, masks.

By the rules of ``MultiVectorEncoder`` of Sentence Transformers 6. Knows nothing about graphs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from poolc.runtime.items import is_text
from poolc.runtime.prompts import PLAIN, resolve_prompt
from poolc.runtime.request import Params, TokenSequence
from poolc.runtime.tokenize import How, TextTokenizer
from poolc.spec import Kind, ModelSpec, MultiVectorSpec, SideSpec, Task

_QUERY, _DOCUMENT = "query", "document"


@dataclass(frozen=True, slots=True)
class _Part:
    """Items of one side, and what errors call them."""

    items: Sequence[Any]
    indices: Sequence[int]
    params: Params


class SideTokenizer:
    """Tokenises validated items as the model's sides say."""

    def __init__(self, spec: ModelSpec, sides: MultiVectorSpec, tokenizer: TextTokenizer) -> None:
        self._spec = spec
        self._sides = sides
        self._tokenizer = tokenizer

    def applies(self, task: Task) -> bool:
        """Return whether a task's items have sides."""
        if task is Task.SCORE:
            return self._spec.kind is Kind.MULTI_VECTOR
        return task in (Task.EMBED_TOKENS, Task.EMBED_HYBRID)

    def check(self, task: Task, items: Sequence[Any], params: Params) -> None:
        """Raise what ``encode`` raises; only what may be too long is tokenised for it."""
        for part in self._parts(task, items, params, 0)[0]:
            self._tokenizer.check(part.items)
            if not params.truncate:
                self._tokenizer.check_lengths(part.items, **self._how(part))

    def encode(
        self, task: Task, items: Sequence[Any], params: Params, first_index: int
    ) -> tuple[list[TokenSequence], npt.NDArray[np.int64] | None]:
        """Return sequences and, for a score, which two of them each pair compares.

        A text that is both query and document is tokenised as both. Raises as
        ``TextTokenizer.encode`` does.
        """
        parts, pairs = self._parts(task, items, params, first_index)
        sequences = []
        for part in parts:
            side = self._side(part.params.side)
            found = self._tokenizer.encode(
                part.items, truncate=bool(params.truncate), **self._how(part)
            )
            found = self._with_markers(part, found)
            sequences += [self._masked(sequence, side) for sequence in found]
        return sequences, pairs

    def _with_markers(self, part: _Part, found: list[TokenSequence]) -> list[TokenSequence]:
        """Give texts whose beginning was cut off their side's marker back, as PyLate does.

        A hybrid model's prompt is text like any other, as its dense vector has it.
        """
        how = self._how(part)
        side = how["truncation_side"] or self._tokenizer.limits.truncation_side
        if not how["prefix"] or side != "left" or self._spec.kind is not Kind.MULTI_VECTOR:
            return found
        cut = [i for i, one in enumerate(found) if one.truncated and is_text(part.items[i])]
        marker = self._tokenizer.tokens([how["prefix"]])[0].ids
        how["max_length"] = self._tokenizer.limit(how["max_length"]) - len(marker)
        how["prefix"], how["indices"] = "", [part.indices[i] for i in cut]
        special = how["add_special_tokens"]
        start = len(self._tokenizer.frame().head) if special else 0
        ends = self._tokenizer.encode([part.items[i] for i in cut], truncate=True, **how)
        found = list(found)
        for i, end in zip(cut, ends, strict=True):
            types = end.type_ids
            found[i] = replace(
                end,
                ids=np.insert(end.ids, start, marker),
                type_ids=None if types is None else np.insert(types, start, [0] * len(marker)),
                truncated=True,
            )
        return found

    def _parts(
        self, task: Task, items: Sequence[Any], params: Params, first_index: int
    ) -> tuple[list[_Part], npt.NDArray[np.int64] | None]:
        if task is not Task.SCORE:
            indices = range(first_index, first_index + len(items))
            return [_Part(items, indices, params)], None
        pairs = np.empty((len(items), 2), np.int64)
        parts = []
        before = 0
        for column, side in enumerate((_QUERY, _DOCUMENT)):
            places: dict[str, int] = {}
            indices_of_side: list[int] = []
            for row, pair in enumerate(items):
                if pair[column] not in places:
                    indices_of_side.append(first_index + row)
                pairs[row, column] = before + places.setdefault(pair[column], len(places))
            parts.append(_Part(list(places), indices_of_side, replace(params, side=side)))
            before += len(places)
        return parts, pairs

    def _how(self, part: _Part) -> How:
        side, asked = self._side(part.params.side), part.params.max_length
        longest = self._spec.max_length
        # The side's limit holds unless a lower one was asked for; nonsense is refused further on.
        above = isinstance(asked, int) and side.max_length < asked <= longest
        return {
            "prefix": resolve_prompt(self._spec, part.params),
            "max_length": side.max_length if asked is None or above else asked,
            "add_special_tokens": part.params.add_special_tokens is not False,
            "truncation_side": part.params.truncation_side,
            "indices": part.indices,
        }

    def _side(self, name: str | None) -> SideSpec:
        sides = self._sides
        if name == PLAIN:
            return SideSpec(sides.max_length)
        if name is None:  # masked as a document, without its prompt and length
            return replace(sides.document, max_length=sides.max_length)
        return sides.query if name == _QUERY else sides.document

    def _masked(self, sequence: TokenSequence, side: SideSpec) -> TokenSequence:
        sequence = self._expanded(sequence, side)
        counted = np.ones(len(sequence), np.bool_)
        if side.skipped_ids:
            counted &= ~np.isin(sequence.ids, side.skipped_ids)
        if side.kept_ids:
            counted &= np.isin(sequence.ids, side.kept_ids)
        if self._sides.drops_first:
            counted[0] = False
        return sequence if counted.all() else replace(sequence, counted=counted)

    def _expanded(self, sequence: TokenSequence, side: SideSpec) -> TokenSequence:
        missing = (side.expand_to or 0) - len(sequence)
        if missing <= 0 or self._sides.expansion_id is None:
            return sequence
        filler = np.full(missing, self._sides.expansion_id, np.int64)
        types, attended = sequence.type_ids, None
        if types is not None:
            types = np.concatenate([types, np.zeros(missing, np.int64)])
        if not side.attend_expansion:
            attended = np.arange(len(sequence) + missing) < len(sequence)
        ids = np.concatenate([sequence.ids, filler])
        return replace(sequence, ids=ids, type_ids=types, attended=attended)
