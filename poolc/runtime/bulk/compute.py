"""Running one part: tokenise all of it, sort by length, execute, answer.

What runs together is ``Engine.plan`` of the part's lengths under the artifact's own budget: a
function of the part and the artifact. How many threads there are changes when a micro-batch runs,
never what is in it. Knows nothing about files.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from poolc.errors import InputError
from poolc.runtime.batching import MicroBatch
from poolc.runtime.bulk.answers import Column, array_of, columns_of
from poolc.runtime.bulk.dedupe import Distinct, Found, Known, digest_of
from poolc.runtime.bulk.parts import Part
from poolc.runtime.calls import windows
from poolc.runtime.engine import Engine
from poolc.runtime.request import Item, Params, Prepared, Row, TokenSequence
from poolc.spec import Task

OnBatch = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """What is done with every row."""

    task: Task
    params: Params
    dedupe: bool = False  # compute equal texts of a part once


@dataclass(frozen=True, slots=True, eq=False)
class Tokenised:
    """A part as the model sees it.

    ``pieces`` hold distinct texts in order; row ``rows[i]`` of the part has the text
    ``texts[i]`` of those, and ``failures`` says by row why there is none. Rows in ``borrowed`` have
    texts of earlier parts; ``digests`` name the distinct ones of this part for later parts.
    """

    part: Part
    pieces: list[Prepared]
    rows: list[int]
    texts: list[int]
    failures: dict[int, InputError]
    borrowed: dict[int, Found] = field(default_factory=dict)
    digests: list[bytes] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """The answers of a part: a value of each column for each of ``rows``, and why others failed.

    ``num_computed`` counts tokens with padding, ``num_tokens`` without. What rows in ``borrowed``
    say was computed in earlier parts, and ``distinct`` is for later ones.
    """

    part: Part
    rows: list[int]
    columns: list[Column]
    truncated: npt.NDArray[np.bool_]  # [len(rows)]
    failures: dict[int, InputError]
    num_tokens: int
    num_computed: int
    borrowed: dict[int, Found] = field(default_factory=dict)
    distinct: Distinct | None = None

    @property
    def num_truncated(self) -> int:
        """Rows of which tokens were cut off."""
        return int(self.truncated.sum())


def tokenise(engine: Engine, asked: Asked, part: Part, earlier: Known | None = None) -> Tokenised:
    """Validate and tokenise the texts of a part; what cannot be is among the failures.

    Texts that ``earlier`` knows are not tokenised again, and it learns those that are. Raises
    InputError for what is wrong with the job and not with a row.
    """
    failures = {
        row: record.error for row, record in enumerate(part.records) if record.error is not None
    }
    before: dict[Item, Found] = {}
    if earlier is not None:
        before = earlier.find({record.item for record in part.records})
    borrowed: dict[int, Found] = {}
    places: dict[Item, int] = {}
    first_rows: list[int] = []  # of each distinct text
    text_of: dict[int, int] = {}
    for row, record in enumerate(part.records):
        if row in failures:
            continue
        if record.item in before:
            borrowed[row] = before[record.item]
            continue
        place = places.setdefault(record.item, len(first_rows)) if asked.dedupe else None
        if place is None or place == len(first_rows):
            place = len(first_rows)
            first_rows.append(row)
        text_of[row] = place
    pieces, moved, refused = _prepared(engine, asked, part, first_rows)
    kept = [row for row in text_of if text_of[row] in moved]
    for row, place in text_of.items():
        if place in refused:
            failures[row] = _at_row(refused[place], part, row)
    texts = [moved[text_of[row]] for row in kept]
    digests: list[bytes] = []
    if earlier is not None:
        accepted = [row for place, row in enumerate(first_rows) if place in moved]
        digests = [digest_of(part.records[row].item) for row in accepted]
        earlier.add(part.number, digests)
    failures = dict(sorted(failures.items()))
    return Tokenised(part, pieces, kept, texts, failures, borrowed, digests)


def _prepared(
    engine: Engine, asked: Asked, part: Part, first_rows: Sequence[int]
) -> tuple[list[Prepared], dict[int, int], dict[int, InputError]]:
    """Tokenise distinct texts; return pieces, where each text is among them, and refused ones."""
    items = [part.records[row].item for row in first_rows]
    pieces: list[Prepared] = []
    moved: dict[int, int] = {}
    refused: dict[int, InputError] = {}
    start = 0
    for window in windows(items, engine.window_chars):
        at = start
        for found, size in _accepted(engine, asked, window, part.first_row, first_rows[start:]):
            if isinstance(found, Prepared):
                moved |= {at + i: len(moved) + i for i in range(size)}
                pieces.append(found)
            else:
                refused[at] = found
            at += size
        start += len(window)
    return pieces, moved, refused


def _accepted(
    engine: Engine, asked: Asked, items: list[Any], base: int, rows: Sequence[int]
) -> Iterator[tuple[Prepared | InputError, int]]:
    """Tokenise items; where one is refused halve them, until it stands alone."""
    try:
        yield (
            engine.prepare(asked.task, items, asked.params, first_index=base + rows[0]),
            len(items),
        )
    except InputError as error:
        if error.index is None:  # the job's mistake, not a row's
            raise
        if len(items) == 1:
            yield error, 1
            return
        half = len(items) // 2
        yield from _accepted(engine, asked, items[:half], base, rows)
        yield from _accepted(engine, asked, items[half:], base, rows[half:])


def _at_row(error: InputError, part: Part, row: int) -> InputError:
    """Return the error of a text as that of a row which has it."""
    index = part.first_row + row
    said = str(error).replace(f"item {error.index} ", f"item {index} ", 1)
    said = said.replace(f"item {error.index}:", f"item {index}:", 1)
    return type(error)(f"{part.records[row].place}: {said}", index=index, param=error.param)


class Running:
    """A part whose micro-batches are queued or run."""

    def __init__(self, engine: Engine, asked: Asked, tokenised: Tokenised) -> None:
        self._engine = engine
        self._asked = asked
        self._tokenised = tokenised
        self._sequences = [s for piece in tokenised.pieces for s in piece.sequences]
        self._lengths = [len(sequence) for sequence in self._sequences]
        self._started: deque[tuple[MicroBatch, Future[list[Row]]]] = deque()
        if not self._sequences:
            return
        output_set = tokenised.pieces[0].output_set
        for batch in engine.plan(self._lengths, streams=1):
            chosen: list[TokenSequence] = [self._sequences[i] for i in batch.indices]
            future = engine.executor.submit(engine.execute, chosen, output_set)
            self._started.append((batch, future))

    @property
    def num_tokens(self) -> int:
        """Tokens of the part, without padding."""
        return sum(self._lengths)

    def finish(self, on_batch: OnBatch) -> Answered:
        """Wait for all of it and return the answers.

        ``on_batch`` hears the tokens of each micro-batch that is done, without and with padding.
        Raises what a micro-batch raised, after cancelling the rest.
        """
        rows: list[Row] = [{}] * len(self._sequences)
        num_computed = 0
        try:
            while self._started:
                batch, future = self._started.popleft()
                for index, row in zip(batch.indices, future.result(), strict=True):
                    rows[index] = row
                num_computed += batch.num_tokens
                on_batch(sum(self._lengths[i] for i in batch.indices), batch.num_tokens)
        finally:
            self.cancel()
        return self._answered(rows, num_computed)

    def cancel(self) -> None:
        """Drop micro-batches that have not started."""
        for _, future in self._started:
            future.cancel()

    def _answered(self, rows: list[Row], num_computed: int) -> Answered:
        found = self._tokenised
        results, cut, start = [], [], 0
        for piece in found.pieces:
            stop = start + len(piece.sequences)
            results.append(self._engine.finish(piece, rows[start:stop]))
            cut.append(piece.truncated)
            start = stop
        columns: list[Column] = []
        truncated = np.zeros(0, np.bool_)
        if results:
            asked = self._asked
            columns = columns_of(self._engine.spec, asked.task, asked.params, results)
            truncated = np.concatenate(cut)
        distinct = None
        if found.digests:
            distinct = Distinct(array_of(columns), truncated, found.digests)
        if found.texts != list(range(len(truncated))):  # texts that occur again
            columns = [column.taken(found.texts) for column in columns]
            truncated = truncated[found.texts]
        num_tokens = sum(self._lengths)
        return Answered(
            found.part,
            found.rows,
            columns,
            truncated,
            found.failures,
            num_tokens,
            num_computed,
            found.borrowed,
            distinct,
        )
