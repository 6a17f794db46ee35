"""Cutting the records of a job into parts: the unit that is computed, written and committed.

Where the cuts are is a function of the records and of ``Cut`` alone, never of time, cores or
memory. Knows nothing about files or engines.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import cast

from poolc.runtime.bulk.records import Position, Record, TableRow
from poolc.spec import Kind, ModelSpec, Task

# Sorted by length inside a part, this many texts leave 1 to 3 % of padding.
PART_ROWS = 32_768
_PART_CHARS = 1 << 26
# Results with a row a token are as large as their tokens: what a part of them may take.
_TOKEN_RESULT_BYTES = 1 << 28
_CHARS_PER_TOKEN = 3
_LEAST_CHARS = 1 << 16
_BY_TOKEN = (Task.EMBED_TOKENS, Task.ENCODE, Task.CLASSIFY_TOKENS)


@dataclass(frozen=True, slots=True)
class Cut:
    """A part ends with its ``rows``-th row, or with the row that makes it ``chars`` long."""

    rows: int = PART_ROWS
    chars: int = _PART_CHARS


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Consecutive records; ``first_row`` counts all records of the job before them."""

    number: int
    first_row: int
    records: list[Record]

    @property
    def end(self) -> Position:
        """How far the inputs were read for it."""
        return self.records[-1].position

    @property
    def num_bytes(self) -> int:
        """Bytes of the inputs that it was read from."""
        return sum(record.num_bytes for record in self.records)

    def digest(self) -> str:
        """Return a hash of its texts and ids, to tell whether inputs are what they were."""
        digest = hashlib.blake2b(digest_size=16)
        for record in self.records:
            item = record.item if isinstance(record.item, tuple) else (record.item,)
            said = "\0".join((*item, repr(record.id), "" if record.error is None else "!"))
            digest.update(said.encode("utf-8", "surrogatepass"))
            digest.update(b"\1")
        return digest.hexdigest()


def portable(part: Part) -> Part:
    """Return a part to be sent to another process: kept rows of tables hold those rows alone.

    A record batch is pickled whole, and many parts may hold rows of one.
    """
    batches: dict[int, list[int]] = {}
    for at, record in enumerate(part.records):
        if isinstance(record.kept, TableRow):
            batches.setdefault(id(record.kept.batch), []).append(at)
    if not batches:
        return part
    records = list(part.records)
    for members in batches.values():
        rows = [cast("TableRow", records[at].kept) for at in members]
        own = rows[0].batch.take([row.row for row in rows])
        for place, at in enumerate(members):
            records[at] = records[at]._replace(kept=TableRow(own, place))
    return replace(part, records=records)


def cut_for(spec: ModelSpec, task: Task, rows: int, memory_limit: int | None) -> Cut:
    """Return where parts end: by rows, or before texts and results take too much memory.

    Results with a row a token end a part by their bytes, a memory limit by a sixteenth of it.
    """
    chars = _PART_CHARS
    if task in _BY_TOKEN or (task is Task.REWARD and spec.kind is Kind.REWARD):
        width = len(spec.labels) or max(spec.hidden_size, spec.embedding_size or 0)
        chars = _TOKEN_RESULT_BYTES // (4 * width) * _CHARS_PER_TOKEN
    if memory_limit is not None:
        chars = min(chars, memory_limit // 16)
    return Cut(rows, max(chars, _LEAST_CHARS))


def cut(
    records: Iterable[Record], where: Cut, *, number: int = 0, first_row: int = 0
) -> Iterator[Part]:
    """Yield parts, the first of which is called ``number`` and begins with row ``first_row``."""
    held: list[Record] = []
    chars = 0
    for record in records:
        held.append(record)
        item = record.item
        chars += len(item) if isinstance(item, str) else len(item[0]) + len(item[1])
        if len(held) >= where.rows or chars >= where.chars:
            yield Part(number, first_row, held)
            number, first_row = number + 1, first_row + len(held)
            held, chars = [], 0
    if held:
        yield Part(number, first_row, held)
