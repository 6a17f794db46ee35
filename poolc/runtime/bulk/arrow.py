"""The answers of a part as an Arrow table: types of columns, one schema for all parts of a job.

Vectors are FixedSizeList of float32, float16, int8 or uint8; rows of different length are List.
The schema is that of the first part; what does not fit it later is an error, not another column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import orjson

from poolc.errors import InputError, InvalidOption
from poolc.runtime.bulk.answers import Values, shown_span
from poolc.runtime.bulk.columns import ID_COLUMN, Columns
from poolc.runtime.bulk.compute import Answered
from poolc.runtime.bulk.formats import import_arrow
from poolc.runtime.bulk.records import Record, TableRow
from poolc.runtime.outputs import Ragged
from poolc.runtime.sparse import SparseVectors

META_KEY = b"poolc"
INDEX, TRUNCATED = "index", "truncated"


class Tables:
    """Makes the table of each part. ``schema`` is known after the first, or given."""

    def __init__(self, columns: Columns, schema: Any = None) -> None:
        self._arrow = import_arrow("", "writing tables")
        self._columns = columns
        self.schema = None if schema is None else schema.remove_metadata()

    def table(self, answered: Answered, first_index: int) -> Any:
        """Return rows as a table: index, id, kept columns, answers, truncated.

        Raises InputError for values that do not have the type of those before, InvalidOption for a
        kept column that is called as an answer is.
        """
        records = [answered.part.records[row] for row in answered.rows]
        index = np.asarray(answered.rows, np.int64) + (answered.part.first_row + first_index)
        found: dict[str, Any] = {INDEX: self._arrow.array(index)}
        kept = self._kept(records)
        id_name = self._columns.id or ID_COLUMN
        if id_name not in kept and self._has_ids(records):
            found[ID_COLUMN] = self._ids(records)
        answers = {c.name: self.values(c.values) for c in answered.columns}
        answers[TRUNCATED] = self._arrow.array(answered.truncated)
        for name in kept:
            if name in (*found, *answers):
                raise InvalidOption(
                    f"the input has a column {name!r}, as the answers have: name the columns to "
                    "keep, without that one",
                    param="keep",
                )
        return self._fitted(self._arrow.table({**found, **kept, **answers}))

    def _has_ids(self, records: Sequence[Record]) -> bool:
        if self.schema is not None:
            return ID_COLUMN in self.schema.names
        return any(record.id is not None for record in records)

    def _ids(self, records: Sequence[Record]) -> Any:
        ids = [record.id for record in records]
        kinds = {type(value) for value in ids if value is not None}
        if len(kinds) > 1 or kinds & {dict, list}:
            ids = [_as_text(value) for value in ids]
        return self._inferred(ID_COLUMN, ids)

    def _kept(self, records: Sequence[Record]) -> Mapping[str, Any]:
        """Return the kept columns of rows, which keep their types where they come from a table."""
        if not self._columns.keep:
            return {}
        runs: list[Any] = []
        for is_table, group in groupby(records, lambda r: isinstance(r.kept, TableRow)):
            rows = [record.kept for record in group]
            runs.append(self._of_table(rows) if is_table else self._of_lines(rows))
        try:
            table = self._arrow.concat_tables(runs, promote_options="default")
        except self._arrow.ArrowException as error:
            raise InputError(f"kept columns differ between inputs: {error}") from error
        return {name: table.column(name) for name in table.column_names}

    def _of_table(self, rows: Sequence[Any]) -> Any:
        tables = []
        for _, run in groupby(enumerate(rows), lambda at: (id(at[1].batch), at[1].row - at[0])):
            members = [row for _, row in run]
            # A copy: the bits behind a slice's last row would be those of rows that are not in it.
            batch = members[0].batch.take(self._arrow.array([row.row for row in members]))
            tables.append(self._arrow.Table.from_batches([batch]))
        table = self._arrow.concat_tables(tables, promote_options="default")
        return table if self._columns.keeps_all else table.select(list(self._columns.keep))

    def _of_lines(self, rows: Sequence[Any]) -> Any:
        names = dict.fromkeys(name for row in rows for name in row)
        return self._arrow.table(
            {name: self._inferred(name, [row.get(name) for row in rows]) for name in names}
        )

    def _inferred(self, name: str, values: list[Any]) -> Any:
        kind = None
        if self.schema is not None and name in self.schema.names:
            kind = self.schema.field(name).type
        try:
            if kind is not None and self._arrow.types.is_string(kind):
                values = [_as_text(value) for value in values]
            array = self._arrow.array(values, type=kind)
        except self._arrow.ArrowException as error:
            raise InputError(
                f"the column {name!r} has values of several types: {error}; keep other columns, or "
                "write JSON lines",
                param="keep",
            ) from error
        return array.cast(self._arrow.string()) if array.type == self._arrow.null() else array

    def values(self, values: Values) -> Any:
        """Return answers as an Arrow array, by the type that they have in every table."""
        arrow = self._arrow
        if isinstance(values, np.ndarray):
            return self._numbers(values)
        if isinstance(values, Ragged):
            return self._lists(values.offsets, self._numbers(values.values))
        if isinstance(values, SparseVectors):
            indices = self._lists(values.indptr, arrow.array(values.indices))
            weights = self._lists(values.indptr, arrow.array(values.values))
            return arrow.StructArray.from_arrays([indices, weights], ["indices", "values"])
        if all(isinstance(row, list) for row in values):
            shown = [[shown_span(span) for span in row] for row in values if isinstance(row, list)]
            return arrow.array(shown, arrow.list_(self._span()))
        return arrow.array(values, arrow.string())

    def _numbers(self, values: Any) -> Any:
        flat = self._arrow.array(np.ascontiguousarray(values).reshape(-1))
        if values.ndim == 1:
            return flat
        return self._arrow.FixedSizeListArray.from_arrays(flat, values.shape[1])

    def _lists(self, offsets: Any, values: Any) -> Any:
        return self._arrow.ListArray.from_arrays(
            self._arrow.array(np.asarray(offsets, np.int32)), values
        )

    def _span(self) -> Any:
        arrow = self._arrow
        text, number = arrow.string(), arrow.int64()
        return arrow.struct(
            {
                "label": text,
                "score": arrow.float32(),
                "word": text,
                "start": number,
                "end": number,
            }.items()
        )

    def _fitted(self, table: Any) -> Any:
        """Return the table in the schema of the parts before it."""
        if self.schema is None:
            self.schema = table.schema.remove_metadata()
        missing = [name for name in self.schema.names if name not in table.column_names]
        extra = [name for name in table.column_names if name not in self.schema.names]
        if extra:
            raise InputError(
                f"column {extra[0]!r} is in none of the rows before: name the columns to keep, or "
                "write JSON lines",
                param="keep",
            )
        for name in missing:
            kind = self.schema.field(name).type
            table = table.append_column(name, self._arrow.nulls(table.num_rows, kind))
        try:
            return table.select(self.schema.names).cast(self.schema)
        except self._arrow.ArrowException as error:
            raise InputError(
                f"a column has another type than in the rows before: {error}"
            ) from error


def with_meta(schema: Any, meta: Mapping[str, Any]) -> Any:
    """Return a schema that says how its rows were made."""
    return schema.with_metadata({META_KEY: orjson.dumps(meta, option=orjson.OPT_SORT_KEYS)})


def meta_of(schema: Any) -> dict[str, Any] | None:
    """Return what a schema says of its rows; None for one that poolc did not write."""
    content = (schema.metadata or {}).get(META_KEY)
    found = None if content is None else orjson.loads(content)
    return found if isinstance(found, dict) else None


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return orjson.dumps(value, default=str).decode()
