"""The items of a request -> token sequences: budgets, prompts, pairs, routes, windows.

Knows nothing about graphs or results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from poolc.errors import InvalidText
from poolc.runtime.budgets import check_budgets, within_budgets
from poolc.runtime.chunking import Chunker, Windows, chunks
from poolc.runtime.items import all_texts
from poolc.runtime.pair_prompts import PairPrompts, PromptMaker
from poolc.runtime.prompts import DOCUMENT_PROMPT, QUERY_PROMPT, resolve_prompt
from poolc.runtime.request import Item, Params, Spelling, TokenSequence
from poolc.runtime.routes import Route, choose_route
from poolc.runtime.sides import SideTokenizer
from poolc.runtime.tokenize import How, TextTokenizer
from poolc.spec import Kind, ModelSpec, Task

# Tasks whose items are single texts.
_EMBEDS = (Task.EMBED, Task.EMBED_SPARSE, Task.EMBED_TOKENS, Task.EMBED_HYBRID)

Cut = Sequence[tuple[bool, bool]]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """Sequences, and what ``Prepared`` has to know of them."""

    sequences: list[TokenSequence]
    route: str = ""
    pairs: Int64 | None = None
    edges: Int64 | None = None
    spelling: Spelling | None = None


@dataclass(frozen=True, slots=True)
class _Part:
    """Items that are tokenised in one way; which of them were shortened before."""

    items: Sequence[Item]
    how: How
    route: str
    cut: Sequence[bool]
    prompts: PairPrompts | None  # what makes prompts of pairs


class Reader:
    """Reads the items of requests that ``heads.check_params`` let pass."""

    def __init__(self, spec: ModelSpec, routes: Mapping[str, Route], prompts: PromptMaker) -> None:
        self._spec = spec
        self._routes = routes
        self._prompts = prompts
        self._tokenizer = routes[""].tokenizer
        left, right = (self._tokenizer_of(side) for side in (QUERY_PROMPT, DOCUMENT_PROMPT))
        self._of_sides = left, right
        self._chunkers = {
            name: Chunker(route.tokenizer, route.spec.max_embed_length)
            for name, route in routes.items()
        }
        sides = spec.multi_vector
        self._sides = None if sides is None else SideTokenizer(spec, sides, self._tokenizer)

    def check(self, task: Task, items: Sequence[Item], params: Params) -> None:
        """Raise what ``read`` raises; only what may be too long is tokenised for it."""
        indices = range(len(items))
        items, cut = self._shortened(task, items, params, indices)
        if self._sides is not None and self._sides.applies(task):
            self._sides.check(task, items, params)
            return
        for part in self._parts(task, items, params, indices, cut)[0]:
            self._check_part(task, part, params)

    def read(self, task: Task, items: Sequence[Item], params: Params, first_index: int) -> Reading:
        """Tokenise items. Errors count them from ``first_index``.

        Raises InvalidText, TextTooLong or InvalidOption.
        """
        indices = range(first_index, first_index + len(items))
        items, cut = self._shortened(task, items, params, indices)
        if self._sides is not None and self._sides.applies(task):
            sequences, pairs = self._sides.encode(task, items, params, first_index)
            if pairs is not None:
                _mark(sequences, pairs[np.array(cut)], None)
            return Reading(sequences, pairs=pairs)
        parts, pairs = self._parts(task, items, params, indices, cut)
        found = [self._encoded(task, part, params) for part in parts]
        tokenizer = self._routes[parts[0].route].tokenizer
        return Reading(
            [sequence for windows in found for sequence in windows.sequences],
            parts[0].route,
            pairs,
            _joined_edges(found),
            tokenizer.spelling if parts[0].how.get("sources") else None,
        )

    def _shortened(
        self, task: Task, items: Sequence[Item], params: Params, indices: Sequence[int]
    ) -> tuple[list[Any], list[tuple[bool, bool]]]:
        """Validate items; cut the texts of pairs to their budgets, and say which were cut."""
        chunks(self._spec, task, params)  # refuses policies that contradict each other
        _check_shape(task, items, indices)
        pairs = self._spec.kind is Kind.CLASSIFIER or task is Task.SCORE
        check_budgets(params, self._spec.max_length, pairs=pairs)
        self._prompts.prompts(params)  # refuses a template or instruction that has no place
        return within_budgets(items, params, self._of_sides, indices)

    def _tokenizer_of(self, side: str) -> TextTokenizer:
        router = self._spec.router
        route = router.sides.get(side, router.main) if router else ""
        return self._routes["" if router and route == router.main else route].tokenizer

    def _check_part(self, task: Task, part: _Part, params: Params) -> None:
        tokenizer = self._routes[part.route].tokenizer
        tokenizer.check(part.items)
        if chunks(self._spec, task, params):
            self._chunkers[part.route].check_lengths(part.items, **part.how)
        elif params.truncate:
            return
        elif part.prompts is not None:
            part.prompts.check_lengths(part.items, part.how)
        else:
            tokenizer.check_lengths(part.items, **part.how)

    def _parts(
        self,
        task: Task,
        items: Sequence[Any],
        params: Params,
        indices: Sequence[int],
        cut: Cut,
    ) -> tuple[list[_Part], Int64 | None]:
        """Return what is tokenised, and for a score of vectors which items each pair compares."""
        if task is not Task.SCORE or self._spec.kind is Kind.CLASSIFIER:
            was_cut = [left or right for left, right in cut]
            return [self._part(task, items, params, indices, was_cut)], None
        if self._spec.router is None:
            sides: Sequence[tuple[str | None, Sequence[int]]] = [(None, (0, 1))]
        else:  # the two texts take routes of their own
            sides = [(QUERY_PROMPT, (0,)), (DOCUMENT_PROMPT, (1,))]
        parts: list[_Part] = []
        columns: list[Int64] = []
        num_before = 0
        for side, chosen in sides:
            texts, places = _distinct(items, cut, chosen)
            # Errors name the first pair that a distinct text occurs in.
            first = np.unique(places, return_index=True)[1] // places.shape[1]
            names = [indices[row] for row in first.tolist()]
            asked = params if side is None else replace(params, side=side)
            was_cut = [one for _, one in texts]
            parts.append(self._part(task, [text for text, _ in texts], asked, names, was_cut))
            columns.append(places + num_before)
            num_before += len(texts)
        return parts, np.concatenate(columns, axis=1)

    def _part(
        self,
        task: Task,
        items: Sequence[Any],
        params: Params,
        indices: Sequence[int],
        cut: Sequence[bool],
    ) -> _Part:
        prompts = self._prompts.prompts(params)
        how: How = {
            "prefix": self._prefix(task, params, templated=prompts is not None),
            "max_length": params.max_length,
            "add_special_tokens": params.add_special_tokens is not False,
            "truncation_side": params.truncation_side,
            "count_prefix": self._spec.include_prompt,
            "indices": indices,
            "sources": params.aggregation not in (None, "none"),
        }
        route = choose_route(self._spec, task, params)
        return _Part(items, how, route, cut, prompts)

    def _prefix(self, task: Task, params: Params, *, templated: bool) -> str:
        if self._spec.embedding_size is not None and task in (*_EMBEDS, Task.SCORE):
            return resolve_prompt(self._spec, params)
        # A cross-encoder's own stands before the left text. A template has words of its own.
        classifies = self._spec.kind is Kind.CLASSIFIER and task is not Task.ENCODE
        return resolve_prompt(self._spec, params) if classifies and not templated else ""

    def _encoded(self, task: Task, part: _Part, params: Params) -> Windows:
        if chunks(self._spec, task, params):
            found = self._chunkers[part.route].encode(part.items, **part.how)
        elif part.prompts is not None:
            truncate = bool(params.truncate)
            found = Windows(part.prompts.encode(part.items, truncate=truncate, how=part.how), None)
        else:
            tokenizer = self._routes[part.route].tokenizer
            truncate = bool(params.truncate)
            found = Windows(tokenizer.encode(part.items, truncate=truncate, **part.how), None)
        places = np.flatnonzero(part.cut)
        _mark(found.sequences, places, found.edges)
        if self._spec.router is None:
            return found
        return replace(found, sequences=[replace(s, route=part.route) for s in found.sequences])


def _mark(sequences: list[TokenSequence], items: Int64, edges: Int64 | None) -> None:
    """Note which items were shortened before, on the first sequence of each."""
    for item in items.tolist():
        place = item if edges is None else int(edges[item])
        sequences[place] = replace(sequences[place], truncated=True)


def _joined_edges(found: Sequence[Windows]) -> Int64 | None:
    if all(windows.edges is None for windows in found):
        return None
    counts = [
        np.ones(len(w.sequences), np.int64) if w.edges is None else np.diff(w.edges) for w in found
    ]
    return np.concatenate(([0], np.cumsum(np.concatenate(counts)))).astype(np.int64)


def _check_shape(task: Task, items: Sequence[Item], indices: Sequence[int]) -> None:
    if not len(items):
        raise InvalidText("the list of texts is empty: pass at least one")
    if task not in (Task.SCORE, *_EMBEDS) or (task in _EMBEDS and all_texts(items)):
        return
    for item, index in zip(items, indices, strict=True):
        if task is Task.SCORE and not _is_pair(item):
            raise InvalidText(f"item {index}: a score compares a pair of strings", index=index)
        if task in _EMBEDS and isinstance(item, tuple):
            raise InvalidText(f"item {index}: {task} takes single texts, not pairs", index=index)


def _is_pair(item: object) -> bool:
    return isinstance(item, tuple) and len(item) == 2 and all(isinstance(t, str) for t in item)


def _distinct(
    items: Sequence[tuple[str, str]], cut: Cut, columns: Sequence[int]
) -> tuple[list[tuple[str, bool]], Int64]:
    """Return the distinct texts of some columns of pairs, each with whether it was cut, and where
    each pair's are: [n, columns] (one query, N documents -> N + 1)."""
    positions: dict[tuple[str, bool], int] = {}
    places = [
        [
            positions.setdefault((pair[column], was_cut[column]), len(positions))
            for column in columns
        ]
        for pair, was_cut in zip(items, cut, strict=True)
    ]
    return list(positions), np.array(places, np.int64)
