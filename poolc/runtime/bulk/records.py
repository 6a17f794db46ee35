"""Reading the inputs of a job: text files and JSON lines -> records, one line at a time.

Every error names the file and the line. Knows nothing about models: whether a text is too long or
empty is the engine's to say.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from poolc.errors import InputError, InvalidOption, InvalidText

TEXT_SUFFIXES = (".txt", ".text", "")
JSONL_SUFFIXES = (".jsonl", ".ndjson")

ID_COLUMN = "id"
# Columns that a pair is looked for in, when none were named.
PAIR_COLUMNS = (
    ("text_1", "text_2"),
    ("query", "document"),
    ("sentence1", "sentence2"),
)


@dataclass(frozen=True, slots=True)
class Columns:
    """Where the texts are in a JSON line; an unnamed pair is looked for in the first line."""

    text: str = "text"
    left: str | None = None
    right: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record came from; lines count from 1."""

    path: Path
    line: int

    def __str__(self) -> str:
        return f"{self.path}, line {self.line}"


@dataclass(frozen=True, slots=True)
class Record:
    """One text or pair. ``id`` is the line's own, None where it has none."""

    item: str | tuple[str, str]
    id: Any
    place: Place
    num_bytes: int  # of the line, for progress


_Picker = Callable[[Mapping[str, Any], Place], str | tuple[str, str]]


def check_inputs(paths: Sequence[Path], columns: Columns, *, pairs: bool) -> int:
    """Refuse what can be refused before any work; return the bytes of all inputs.

    Raises InputError for a file that cannot be read and InvalidOption for one of unknown format.
    """
    if not paths:
        raise InvalidOption("no input was given: name at least one file", param="inputs")
    if (columns.left is None) != (columns.right is None):
        raise InvalidOption("a pair has two columns: name both or none", param="columns")
    total = 0
    for path in paths:
        jsonl = _is_jsonl(path)
        if pairs and not jsonl:
            raise InvalidOption(
                f"{path}: pairs are read from two columns of JSON lines "
                f"({', '.join(JSONL_SUFFIXES)})",
                param="inputs",
            )
        try:
            with path.open("rb"):
                total += path.stat().st_size
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}", param="inputs") from error
    return total


def read_records(paths: Sequence[Path], columns: Columns, *, pairs: bool) -> Iterator[Record]:
    """Yield the records of all files in order.

    A text file has one text a line. A line of JSON is an object that holds the text in a column;
    lines of nothing but white space are skipped there. Raises InputError with file and line.
    """
    for path in paths:
        if _is_jsonl(path):
            yield from _read_jsonl(path, _pair_picker(columns) if pairs else _text_picker(columns))
        else:
            yield from _read_text(path)


def _is_jsonl(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix in JSONL_SUFFIXES:
        return True
    if suffix in TEXT_SUFFIXES:
        return False
    raise InvalidOption(
        f"{path}: inputs are text, one a line ({', '.join(s for s in TEXT_SUFFIXES if s)}, or no "
        f"suffix), or JSON lines ({', '.join(JSONL_SUFFIXES)}), not {suffix}",
        param="inputs",
    )


def _read_lines(path: Path) -> Iterator[tuple[str, Place, int]]:
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                place = Place(path, number)
                # A byte order mark is no part of the first text.
                start = 3 if number == 1 and raw.startswith(b"\xef\xbb\xbf") else 0
                try:
                    line = raw[start:].decode("utf-8")
                except UnicodeDecodeError as error:
                    raise InvalidText(
                        f"{place}: not valid UTF-8 at byte {start + error.start + 1} of the line"
                    ) from None
                yield line.rstrip("\r\n"), place, len(raw)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", param="inputs") from error


def _read_text(path: Path) -> Iterator[Record]:
    for line, place, num_bytes in _read_lines(path):
        yield Record(line, None, place, num_bytes)


def _read_jsonl(path: Path, pick: _Picker) -> Iterator[Record]:
    for line, place, num_bytes in _read_lines(path):
        if not line.strip():
            continue
        row = _parse(line, place)
        yield Record(pick(row, place), row.get(ID_COLUMN), place, num_bytes)


def _parse(line: str, place: Place) -> dict[str, Any]:
    try:
        row = orjson.loads(line)
    except json.JSONDecodeError as error:
        raise InvalidText(f"{place}: not JSON at column {error.colno}: {error.msg}") from None
    if not isinstance(row, dict):
        raise InvalidText(f'{place}: must be an object like {{"text": ...}}, not {_kind(row)}')
    return row


def _text_picker(columns: Columns) -> _Picker:
    return lambda row, place: _text(row, columns.text, place)


def _pair_picker(columns: Columns) -> _Picker:
    named = columns.left is not None and columns.right is not None
    found = (str(columns.left), str(columns.right)) if named else None

    def pick(row: Mapping[str, Any], place: Place) -> tuple[str, str]:
        nonlocal found
        if found is None:
            found = _find_pair(row, place)
        return _text(row, found[0], place), _text(row, found[1], place)

    return pick


def _find_pair(row: Mapping[str, Any], place: Place) -> tuple[str, str]:
    for left, right in PAIR_COLUMNS:
        if left in row and right in row:
            return left, right
    known = " or ".join(f"{left} and {right}" for left, right in PAIR_COLUMNS)
    raise InvalidText(
        f"{place}: no pair of columns {known}; it has {_names(row)}: name the two columns"
    )


def _text(row: Mapping[str, Any], column: str, place: Place) -> str:
    if column not in row:
        raise InvalidText(f"{place}: no column {column!r}; it has {_names(row)}: name the column")
    value = row[column]
    if not isinstance(value, str):
        raise InvalidText(f"{place}: column {column!r} must be a string, not {_kind(value)}")
    return value


def _names(row: Mapping[str, Any]) -> str:
    return ", ".join(repr(name) for name in row) or "none"


def _kind(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    kinds = {dict: "an object", list: "a list", str: "a string", int: "a number", float: "a number"}
    return kinds[type(value)]
