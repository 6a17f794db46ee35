"""Where a job keeps its finished parts and its ledger: beside the output, local or remote.

A part is there whole or not at all, and counts from the moment that its line is in the ledger.
On a disk the ledger is one file of JSON lines, flushed line by line; in an object store, where
nothing can be appended, it is one object a line. Knows nothing about what parts hold.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson

from poolc.errors import InputError
from poolc.model_cache import durable
from poolc.runtime.bulk.storage import Remote, store_errors

_LEDGER = "ledger.jsonl"
_LINES = "ledger"


@dataclass(frozen=True, slots=True)
class Stored:
    """A file on a shelf; ``digest`` is blake2b of 16 bytes, in hex."""

    name: str
    num_bytes: int
    digest: str


def stored(name: str, data: Any) -> Stored:
    """Describe bytes as what they will be."""
    view = memoryview(data)
    return Stored(name, view.nbytes, hashlib.blake2b(view, digest_size=16).hexdigest())


class Shelf(ABC):
    """Parts and ledger of one job. Raises InputError for what the disk or the store refuses."""

    @abstractmethod
    def put(self, name: str, data: Any) -> Stored:
        """Store a part durably, in one step; an older one of that name is replaced."""

    @abstractmethod
    def open(self, name: str) -> Any:
        """Open a part for reading: a binary file that can seek."""

    @abstractmethod
    def holds(self, part: Stored) -> bool:
        """Return whether a part is there in its size."""

    @abstractmethod
    def entries(self) -> list[dict[str, Any]]:
        """Return the lines of the ledger that were written whole."""

    @abstractmethod
    def append(self, entry: Mapping[str, Any]) -> None:
        """Add a line to the ledger, durably."""

    @abstractmethod
    def truncate(self, num_entries: int) -> None:
        """Drop the lines of the ledger behind the first so many."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a part, if it is there."""

    @abstractmethod
    def clear(self) -> None:
        """Remove the ledger and what else is the job's own."""

    def close(self) -> None:  # noqa: B027 (a remote shelf holds nothing)
        """Let other processes have the job."""


class LocalShelf(Shelf):
    """A folder; with ``parts`` the finished parts are in that folder instead, to stay there."""

    def __init__(self, folder: Path, parts: Path | None = None) -> None:
        self.folder = folder
        self._parts = parts or folder
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            durable.fsync_folder(folder.parent)
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
            self._ledger = os.open(folder / _LEDGER, flags, 0o666)
        try:
            _lock(self._ledger, folder)
        except InputError:
            os.close(self._ledger)
            raise

    def put(self, name: str, data: Any) -> Stored:
        draft = self.folder / f"{name}.draft"
        with disk_errors(self._parts / name):
            draft.unlink(missing_ok=True)  # of a process that was killed
            try:
                durable.write_new(draft, data)
                os.replace(draft, self._parts / name)
            except OSError:
                with contextlib.suppress(OSError):
                    draft.unlink()  # a full disk needs its space
                raise
            durable.fsync_folder(self._parts)
        return stored(name, data)

    def open(self, name: str) -> IO[bytes]:
        with disk_errors(self._parts / name, "read"):
            return (self._parts / name).open("rb")

    def holds(self, part: Stored) -> bool:
        try:
            return (self._parts / part.name).stat().st_size == part.num_bytes
        except OSError:
            return False

    def entries(self) -> list[dict[str, Any]]:
        with disk_errors(self.folder, "read"):
            try:
                content = (self.folder / _LEDGER).read_bytes()
            except FileNotFoundError:  # cleared
                return []
        found: list[dict[str, Any]] = []
        for line in content.splitlines(keepends=True):
            entry = _parsed(line)
            if entry is None:  # the line that was being written
                break
            found.append(entry)
        return found

    def append(self, entry: Mapping[str, Any]) -> None:
        with disk_errors(self.folder / _LEDGER):
            end = os.lseek(self._ledger, 0, os.SEEK_END)
            try:
                _write_all(self._ledger, _line(entry))
            except OSError:
                os.ftruncate(self._ledger, end)
                raise
            os.fsync(self._ledger)

    def truncate(self, num_entries: int) -> None:
        kept = b"".join(map(_line, self.entries()[:num_entries]))
        with disk_errors(self.folder / _LEDGER):
            os.ftruncate(self._ledger, len(kept))
            os.fsync(self._ledger)

    def remove(self, name: str) -> None:
        with disk_errors(self._parts / name):
            (self._parts / name).unlink(missing_ok=True)

    def clear(self) -> None:
        with disk_errors(self.folder):
            # The ledger first: without it, what is left over is nobody's.
            (self.folder / _LEDGER).unlink(missing_ok=True)
            shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        os.close(self._ledger)


