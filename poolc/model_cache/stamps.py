"""Stamps: "a file with this device, inode, size and times had this sha256", kept in the store.

A stamp lets a warm start stat files instead of hashing them. It is a cache and never an authority:
anything that cannot be read is no stamp, and anything that cannot be written is not kept. Knows
nothing about manifests; ``subject`` is whatever the caller wants a record to be bound to.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from time import time_ns
from typing import Any, BinaryIO, NamedTuple

from poolc.model_cache.durable import replace_file

_VERSION = 1
_OPEN_FLAGS: int = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)  # a pipe put in a file's place must not hang us
    | getattr(os, "O_BINARY", 0)
)
NO_FOLLOW: int = getattr(os, "O_NOFOLLOW", 0)

# A file that changes twice within one tick of its filesystem's clock keeps its times, so a stamp
# taken in that tick could vouch for bytes that nobody hashed. A stamp is therefore written only if
# hashing began later than the newest time of the file plus a margin. Kernel ticks are at most 10 ms
# (16 ms on Windows); filesystems that keep whole milliseconds or worse (FAT keeps 2 s) give
# themselves away by round numbers. The shorter margin is what lets an artifact that was copied a
# moment ago be stamped by its first open.
_FINE_MARGIN_NS = 50_000_000
_COARSE_MARGIN_NS = 2_500_000_000
_COARSE_UNIT_NS = 1_000_000


class FileStamp(NamedTuple):
    """What ``stat`` says of a file; ctime is the part that no program can set back."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileStamp:
        """Take the stamp from a stat result."""
        return cls(
            status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        )


@dataclass(frozen=True, slots=True)
class Hashed:
    """A file's sha256 and the stamp that it was taken under.

    ``settled``: any later change of the file is bound to change the stamp.
    """

    stamp: FileStamp
    sha256: str
    settled: bool = True


@dataclass(frozen=True, slots=True)
class Record:
    """Everything kept about one folder; ``host`` is the installed runtime that was found to fit."""

    subject: str
    files: Mapping[str, Hashed] = field(default_factory=dict)
    host: str = ""


def open_regular(path: Path, flags: int = 0) -> FileIO:
    """Open a regular file unbuffered, with ``flags`` too; raise OSError for anything else."""

    def opener(name: str, _: int) -> int:
        return os.open(name, _OPEN_FLAGS | flags)

    file = open(path, "rb", buffering=0, opener=opener)  # noqa: SIM115 - the caller closes it
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(f"{path} is not a regular file")
    return file


def hash_file(
    path: Path, *, flags: int = 0, examine: Callable[[BinaryIO, int], None] | None = None
) -> Hashed:
    """Hash a regular file, and let ``examine(file, size)`` look at the same open file.

    Raises OSError for anything that is not a readable regular file.
    """
    began_ns = time_ns()
    with open_regular(path, flags) as file:
        before = os.fstat(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if examine is not None:
            examine(file, before.st_size)
        after = FileStamp.of(os.fstat(file.fileno()))
    stamp = FileStamp.of(before)
    return Hashed(stamp, digest, stamp == after and _is_settled(stamp, began_ns))


def _is_settled(stamp: FileStamp, now_ns: int) -> bool:
    coarse = stamp.ctime_ns % _COARSE_UNIT_NS == 0
    margin = _COARSE_MARGIN_NS if coarse else _FINE_MARGIN_NS
    # mtime counts too: where ctime is the time of creation (Windows) it is all there is.
    return max(stamp.ctime_ns, stamp.mtime_ns) + margin < now_ns


class Stamps:
    """The store's records, one small JSON file a folder."""

    def __init__(self, folder: Path, tmp: Path) -> None:
        self._folder = folder
        self._tmp = tmp

    def load(self, kind: str, path: str, subject: str) -> Record:
        """Return the record of ``path`` (a real path), empty unless it was made for ``subject``."""
        try:
            plain = json.loads(self._file(kind, path).read_bytes())
            if [plain["version"], plain["path"], plain["subject"]] != [_VERSION, path, subject]:
                return Record(subject)
            files = {str(name): _decode(entry) for name, entry in plain["files"].items()}
            return Record(subject, files, str(plain["host"]))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return Record(subject)

    def save(self, kind: str, path: str, record: Record) -> None:
        """Keep the settled part of a record; a store that cannot be written keeps nothing."""
        plain = {
            "version": _VERSION,
            "path": path,
            "subject": record.subject,
            "host": record.host,
            "files": {
                name: [*hashed.stamp, hashed.sha256]
                for name, hashed in record.files.items()
                if hashed.settled
            },
        }
        with suppress(OSError, ValueError):
            replace_file(self._file(kind, path), json.dumps(plain).encode(), self._tmp)

    def forget(self, kind: str, path: str) -> None:
        """Drop the record of ``path``."""
        with suppress(OSError):
            self._file(kind, path).unlink()

    def _file(self, kind: str, path: str) -> Path:
        key = hashlib.sha256(f"{kind}\0{path}".encode("utf-8", "surrogateescape")).hexdigest()
        return self._folder / f"{key}.json"


def _decode(entry: Any) -> Hashed:
    *numbers, sha256 = entry
    if not isinstance(sha256, str) or not all(type(number) is int for number in numbers):
        raise ValueError("not a stamp")
    return Hashed(FileStamp(*numbers), sha256)
