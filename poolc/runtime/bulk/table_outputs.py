"""Outputs that are tables: Parquet and Arrow IPC, as one file or as a folder of parts.

Equal answers give equal bytes. Columns and types are ``arrow.py``'s to say.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import IO, Any

from poolc.runtime.bulk.answers import Column
from poolc.runtime.bulk.arrow import Tables, meta_of, with_meta
from poolc.runtime.bulk.compute import Answered
from poolc.runtime.bulk.formats import Format, import_arrow
from poolc.runtime.bulk.ledger import Done
from poolc.runtime.bulk.outputs import Layout, Output

Describe = Callable[[Sequence[Column]], Mapping[str, Any]]


class ArrowFile(Output):
    """Arrow IPC, a record batch a part."""

    suffix = ".arrow"
    has_meta = True

    def __init__(self, layout: Layout, schema: Any = None) -> None:
        self.tables = Tables(layout.columns, schema)
        self._first_index = layout.first_index
        self._arrow = import_arrow("", "writing tables")
        self._ipc = import_arrow("ipc", "writing tables")

    @property
    def schema(self) -> Any:
        return self.tables.schema

    def encode(self, answered: Answered) -> Any:
        if not answered.rows:
            return None
        table = self.tables.table(answered, self._first_index).combine_chunks()
        sink = self._arrow.BufferOutputStream()
        with self._ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=max(table.num_rows, 1))
        return sink.getvalue()

    def assemble(
        self, parts: Iterable[tuple[Done, Any]], base: Any, file: IO[bytes], meta: Mapping[str, Any]
    ) -> None:
        schema = with_meta(self.tables.schema, meta)
        with self._ipc.new_file(file, schema) as writer:
            for table in self.pieces(parts, base):
                writer.write_table(table, max_chunksize=max(table.num_rows, 1))

    def pieces(self, parts: Iterable[tuple[Done, Any]], base: Any) -> Iterable[Any]:
        """Yield the tables of base and parts, in one schema, one at a time."""
        if base is not None:
            yield from self._base_tables(base)
        for _, content in parts:
            if content is not None:
                with self._ipc.open_file(content) as reader:
                    yield reader.read_all().cast(self.tables.schema)

    def _base_tables(self, base: Any) -> Iterable[Any]:
        with self._ipc.open_file(base) as reader:
            for i in range(reader.num_record_batches):
                table = self._arrow.Table.from_batches([reader.get_batch(i)])
                yield table.cast(self.tables.schema)


class ParquetFile(ArrowFile):
    """Parquet, a row group a part, compressed with zstd. Parts wait as Arrow, uncompressed."""

    def __init__(self, layout: Layout, schema: Any = None) -> None:
        super().__init__(layout, schema)
        self._parquet = import_arrow("parquet", "writing Parquet")

    def assemble(
        self, parts: Iterable[tuple[Done, Any]], base: Any, file: IO[bytes], meta: Mapping[str, Any]
    ) -> None:
        self._write(self.pieces(parts, base), file, meta)

    def _write(self, tables: Iterable[Any], file: Any, meta: Mapping[str, Any]) -> None:
        schema = with_meta(self.tables.schema, meta)
        # A dictionary of vectors would be as large as the vectors.
        flat = [f.name for f in schema if not self._arrow.types.is_nested(f.type)]
        with self._parquet.ParquetWriter(
            file, schema, compression="zstd", use_dictionary=flat
        ) as writer:
            for table in tables:
                writer.write_table(table.replace_schema_metadata(schema.metadata), table.num_rows)

    def _base_tables(self, base: Any) -> Iterable[Any]:
        reader = self._parquet.ParquetFile(base)
        for i in range(reader.num_row_groups):
            yield reader.read_row_group(i).cast(self.tables.schema)


class ParquetPart(ParquetFile):
    """Parquet files that are the output themselves, one a part, each with the meta."""

    suffix = ".parquet"

    def __init__(self, layout: Layout, describe: Describe, schema: Any = None) -> None:
        super().__init__(layout, schema)
        self._describe = describe

    def encode(self, answered: Answered) -> Any:
        if not answered.rows:
            return None
        table = self.tables.table(answered, self._first_index)
        sink = self._arrow.BufferOutputStream()
        self._write([table], sink, self._describe(answered.columns))
        return sink.getvalue()


class ArrowPart(ArrowFile):
    """Arrow IPC files that are the output themselves, one a part, each with the meta."""

    def __init__(self, layout: Layout, describe: Describe, schema: Any = None) -> None:
        super().__init__(layout, schema)
        self._describe = describe

    def encode(self, answered: Answered) -> Any:
        if not answered.rows:
            return None
        table = self.tables.table(answered, self._first_index).combine_chunks()
        sink = self._arrow.BufferOutputStream()
        meta = self._describe(answered.columns)
        with self._ipc.new_file(sink, with_meta(table.schema, meta)) as writer:
            writer.write_table(table, max_chunksize=max(table.num_rows, 1))
        return sink.getvalue()


def schema_of(kind: Format, file: Any) -> Any:
    """Return the Arrow schema of a table file."""
    if kind is Format.PARQUET:
        return _parquet_schema(file)
    with import_arrow("ipc", "reading Arrow").open_file(file) as reader:
        return reader.schema


def _parquet_schema(file: Any) -> Any:
    """Return the schema as it was written: reading adds ids of fields, which writing would keep."""
    metadata = import_arrow("parquet", "reading Parquet").read_metadata(file)
    written = (metadata.metadata or {}).get(b"ARROW:schema")
    if written is None:
        return metadata.schema.to_arrow_schema()
    arrow, ipc = import_arrow("", "reading Parquet"), import_arrow("ipc", "reading Parquet")
    return ipc.read_schema(arrow.py_buffer(base64.b64decode(written)))


def meta_in(kind: Format, file: Any) -> dict[str, Any] | None:
    """Return what a table file says of how its rows were made; None for one of another writer."""
    return meta_of(schema_of(kind, file))