class RemoteShelf(Shelf):
    """Objects below a prefix; with ``parts`` the finished parts are below that, to stay there."""

    def __init__(self, place: Remote, prefix: str, parts: str | None = None) -> None:
        self._place = place
        self._fs = place.fs
        self._prefix = prefix.rstrip("/")
        self._parts = self._prefix if parts is None else parts.rstrip("/")
        self._num_entries: int | None = None

    def put(self, name: str, data: Any) -> Stored:
        with self._errors("write"), self._fs.open_output_stream(f"{self._parts}/{name}") as file:
            file.write(data)  # an object appears when its upload ends
        return stored(name, data)

    def open(self, name: str) -> Any:
        with self._errors("read"):
            return self._fs.open_input_file(f"{self._parts}/{name}")

    def holds(self, part: Stored) -> bool:
        with self._errors("read"):
            info = self._fs.get_file_info(f"{self._parts}/{part.name}")
        return bool(info.size == part.num_bytes)

    def entries(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        with self._errors("read"):
            for name in self._lines():
                with self._fs.open_input_stream(name) as file:
                    entry = _parsed(file.read())
                if entry is None:
                    break
                found.append(entry)
        self._num_entries = len(found)
        return found

    def append(self, entry: Mapping[str, Any]) -> None:
        if self._num_entries is None:
            self.entries()
        with self._errors("write"):
            name = f"{self._prefix}/{_LINES}/{self._num_entries or 0:08d}.json"
            with self._fs.open_output_stream(name) as file:
                file.write(_line(entry))
        self._num_entries = (self._num_entries or 0) + 1

    def truncate(self, num_entries: int) -> None:
        with self._errors("write"):
            for name in reversed(self._lines()[num_entries:]):
                self._fs.delete_file(name)
        self._num_entries = num_entries

    def remove(self, name: str) -> None:
        with self._errors("write"), contextlib.suppress(FileNotFoundError):
            self._fs.delete_file(f"{self._parts}/{name}")

    def clear(self) -> None:
        self.truncate(0)
        with self._errors("write"), contextlib.suppress(FileNotFoundError):
            self._fs.delete_dir(self._prefix)

    def _lines(self) -> list[str]:
        from pyarrow.fs import FileSelector

        folder = f"{self._prefix}/{_LINES}"
        infos = self._fs.get_file_info(FileSelector(folder, allow_not_found=True))
        return sorted(info.path for info in infos if info.path.endswith(".json"))

    @contextmanager
    def _errors(self, verb: str) -> Iterator[None]:
        with store_errors(self._place.url, verb, "output"):
            yield


def has_ledger(folder: Path) -> bool:
    """Return whether a job's folder has a ledger that begins."""
    try:
        return (folder / _LEDGER).read_bytes().count(b"\n") > 0
    except OSError:
        return False


@contextmanager
def disk_errors(path: Path | None, verb: str = "write") -> Iterator[None]:
    """Turn what the disk says into InputError with the path."""
    try:
        yield
    except OSError as error:
        if path is None:  # standard output: a reader that went away is the caller's to handle
            raise
        reason = error.strerror or str(error)
        raise InputError(f"cannot {verb} {path}: {reason}", param="output") from error


def _line(entry: Mapping[str, Any]) -> bytes:
    return orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SORT_KEYS)


def _parsed(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        entry = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return entry if isinstance(entry, dict) else None


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _lock(descriptor: int, folder: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows: two processes of one job are not kept apart there
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise InputError(
            f"another process works on this job ({folder}): wait for it", param="output"
        ) from error
