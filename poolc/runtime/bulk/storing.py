"""How a part of a job becomes files: rows, errors, and the texts that later parts may borrow.

A plain description that can be pickled, so that another process may store a part; whether it
counts is for the owner of the ledger to say. Knows no places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from poolc.runtime.bulk.answers import Column, shape_and_dtype
from poolc.runtime.bulk.compute import Answered
from poolc.runtime.bulk.describe import describe
from poolc.runtime.bulk.formats import TABLES, Format
from poolc.runtime.bulk.job import BulkJob
from poolc.runtime.bulk.ledger import Done
from poolc.runtime.bulk.outputs import Array, JsonLines, Layout, Output, error_lines
from poolc.runtime.bulk.shelf import Stored
from poolc.runtime.bulk.subject import Subject
from poolc.runtime.bulk.table_outputs import ArrowFile, ArrowPart, ParquetFile, ParquetPart

Put = Callable[[str, Any], Stored]


@dataclass(frozen=True, slots=True)
class Storing:
    """The files of one job. ``of_parts``: the parts are the output, in a folder.

    ``first_index`` is the index of the job's first row, how many rows the output had before;
    ``num_before`` are the parts that an output folder had.
    """

    subject: Subject
    job: BulkJob
    of_parts: bool
    first_index: int = 0
    num_before: int = 0

    @property
    def needs_schema(self) -> bool:
        """Whether parts can be encoded only once the schema of the first one is known."""
        return self.job.format in TABLES

    def output(self, schema: Any = None) -> Output:
        """Return what encodes parts; ``schema`` is that of the parts before, of tables."""
        job = self.job
        layout = Layout(job.columns, bool(job.params.truncate), self.first_index)
        if job.format is Format.JSONL:
            return JsonLines(layout)
        if job.format is Format.NPY:
            return Array()
        is_parquet = job.format is Format.PARQUET
        if self.of_parts:
            return (ParquetPart if is_parquet else ArrowPart)(layout, self._describe, schema)
        return (ParquetFile if is_parquet else ArrowFile)(layout, schema)

    def store(self, output: Output, answered: Answered, put: Put) -> Done:
        """Put the files of a part; return what the ledger says of it.

        Raises InputError and InvalidOption for rows that do not fit those before.
        """
        part = answered.part
        name = f"part-{part.number + self.num_before:05d}"
        own = "_" if self.of_parts else ""  # readers of data sets skip such names
        data = output.encode(answered)
        told = error_lines(answered, self.first_index)
        lent = None if answered.distinct is None else answered.distinct.to_bytes()
        shape, dtype = (None, None) if data is None else shape_and_dtype(answered.columns)
        return Done(
            part.number,
            len(part.records),
            len(answered.rows),
            answered.num_truncated,
            answered.num_tokens,
            answered.num_computed,
            part.num_bytes,
            part.end,
            part.digest(),
            None if data is None else put(name + output.suffix, data),
            None if told is None else put(f"{own}{name}.errors", told),
            None if lent is None else put(f"{own}{name}.distinct", lent),
            None if shape is None else tuple(shape),
            dtype,
        )

    def _describe(self, columns: Sequence[Column]) -> dict[str, Any]:
        return describe(self.subject, self.job, *shape_and_dtype(columns))
