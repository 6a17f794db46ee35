"""Files of lines: texts, JSON lines, CSV. Every error names the file and the line."""

from __future__ import annotations

import csv
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import orjson

from poolc.errors import InputError, InvalidOption, InvalidText
from poolc.runtime.bulk.columns import RowReader, kind_of
from poolc.runtime.bulk.formats import Format
from poolc.runtime.bulk.inputs import Opened, Source, open_source
from poolc.runtime.bulk.records import Place, Position, Record

_MARK = b"\xef\xbb\xbf"  # a byte order mark is no part of the first text
_MOST_FIELD_CHARS = 1 << 30


def read(source: Source, place: int, rows: RowReader, skip: int) -> Iterator[Record]:
    """Yield the records of a file behind its first ``skip`` lines (of CSV: rows)."""
    with _file_errors(source):
        opened = open_source(source)
        try:
            if source.format in (Format.CSV, Format.TSV):
                yield from _read_csv(source, place, rows, skip, opened)
            else:
                yield from _read_lines(source, place, rows, skip, opened)
        finally:
            opened.close()


@contextmanager
def _file_errors(source: Source) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except (OSError, EOFError, zlib.error, csv.Error, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot read {source.name}: {reason}", param="inputs") from error


def _read_lines(
    source: Source, place: int, rows: RowReader, skip: int, opened: Opened
) -> Iterator[Record]:
    as_json = source.format is Format.JSONL
    before = 0
    for number, raw in enumerate(opened.file, start=1):
        if number == 1 and source.guessed:
            _check_guess(raw)
        if number <= skip:
            before = opened.position() if number == skip else 0  # counted by who read them
            continue
        if as_json and not raw.strip():
            continue
        where = Place(source.name, number)
        start = 3 if number == 1 and raw.startswith(_MARK) else 0
        now = opened.position()
        position, num_bytes, before = Position(place, number), now - before, now
        try:
            line = _decoded(raw, start)
            if not as_json:
                yield Record(line, None, where, position, num_bytes)
                continue
            row = _parse(line)
            yield Record(rows.text(row), rows.id(row), where, position, num_bytes, rows.kept(row))
        except InvalidText as error:
            yield _failed(error, where, position, num_bytes)


def _read_csv(
    source: Source, place: int, rows: RowReader, skip: int, opened: Opened
) -> Iterator[Record]:
    separator = "\t" if source.format is Format.TSV else ","
    csv.field_size_limit(_MOST_FIELD_CHARS)  # texts are longer than the module's 128 Ki
    # Bytes that are no UTF-8 become lone surrogates, so that they are refused row by row.
    text = io.TextIOWrapper(opened.file, "utf-8-sig", errors="surrogateescape", newline="")
    reader = csv.DictReader(text, delimiter=separator, strict=True)
    before = 0
    for number, row in enumerate(reader, start=1):
        if number <= skip:
            before = opened.position() if number == skip else 0  # counted by who read them
            continue
        where = Place(source.name, number, "row")
        now = opened.position()
        position, num_bytes, before = Position(place, number), now - before, now
        try:
            whole = _whole(row)
            yield Record(
                rows.text(whole), rows.id(whole), where, position, num_bytes, rows.kept(whole)
            )
        except InvalidText as error:
            yield _failed(error, where, position, num_bytes)
    text.detach()


def _check_guess(first: bytes) -> None:
    try:
        is_object = isinstance(orjson.loads(first), dict)
    except json.JSONDecodeError:
        return
    if is_object:
        raise InvalidOption(
            "standard input looks like JSON lines: say --input-format jsonl, or text to embed the "
            "lines as they are",
            param="input_format",
        )


def _failed(error: InvalidText, where: Place, position: Position, num_bytes: int) -> Record:
    named = InvalidText(f"{where}: {error}", index=error.index, param=error.param)
    return Record("", None, where, position, num_bytes, error=named)


def _decoded(raw: bytes, start: int) -> str:
    try:
        line = raw[start:].decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidText(
            f"not valid UTF-8 at byte {start + error.start + 1} of the line"
        ) from None
    return line.rstrip("\r\n")


def _parse(line: str) -> dict[str, Any]:
    try:
        row = orjson.loads(line)
    except json.JSONDecodeError as error:
        raise InvalidText(f"not JSON at column {error.colno}: {error.msg}") from None
    if not isinstance(row, dict):
        raise InvalidText(f'must be an object like {{"text": ...}}, not {kind_of(row)}')
    return row


def _check_utf8(name: str, value: str) -> None:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidText(f"column {name!r} is not valid UTF-8") from None


def _whole(row: Mapping[Any, Any]) -> Mapping[str, Any]:
    if None in row:
        raise InvalidText(f"has {len(row[None])} more fields than the header")
    missing = [name for name, value in row.items() if value is None]
    if missing:
        raise InvalidText(f"has no field {missing[0]!r}: it is shorter than the header")
    for name, value in row.items():
        if not value.isascii():
            _check_utf8(name, value)
    return row
