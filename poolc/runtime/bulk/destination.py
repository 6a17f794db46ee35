"""Where the output of a job goes: a file or a folder of parts, on a disk or in an object store.

A file is assembled of its parts and replaced in one step; in a folder the parts are the output.
Knows places, nothing about formats.
"""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import orjson

from poolc.errors import InputError
from poolc.runtime.bulk import storage
from poolc.runtime.bulk.inputs import Source
from poolc.runtime.bulk.publish import clear_drafts, meta_bytes, meta_place, publish, write_beside
from poolc.runtime.bulk.shelf import (
    LocalParts,
    LocalShelf,
    Parts,
    Shelf,
    Stored,
    disk_errors,
    has_ledger,
)

STDOUT = "-"
JOB_SUFFIX = ".poolc"
ERRORS_SUFFIX = ".errors.jsonl"
# In a folder of parts; readers of data sets skip names that begin with an underscore.
FOLDER_JOB, FOLDER_META, FOLDER_ERRORS = "_poolc", "_poolc.json", "_errors.jsonl"
_COPY_BYTES = 1 << 22
WHOLE = "whole"

Assemble = Callable[[IO[bytes]], None]


class Destination(ABC):
    """One output. ``of_parts``: the parts are the output, and nothing is assembled."""

    of_parts = False

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def check(self, sources: Sequence[Source]) -> None:
        """Refuse what could not be written, or only over an input, before any work."""

    @abstractmethod
    def shelf(self) -> Shelf:
        """Open the shelf of the job."""

    @abstractmethod
    def open_parts(self, token: str) -> Parts | None:
        """Return where a process puts parts that the job's owner let in; see ``Shelf.admit``.

        None where the place cannot be reached from here, or another run has taken over.
        """

    @abstractmethod
    def unfinished(self) -> bool:
        """Return whether a job of this output was cut short."""

    @abstractmethod
    def identity(self) -> list[Any] | None:
        """Return size and time of what is there now; None where nothing is."""

    @abstractmethod
    def open_base(self) -> Any:
        """Open the file that is there now."""

    @abstractmethod
    def meta(self) -> dict[str, Any] | None:
        """Return the description beside the output, None where none is."""

    @abstractmethod
    def errors_name(self) -> str:
        """Return where the rows that failed are told."""

    @abstractmethod
    def put_errors(self, data: bytes | None) -> None:
        """Write the rows that failed; None removes an older file of them."""

    @abstractmethod
    def draft(self, shelf: Shelf, assemble: Assemble) -> Stored:
        """Assemble the whole output beside its parts."""

    @abstractmethod
    def holds(self, whole: Stored) -> bool:
        """Return whether an assembled output is still there, beside its parts or in place."""

    @abstractmethod
    def finish(self, shelf: Shelf, whole: Stored | None, meta: Mapping[str, Any] | None) -> None:
        """Put the output in place, described by ``meta`` unless it describes itself."""


