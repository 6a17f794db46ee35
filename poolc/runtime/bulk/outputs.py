"""Formats of outputs: a part as bytes, and one file of many parts.

Equal answers give equal bytes. Knows nothing about where files lie.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import orjson

from poolc.errors import InputError, InvalidOption
from poolc.runtime.bulk.answers import Column, array_of, json_fields
from poolc.runtime.bulk.arrow import INDEX, TRUNCATED
from poolc.runtime.bulk.columns import Columns
from poolc.runtime.bulk.compute import Answered
from poolc.runtime.bulk.ledger import Done
from poolc.runtime.bulk.records import Record, TableRow

_COPY_BYTES = 1 << 20

Describe = Callable[[Sequence[Column]], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Layout:
    """What rows of an output say beside the answers. ``first_index`` is that of the job's first."""

    columns: Columns
    says_truncated: bool  # in JSON lines; tables always do
    first_index: int = 0


class Output(ABC):
    """One format. ``base`` is an older file of it that rows are appended to."""

    suffix: str
    has_meta = False  # whether the file itself says how its rows were made

    @property
    def schema(self) -> Any:
        """What all parts must fit, known after the first one; None of formats without types."""
        return None

    @abstractmethod
    def encode(self, answered: Answered) -> Any:
        """Return the bytes of a part; None where it has no rows to write."""

    @abstractmethod
    def assemble(
        self, parts: Iterable[tuple[Done, Any]], base: Any, file: IO[bytes], meta: Mapping[str, Any]
    ) -> None:
        """Write the rows of ``base`` (None: there is none) and of all parts.

        A part comes with its open file, None where it has none. Raises InputError where they do
        not fit.
        """


class JsonLines(Output):
    """One JSON object a line."""

    suffix = ".jsonl"

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def encode(self, answered: Answered) -> bytes | None:
        lines = io.BytesIO()
        fields = json_fields(answered.columns) if answered.rows else iter(())
        for row, cut, answer in zip(
            answered.rows, answered.truncated.tolist(), fields, strict=True
        ):
            record = answered.part.records[row]
            index = self._layout.first_index + answered.part.first_row + row
            own = self._own(record)
            check_names(own, (INDEX, TRUNCATED, *answer))
            line = {INDEX: index, **own, **answer}
            if self._layout.says_truncated:
                line[TRUNCATED] = cut
            lines.write(orjson.dumps(line, default=_plain, option=_JSON))
        return lines.getvalue() or None

    def _own(self, record: Record) -> dict[str, Any]:
        own = {} if record.id is None else {"id": record.id}
        if isinstance(record.kept, TableRow):
            kept = record.kept.batch.slice(record.kept.row, 1).to_pylist()[0]
            names = self._layout.columns
            kept = {n: v for n, v in kept.items() if names.keeps_all or n in names.keep}
        else:
            kept = dict(record.kept or {})
        return own | kept

    def assemble(
        self, parts: Iterable[tuple[Done, Any]], base: Any, file: IO[bytes], meta: Mapping[str, Any]
    ) -> None:
        if base is not None:
            _copy(base, file)
        for _, content in parts:
            if content is not None:
                _copy(content, file)


class Array(Output):
    """One NumPy array. Row i is row i of the input: one that failed is NaN, of integers 0."""

    suffix = ".bin"

    def encode(self, answered: Answered) -> Any:
        if not answered.rows:
            return None
        values = array_of(answered.columns)
        num_rows = len(answered.part.records)
        if len(values) < num_rows:
            whole = _blank((num_rows, *values.shape[1:]), values.dtype)
            whole[answered.rows] = values
            values = whole
        return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data

    def assemble(
        self, parts: Iterable[tuple[Done, Any]], base: Any, file: IO[bytes], meta: Mapping[str, Any]
    ) -> None:
        dtype, shape = np.dtype(meta["dtype"]), tuple(meta["row_shape"])
        if base is not None:
            _check_npy(base, dtype, shape)
        header = {
            "shape": (meta["rows"] + meta["rows_failed"], *shape),
            "fortran_order": False,
            "descr": np.lib.format.dtype_to_descr(dtype),
        }
        np.lib.format.write_array_header_1_0(file, header)
        if base is not None:
            _copy(base, file)
        for done, content in parts:
            if content is None:
                file.write(_blank((done.num_rows, *shape), dtype).tobytes())
            else:
                _copy(content, file)


def error_lines(answered: Answered, first_index: int) -> bytes | None:
    """Return JSON lines of the rows that failed: index, id, where, error and message."""
    lines = io.BytesIO()
    for row, error in answered.failures.items():
        record = answered.part.records[row]
        line = {
            INDEX: first_index + answered.part.first_row + row,
            **({} if record.id is None else {"id": record.id}),
            "input": record.place.name,
            record.place.unit: record.place.number,
            "error": type(error).__name__,
            "message": str(error),
        }
        lines.write(orjson.dumps(line, default=str, option=orjson.OPT_APPEND_NEWLINE))
    return lines.getvalue() or None


_JSON = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE


def check_names(kept: Iterable[str], taken: Sequence[str]) -> None:
    """Raise InvalidOption for a kept column that is called as an answer is."""
    for name in kept:
        if name in taken:
            raise InvalidOption(
                f"the input has a column {name!r}, as the answers have: name the columns to keep, "
                "without that one",
                param="keep",
            )


def _plain(value: Any) -> Any:
    """Return what orjson does not know as what it does: halves, bytes, decimals."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    return str(value)


def _blank(shape: Sequence[int], dtype: np.dtype[Any]) -> Any:
    return np.full(shape, np.nan if dtype.kind == "f" else 0, dtype)


def _check_npy(base: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Read past an array's header. Raises InputError for other rows."""
    version = np.lib.format.read_magic(base)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    found, fortran, kind = read[version](base)
    if fortran or kind != dtype or found[1:] != shape:
        raise InputError(
            f"the output to append to has rows of {list(found[1:])} {kind}, the new ones are "
            f"{list(shape)} {dtype}: write another file",
            param="output",
        )


def _copy(source: Any, target: IO[bytes]) -> None:
    while chunk := source.read(_COPY_BYTES):
        target.write(chunk)
