"""Where a job keeps its finished parts and its ledger: beside the output, local or remote.

A part is there whole or not at all, and counts from the moment that its line is in the ledger: on a
disk one file of JSON lines, flushed line by line. ``remote.py`` has the same for object stores.
Knows nothing about what parts hold.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import secrets
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

_LEDGER = "ledger.jsonl"
_BUFFER_BYTES = 1 << 20
_ADMITTED = "admitted-"


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


class Parts(ABC):
    """Where parts are put. Raises InputError for what the disk or the store refuses."""

    @abstractmethod
    def put(self, name: str, data: Any) -> Stored:
        """Store a part durably, in one step; an older one of that name is replaced."""


class Shelf(Parts):
    """Parts and ledger of one job."""

    @abstractmethod
    def admit(self) -> str:
        """Let other processes put parts of this run, and those of earlier runs no more.

        Returns what they show to ``Destination.open_parts``.
        """

    @abstractmethod
    def open(self, name: str) -> Any:
        """Open a part for reading: a binary file that can seek."""

    @abstractmethod
    def holds(self, part: Stored) -> bool:
        """Return whether a part is there in its size."""

    @abstractmethod
    def read(self) -> Iterator[dict[str, Any]]:
        """Yield the lines of the ledger that were written whole, one at a time."""

    def entries(self) -> list[dict[str, Any]]:
        """Return all of ``read``: of a large job, much memory."""
        return list(self.read())

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

    def close(self) -> None:
        """Let other processes have the job; a remote shelf holds nothing."""


class LocalShelf(Shelf):
    """A folder; with ``parts`` the finished parts are in that folder instead, to stay there."""

    def __init__(self, folder: Path, parts: Path | None = None) -> None:
        self.folder = folder
        self._parts = parts or folder
        self._parts_prefix = os.path.join(self._parts, "")
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
        return _put(self._parts / name, self.folder / f"{name}.draft", data)

    def admit(self) -> str:
        with disk_errors(self.folder):
            for old in self.folder.glob(f"{_ADMITTED}*"):
                shutil.rmtree(old)
            token = secrets.token_hex(16)
            (self.folder / f"{_ADMITTED}{token}").mkdir()
        return token

    def open(self, name: str) -> IO[bytes]:
        with disk_errors(self._parts / name, "read"):
            return (self._parts / name).open("rb")

    def holds(self, part: Stored) -> bool:
        try:  # a million are asked for: joining paths as objects takes longer than the disk
            return os.stat(f"{self._parts_prefix}{part.name}").st_size == part.num_bytes
        except OSError:
            return False

    def read(self) -> Iterator[dict[str, Any]]:
        for line in self._lines():
            entry = parsed_line(line)
            if entry is None:  # the line that was being written
                return
            yield entry

    def append(self, entry: Mapping[str, Any]) -> None:
        with disk_errors(self.folder / _LEDGER):
            end = os.lseek(self._ledger, 0, os.SEEK_END)
            try:
                _write_all(self._ledger, ledger_line(entry))
            except OSError:
                os.ftruncate(self._ledger, end)
                raise
            os.fsync(self._ledger)

    def truncate(self, num_entries: int) -> None:
        end = sum(map(len, itertools.islice(self._lines(), num_entries)))
        with disk_errors(self.folder / _LEDGER):
            if os.fstat(self._ledger).st_size != end:
                os.ftruncate(self._ledger, end)
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

    def _lines(self) -> Iterator[bytes]:
        """Yield the lines of the ledger as they are, without holding all of them."""
        with disk_errors(self.folder, "read"):
            try:
                file = (self.folder / _LEDGER).open("rb", _BUFFER_BYTES)
            except FileNotFoundError:  # cleared
                return
            with file:
                yield from file


class LocalParts(Parts):
    """The parts of a job that another process owns, which let this one in with ``token``.

    Drafts lie in a folder of that run's own: once it is gone, nothing can be put any more.
    """

    def __init__(self, folder: Path, token: str, parts: Path | None = None) -> None:
        self._drafts = folder / f"{_ADMITTED}{token}"
        self._parts = parts or folder

    def is_there(self) -> bool:
        """Return whether the job's folder can be reached from here, and this is its run."""
        return self._drafts.is_dir()

    def put(self, name: str, data: Any) -> Stored:
        draft = self._drafts / f"{name}.{secrets.token_hex(8)}"
        return _put(self._parts / name, draft, data)


def _put(path: Path, draft: Path, data: Any) -> Stored:
    with disk_errors(path):
        draft.unlink(missing_ok=True)  # of a process that was killed
        try:
            durable.write_new(draft, data)
            os.replace(draft, path)
        except OSError:
            with contextlib.suppress(OSError):
                draft.unlink()  # a full disk needs its space
            raise
        durable.fsync_folder(path.parent)
    return stored(path.name, data)


def has_ledger(folder: Path) -> bool:
    """Return whether a job's folder has a ledger that begins."""
    try:
        with (folder / _LEDGER).open("rb") as file:
            return file.readline().endswith(b"\n")
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


def ledger_line(entry: Mapping[str, Any]) -> bytes:
    """Return a line of a ledger."""
    return orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SORT_KEYS)


def parsed_line(line: bytes) -> dict[str, Any] | None:
    """Read a line of a ledger; None where it was not written whole."""
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
