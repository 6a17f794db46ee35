"""Writing bytes so that they survive a crash. Knows nothing about what the bytes mean.

Everything is one ``os`` call after another, so that a test can end the process between any two.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def write_new(path: Path, data: bytes) -> None:
    """Create a file that must not exist yet, and fsync it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, data: bytes, tmp: Path) -> None:
    """Put ``data`` at ``path`` in one step; ``tmp`` is a folder of the same filesystem."""
    tmp.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = tmp / os.urandom(8).hex()
    try:
        write_new(draft, data)
        os.replace(draft, path)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise
    fsync_folder(path.parent)


def fsync_file(path: Path) -> None:
    """Flush a file that something else wrote."""
    _fsync(path)


def fsync_folder(path: Path) -> None:
    """Flush a folder's entries: a rename is durable only after this."""
    if os.name != "nt":  # Windows has no handle to flush a folder by
        _fsync(path)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_BINARY: int = getattr(os, "O_BINARY", 0)
