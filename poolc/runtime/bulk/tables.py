"""Files of columns: Parquet and Arrow IPC. Columns that are kept keep their types."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from poolc.errors import InputError, InvalidText
from poolc.runtime.bulk.columns import RowReader
from poolc.runtime.bulk.formats import Format, import_arrow
from poolc.runtime.bulk.inputs import Source, open_raw
from poolc.runtime.bulk.records import Place, Position, Record, TableRow

_BATCH_ROWS = 4096


def read(source: Source, place: int, rows: RowReader, skip: int) -> Iterator[Record]:
    """Yield the records of a file behind its first ``skip`` rows."""
    arrow = import_arrow("", f"reading {source.name}")
    with _file_errors(source, arrow):
        batches = _parquet if source.format is Format.PARQUET else _ipc
        for first, total, batch in batches(source, rows, skip):
            share = (source.num_bytes or 0) / max(total, 1)
            yield from _records(source, place, rows, first, batch, share)


def _records(
    source: Source, place: int, rows: RowReader, first: int, batch: Any, share: float
) -> Iterator[Record]:
    """Yield the records of a batch, whose rows behind ``first`` are new."""
    names = batch.schema.names
    columns = [batch.column(i).to_pylist() for i in range(len(names))]
    for at, values in enumerate(zip(*columns, strict=True)):
        number = first + at + 1
        where, position = Place(source.name, number, "row"), Position(place, number)
        num_bytes = int(number * share) - int((number - 1) * share)
        row = dict(zip(names, values, strict=True))
        try:
            kept = None if rows.kept(row) is None else TableRow(batch, at)
            yield Record(rows.text(row), rows.id(row), where, position, num_bytes, kept)
        except InvalidText as error:
            named = InvalidText(f"{where}: {error}")
            yield Record("", None, where, position, num_bytes, error=named)


def _parquet(source: Source, rows: RowReader, skip: int) -> Iterator[tuple[int, int, Any]]:
    parquet = import_arrow("parquet", f"reading {source.name}")
    with open_raw(source) as raw, parquet.ParquetFile(raw) as file:
        total = file.metadata.num_rows
        chosen = rows.names(file.schema_arrow.names)
        first, groups = 0, list(range(file.num_row_groups))
        while groups and first + file.metadata.row_group(groups[0]).num_rows <= skip:
            first += file.metadata.row_group(groups.pop(0)).num_rows
        for batch in file.iter_batches(_BATCH_ROWS, row_groups=groups, columns=chosen):
            yield from _behind(first, total, batch, skip)
            first += batch.num_rows


def _ipc(source: Source, rows: RowReader, skip: int) -> Iterator[tuple[int, int, Any]]:
    ipc = import_arrow("ipc", f"reading {source.name}")
    with open_raw(source) as raw, ipc.open_file(raw) as file:
        chosen = rows.names(file.schema.names)
        total = sum(file.get_batch(i).num_rows for i in range(file.num_record_batches))
        first = 0
        for i in range(file.num_record_batches):
            whole = file.get_batch(i)
            if chosen is not None:
                whole = whole.select(chosen)
            for start in range(0, whole.num_rows, _BATCH_ROWS):
                batch = whole.slice(start, _BATCH_ROWS)
                yield from _behind(first, total, batch, skip)
                first += batch.num_rows


def _behind(first: int, total: int, batch: Any, skip: int) -> Iterator[tuple[int, int, Any]]:
    before = min(max(skip - first, 0), batch.num_rows)
    if before < batch.num_rows:
        yield first + before, total, batch.slice(before)


@contextmanager
def _file_errors(source: Source, arrow: Any) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except (OSError, arrow.ArrowException) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(f"cannot read {source.name}: {reason}", param="inputs") from error