class LocalFile(Destination):
    """A file on a disk."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._path = Path(name)
        self._job = self._path.with_name(self._path.name + JOB_SUFFIX)

    def check(self, sources: Sequence[Source]) -> None:
        for written in (self._path, meta_place(self._path), Path(self.errors_name())):
            if os.path.isdir(written):  # False where the name is too long, which writing will say
                raise InputError(
                    f"the output {written} is a folder: for a folder of parts end its name with /",
                    param="output",
                )
            for source in sources:
                if source.remote is None and _is_same_file(written, Path(source.name)):
                    raise InputError(
                        f"the output {written} is the input {source.name}: name another file",
                        param="output",
                    )
        if not self._path.parent.is_dir():
            raise InputError(
                f"the output's folder {self._path.parent} does not exist", param="output"
            )

    def shelf(self) -> Shelf:
        shelf = LocalShelf(self._job)
        with disk_errors(self._path):
            for written in (self._path, meta_place(self._path), Path(self.errors_name())):
                clear_drafts(written)
        return shelf

    def open_parts(self, token: str) -> Parts | None:
        parts = LocalParts(self._job, token)
        return parts if parts.is_there() else None

    def unfinished(self) -> bool:
        return has_ledger(self._job)

    def identity(self) -> list[Any] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return [found.st_size, found.st_mtime_ns]

    def open_base(self) -> IO[bytes]:
        with disk_errors(self._path, "read"):
            return self._path.open("rb")

    def meta(self) -> dict[str, Any] | None:
        return _read_meta(meta_place(self._path))

    def errors_name(self) -> str:
        return self.name + ERRORS_SUFFIX

    def put_errors(self, data: bytes | None) -> None:
        with disk_errors(Path(self.errors_name())):
            write_beside(Path(self.errors_name()), data)

    def draft(self, shelf: Shelf, assemble: Assemble) -> Stored:
        path = self._job / WHOLE
        with disk_errors(self._path):
            try:
                with path.open("wb") as file:
                    assemble(file)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    path.unlink()  # a full disk needs its space
                raise
            return Stored(WHOLE, path.stat().st_size, "")

    def holds(self, whole: Stored) -> bool:
        draft = self._job / WHOLE
        found = draft if draft.exists() else self._path
        return found.exists() and found.stat().st_size == whole.num_bytes

    def finish(self, shelf: Shelf, whole: Stored | None, meta: Mapping[str, Any] | None) -> None:
        draft = self._job / WHOLE
        with disk_errors(self._path):
            if draft.exists():
                publish(draft, self._path, meta)
            elif meta is not None:  # killed after the rename
                write_beside(meta_place(self._path), meta_bytes(meta))


class LocalFolder(Destination):
    """A folder of parts on a disk."""

    of_parts = True

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._path = Path(name)

    def check(self, sources: Sequence[Source]) -> None:
        if self._path.exists() and not self._path.is_dir():
            raise InputError(f"the output {self._path} is a file, not a folder", param="output")
        root = self._path.resolve()
        for source in sources:
            if source.remote is None and root in Path(source.name).resolve().parents:
                raise InputError(
                    f"the output folder {self.name} holds the input {source.name}: name another",
                    param="output",
                )

    def shelf(self) -> Shelf:
        with disk_errors(self._path):
            self._path.mkdir(parents=True, exist_ok=True)
        shelf = LocalShelf(self._path / FOLDER_JOB, self._path)
        with disk_errors(self._path):
            for name in (FOLDER_META, FOLDER_ERRORS):
                clear_drafts(self._path / name)
        return shelf

    def open_parts(self, token: str) -> Parts | None:
        parts = LocalParts(self._path / FOLDER_JOB, token, self._path)
        return parts if parts.is_there() else None

    def unfinished(self) -> bool:
        return has_ledger(self._path / FOLDER_JOB)

    def identity(self) -> list[Any] | None:
        if not self._path.is_dir():
            return None
        names = [n.name for n in self._path.iterdir() if not n.name.startswith((".", "_"))]
        return sorted(names) or None

    def open_base(self) -> IO[bytes]:
        with disk_errors(self._path, "read"):
            first = min(p for p in self._path.iterdir() if not p.name.startswith((".", "_")))
            return first.open("rb")

    def meta(self) -> dict[str, Any] | None:
        return _read_meta(self._path / FOLDER_META)

    def errors_name(self) -> str:
        return str(self._path / FOLDER_ERRORS)

    def put_errors(self, data: bytes | None) -> None:
        with disk_errors(self._path):
            write_beside(Path(self.errors_name()), data)

    def draft(self, shelf: Shelf, assemble: Assemble) -> Stored:
        raise AssertionError("the parts of a folder are its output; this is a bug in poolc")

    def holds(self, whole: Stored) -> bool:
        return False

    def finish(self, shelf: Shelf, whole: Stored | None, meta: Mapping[str, Any] | None) -> None:
        with disk_errors(self._path):
            write_beside(self._path / FOLDER_META, None if meta is None else meta_bytes(meta))


def destination(name: str) -> Destination:
    """Return where an output goes, by its name. Raises MissingDependency, InvalidOption."""
    if storage.is_address(name) and not name.startswith("file://"):
        from poolc.runtime.bulk.remote import RemotePlace  # it needs pyarrow

        return RemotePlace(name)
    name = name.removeprefix("file://")
    return LocalFolder(name) if is_folder(name) else LocalFile(name)


def is_folder(name: str) -> bool:
    """Return whether a name is that of a folder of parts."""
    return name.partition("?")[0].endswith("/") or name.endswith(os.sep)


def _read_meta(path: Path) -> dict[str, Any] | None:
    try:
        return meta_object(path.read_bytes())
    except OSError:
        return None


def meta_object(data: bytes) -> dict[str, Any] | None:
    """Read a description; None for what is none."""
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _is_same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there (yet)
        return False
