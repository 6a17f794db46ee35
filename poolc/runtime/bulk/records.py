"""Reading the inputs of a job: rows of all files in order, one record each.

A row that cannot be read is a record too, with its error: what becomes of it is the job's to say.
Knows nothing about models: whether a text is too long or empty is the engine's to say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from poolc.errors import InputError, InvalidOption
from poolc.runtime.bulk.columns import Columns, RowReader, Text
from poolc.runtime.bulk.formats import TABLES, Format
from poolc.runtime.bulk.inputs import Source, expand


class Place(NamedTuple):
    """Where a record came from: line of a file of lines, row of a table; both count from 1."""

    name: str
    number: int
    unit: str = "line"

    def __str__(self) -> str:
        return f"{self.name}, {self.unit} {self.number}"


class Position(NamedTuple):
    """How far the inputs were read: ``number`` lines or rows of the file ``source``."""

    source: int
    number: int


class TableRow(NamedTuple):
    """A row of an Arrow record batch, whose columns keep their types."""

    batch: Any
    row: int


class Record(NamedTuple):
    """One text or pair, or why there is none.

    ``kept`` is what goes to the output with its types, ``num_bytes`` what was read of the file
    since the record before, for progress.
    """

    item: Text
    id: Any
    place: Place
    position: Position
    num_bytes: int
    kept: Mapping[str, Any] | TableRow | None = None
    error: InputError | None = None


START = Position(0, 0)


def check_inputs(sources: Sequence[Source], columns: Columns, *, pairs: bool) -> None:
    """Refuse what can be refused before any work. Raises InvalidOption."""
    RowReader(columns, pairs=pairs)
    lone = [source for source in sources if source.format is Format.TEXT]
    if lone and pairs:
        raise InvalidOption(
            f"{lone[0].name}: pairs are read from two columns (JSON lines, CSV, Parquet, Arrow), "
            "and a text has one",
            param="inputs",
        )
    if lone and (columns.keep or columns.id):
        raise InvalidOption(
            f"{lone[0].name}: a file of texts has no columns to keep or to take ids from",
            param="columns",
        )


def read_files(inputs: Sequence[str | Path], columns: Columns, *, pairs: bool) -> Iterator[Record]:
    """Yield the records of files by name; a row that cannot be read is raised."""
    for record in read_records(expand(inputs), columns, pairs=pairs):
        if record.error is not None:
            raise record.error
        yield record


def read_records(
    sources: Sequence[Source], columns: Columns, *, pairs: bool, start: Position = START
) -> Iterator[Record]:
    """Yield the records behind ``start``, of all files in order.

    Raises InputError for a file that cannot be read, is damaged or has vanished.
    """
    # Here, so that texts are read without the libraries of tables.
    from poolc.runtime.bulk import lines, tables

    rows = RowReader(columns, pairs=pairs)
    for place, source in enumerate(sources):
        if place < start.source:
            continue
        skip = start.number if place == start.source else 0
        read = tables.read if source.format in TABLES else lines.read
        yield from read(source, place, rows, skip)
