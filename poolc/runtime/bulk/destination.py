"""Where the output of a job goes: a file or a folder of parts, on a disk or in an object store.

A file is assembled of its parts and replaced in one step; in a folder the parts are the output.
Knows places, nothing about formats.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import orjson

from poolc.errors import InputError
from poolc.runtime.bulk import storage
from poolc.runtime.bulk.inputs import Source
from poolc.runtime.bulk.publish import meta_bytes, meta_place, publish, write_beside
from poolc.runtime.bulk.shelf import LocalShelf, RemoteShelf, Shelf, Stored, disk_errors, has_ledger

STDOUT = "-"
JOB_SUFFIX = ".poolc"
ERRORS_SUFFIX = ".errors.jsonl"
# In a folder of parts; readers of data sets skip names that begin with an underscore.
_FOLDER_JOB, _FOLDER_META, _FOLDER_ERRORS = "_poolc", "_poolc.json", "_errors.jsonl"
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
        return LocalShelf(self._job)

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
        return LocalShelf(self._path / _FOLDER_JOB, self._path)

    def unfinished(self) -> bool:
        return has_ledger(self._path / _FOLDER_JOB)

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
        return _read_meta(self._path / _FOLDER_META)

    def errors_name(self) -> str:
        return str(self._path / _FOLDER_ERRORS)

    def put_errors(self, data: bytes | None) -> None:
        with disk_errors(self._path):
            write_beside(Path(self.errors_name()), data)

    def draft(self, shelf: Shelf, assemble: Assemble) -> Stored:
        raise AssertionError("the parts of a folder are its output; this is a bug in poolc")

    def holds(self, whole: Stored) -> bool:
        return False

    def finish(self, shelf: Shelf, whole: Stored | None, meta: Mapping[str, Any] | None) -> None:
        with disk_errors(self._path):
            write_beside(self._path / _FOLDER_META, None if meta is None else meta_bytes(meta))


class RemotePlace(Destination):
    """An object, or with a name that ends with / the objects below it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.of_parts = name.partition("?")[0].endswith("/")
        self._place = storage.connect(name, f"writing {name}")
        self._fs = self._place.fs
        self._path = self._place.path.rstrip("/")
        self._draft: IO[bytes] | None = None  # the assembled output until it is uploaded

    def check(self, sources: Sequence[Source]) -> None:
        for source in sources:
            read = None if source.remote is None else source.remote.path
            if read == self._path or (self.of_parts and f"{read}".startswith(f"{self._path}/")):
                raise InputError(
                    f"the output {self.name} is or holds the input {source.name}: name another",
                    param="output",
                )

    def shelf(self) -> Shelf:
        if self.of_parts:
            return RemoteShelf(self._place, f"{self._path}/{_FOLDER_JOB}", self._path)
        return RemoteShelf(self._place, self._path + JOB_SUFFIX)

    def unfinished(self) -> bool:
        return bool(self.shelf().entries())

    def identity(self) -> list[Any] | None:
        from pyarrow.fs import FileSelector, FileType

        with storage.store_errors(self.name, "read", "output"):
            if self.of_parts:
                infos = self._fs.get_file_info(FileSelector(self._path, allow_not_found=True))
                names = [i.base_name for i in infos if i.type == FileType.File]
                return sorted(n for n in names if not n.startswith((".", "_"))) or None
            info = self._fs.get_file_info(self._path)
            return [info.size, info.mtime_ns] if info.type == FileType.File else None

    def open_base(self) -> Any:
        path = self._path
        if self.of_parts:
            path = f"{path}/{(self.identity() or [''])[0]}"
        with storage.store_errors(self.name, "read", "output"):
            return self._fs.open_input_file(path)

    def meta(self) -> dict[str, Any] | None:
        with storage.store_errors(self.name, "read", "output"):
            if self._fs.get_file_info(self._meta_path).size is None:
                return None
            with self._fs.open_input_stream(self._meta_path) as file:
                return _object(file.read())

    def errors_name(self) -> str:
        return self.name + (_FOLDER_ERRORS if self.of_parts else ERRORS_SUFFIX)

    def put_errors(self, data: bytes | None) -> None:
        own = f"/{_FOLDER_ERRORS}" if self.of_parts else ERRORS_SUFFIX
        self._put(self._path + own, data)

    def draft(self, shelf: Shelf, assemble: Assemble) -> Stored:
        """Assemble on the local disk: an upload that breaks off must not look complete."""
        self._draft = tempfile.TemporaryFile(prefix="poolc-")  # noqa: SIM115 (closed in finish)
        with disk_errors(Path(tempfile.gettempdir())):
            assemble(self._draft)
            return Stored(WHOLE, self._draft.seek(0, os.SEEK_END), "")

    def holds(self, whole: Stored) -> bool:
        with storage.store_errors(self.name, "read", "output"):
            return bool(self._fs.get_file_info(self._path).size == whole.num_bytes)

    def finish(self, shelf: Shelf, whole: Stored | None, meta: Mapping[str, Any] | None) -> None:
        if self._draft is not None:
            with self._draft as draft, storage.store_errors(self.name, "write", "output"):
                draft.seek(0)
                with self._fs.open_output_stream(self._path) as target:
                    shutil.copyfileobj(draft, target, _COPY_BYTES)
            self._draft = None
        self._put(self._meta_path, None if meta is None else meta_bytes(meta))

    @property
    def _meta_path(self) -> str:
        return self._path + (f"/{_FOLDER_META}" if self.of_parts else ".meta.json")

    def _put(self, path: str, data: bytes | None) -> None:
        with storage.store_errors(self.name, "write", "output"):
            if data is not None:
                with self._fs.open_output_stream(path) as file:
                    file.write(data)
            elif self._fs.get_file_info(path).size is not None:
                self._fs.delete_file(path)


def destination(name: str) -> Destination:
    """Return where an output goes, by its name. Raises MissingDependency, InvalidOption."""
    if storage.is_address(name) and not name.startswith("file://"):
        return RemotePlace(name)
    name = name.removeprefix("file://")
    return LocalFolder(name) if is_folder(name) else LocalFile(name)


def is_folder(name: str) -> bool:
    """Return whether a name is that of a folder of parts."""
    return name.partition("?")[0].endswith("/") or name.endswith(os.sep)


def _read_meta(path: Path) -> dict[str, Any] | None:
    try:
        return _object(path.read_bytes())
    except OSError:
        return None


def _object(data: bytes) -> dict[str, Any] | None:
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
