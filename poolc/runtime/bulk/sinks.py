"""Writing the output of a job: JSON lines or one NumPy array, published whole.

Rows go to a hidden file beside the output; ``publish`` flushes it to disk and renames it, so that a
killed job leaves nothing that looks complete. ``<output>.meta.json`` describes the rows and follows
them into place: where it stands beside an output, it is that output's. An older output stays until
the new one replaces it, and comes back when that fails. Knows nothing about engines or tasks.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import orjson

from poolc.errors import InputError, InvalidOption

JSONL_SUFFIXES = (".jsonl", ".ndjson")
NPY_SUFFIX = ".npy"
STDOUT = "-"
META_SUFFIX = ".meta.json"


class Sink(ABC):
    """Takes one row after the other; ``path`` is where they will be, None for standard output."""

    def __init__(self, file: IO[bytes], path: Path | None) -> None:
        self._file = file
        self._path = path
        self.num_rows = 0

    def write(self, values: npt.NDArray[Any], fields: Mapping[str, Any]) -> None:
        """Append a row: arrays hold ``values``, JSON lines ``fields``. Raises InputError."""
        with _disk_errors(self._path):
            self._append(values, fields)
        self.num_rows += 1

    def publish(self, meta: Mapping[str, Any]) -> None:
        """Complete the rows and put them in place, described by ``meta``. Raises InputError."""
        with _disk_errors(self._path):
            self._complete()
            self._file.flush()
            if self._path is not None:
                _publish(self._file, self._path, meta)

    @abstractmethod
    def _append(self, values: npt.NDArray[Any], fields: Mapping[str, Any]) -> None: ...

    @abstractmethod
    def _complete(self) -> None: ...


class JsonlSink(Sink):
    """One JSON object a line."""

    def _append(self, values: npt.NDArray[Any], fields: Mapping[str, Any]) -> None:
        self._file.write(
            orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)
        )

    def _complete(self) -> None:
        pass


class NpySink(Sink):
    """One array of all rows, which have one shape and dtype."""

    _like: npt.NDArray[Any] = np.zeros((), np.float32)

    def _append(self, values: npt.NDArray[Any], fields: Mapping[str, Any]) -> None:
        if self.num_rows == 0:
            self._like = values
            self._write_header()
        self._file.write(values.tobytes())

    def _complete(self) -> None:
        self._file.seek(0)
        self._write_header()

    def _write_header(self) -> None:
        # NumPy pads the header so that the number of rows can be written again at the end.
        header = {
            "shape": (self.num_rows, *self._like.shape),
            "fortran_order": False,
            "descr": np.lib.format.dtype_to_descr(self._like.dtype),
        }
        np.lib.format.write_array_header_1_0(self._file, header)


def check_output(output: str, inputs: Sequence[Path]) -> None:
    """Refuse an output that could not be written, or only over an input, before any work.

    Raises InvalidOption for a suffix that is no format, InputError for a folder that is not there
    and for a file that is also an input, under another name or by its ``.meta.json`` too.
    """
    if output == STDOUT:
        return
    path = Path(output)
    if path.suffix.lower() not in (*JSONL_SUFFIXES, NPY_SUFFIX):
        raise InvalidOption(
            f"the output {path} has no known format; allowed: {', '.join(JSONL_SUFFIXES)} (JSON "
            f"lines), {NPY_SUFFIX} (one array), {STDOUT} (JSON lines to standard output)",
            param="output",
        )
    for written in (path, _meta_path(path)):
        if os.path.isdir(written):  # False where the name is too long, which writing will say
            raise InputError(f"the output {written} is a folder", param="output")
        for read in inputs:
            if _is_same_file(written, read):
                raise InputError(
                    f"the output {written} is the input {read}: name another file", param="output"
                )
    if not path.parent.is_dir():
        raise InputError(f"the output's folder {path.parent} does not exist", param="output")


@contextmanager
def open_sink(output: str) -> Iterator[Sink]:
    """Yield a sink in the output's format; what was not published is removed. Raises InputError."""
    if output == STDOUT:
        yield JsonlSink(sys.stdout.buffer, None)
        return
    path = Path(output)
    kind = NpySink if path.suffix.lower() == NPY_SUFFIX else JsonlSink
    with _disk_errors(path):
        file = _part(path).open("xb")
    with _removed_after(file):
        yield kind(file, path)


def _publish(file: IO[bytes], path: Path, meta: Mapping[str, Any]) -> None:
    meta_path = _meta_path(path)
    with _removed_after(_part(meta_path).open("xb")) as meta_file:
        meta_file.write(orjson.dumps(meta, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        meta_file.flush()
        os.fsync(meta_file.fileno())
        os.fsync(file.fileno())
        _replace_both((Path(file.name), path), (Path(meta_file.name), meta_path))
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _replace_both(rows: tuple[Path, Path], meta: tuple[Path, Path]) -> None:
    """Rename rows and description, each a (from, to); after an error the old ones are there."""
    old_meta, old_rows = _part(meta[1]), _part(rows[1])
    with contextlib.ExitStack() as undo:
        undo.callback(_restore, old_meta, meta[1])
        undo.callback(_restore, old_rows, rows[1])
        # The old description goes first: none may ever stand beside rows of another job.
        with contextlib.suppress(FileNotFoundError):
            os.replace(meta[1], old_meta)
        with contextlib.suppress(FileNotFoundError):
            _keep(rows[1], old_rows)
        if not os.path.lexists(rows[1]):
            undo.callback(rows[1].unlink, missing_ok=True)
        os.replace(*rows)
        os.replace(*meta)
        undo.pop_all()
    for old in (old_rows, old_meta):
        old.unlink(missing_ok=True)


def _keep(path: Path, aside: Path) -> None:
    try:
        os.link(path, aside, follow_symlinks=False)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without hard links: for a moment nothing is at ``path``
        os.replace(path, aside)


def _restore(aside: Path, path: Path) -> None:
    if os.path.lexists(aside):
        os.replace(aside, path)
        aside.unlink(missing_ok=True)  # renaming one link over another of a file keeps both


def _meta_path(path: Path) -> Path:
    return path.with_name(path.name + META_SUFFIX)


def _is_same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there (yet)
        return False


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


@contextmanager
def _removed_after(file: IO[bytes]) -> Iterator[IO[bytes]]:
    try:
        with file:
            yield file
    finally:
        with contextlib.suppress(FileNotFoundError):  # it was renamed: it is an output now
            os.unlink(file.name)


@contextmanager
def _disk_errors(path: Path | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if path is None:  # standard output: a reader that went away is the caller's to handle
            raise
        raise InputError(f"cannot write {path}: {error.strerror}", param="output") from error
