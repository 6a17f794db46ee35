"""The inputs of a job: names, globs, folders, addresses and standard input -> files in one order.

A file is known by name, size and time of change, so that a job that goes on can tell whether it
reads what it read before. Knows nothing about rows.
"""

from __future__ import annotations

import fnmatch
import glob
import gzip
import io
import os
import re
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from poolc.errors import InputError, InvalidOption
from poolc.runtime.bulk import storage
from poolc.runtime.bulk.formats import (
    INPUTS,
    TABLES,
    Format,
    import_arrow,
    input_format,
    is_known_input,
    named_format,
)

STDIN = "-"
_MAGIC = re.compile(r"[*?\[]")
_BUFFER_BYTES = 1 << 20
# Pipes that this process has already: a shell's <(...).
_OPEN_ALREADY = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")


@dataclass(frozen=True, slots=True)
class Source:
    """One file. ``num_bytes`` and ``mtime_ns`` are None where nobody knows them beforehand.

    ``guessed``: neither its name nor the caller says that it is text.
    """

    name: str
    format: Format
    compression: str | None = None
    num_bytes: int | None = None
    mtime_ns: int | None = None
    remote: storage.Remote | None = field(default=None, compare=False)
    guessed: bool = False

    def identity(self) -> list[Any]:
        """Return what a ledger says of the file."""
        return [self.name, self.num_bytes, self.mtime_ns]


@dataclass(slots=True)
class Opened:
    """A file being read. ``position`` counts bytes of the file itself, compressed ones too."""

    file: IO[bytes]
    raw: Any

    def position(self) -> int:
        """Return how many bytes of the file were taken so far; 0 where it cannot tell."""
        try:
            return int(self.raw.tell())
        except (OSError, ValueError):
            return 0

    def close(self) -> None:
        """Close what was opened, but for standard input."""
        if self.raw is not sys.stdin.buffer:
            self.file.close()
            self.raw.close()


def open_raw(source: Source) -> Any:
    """Open the bytes of a file as they are stored, seekable where it is a file. Raises OSError."""
    if source.name == STDIN:
        return sys.stdin.buffer
    if source.remote is not None:
        return source.remote.fs.open_input_file(source.remote.path)
    return open(source.name, "rb", buffering=0)


def open_source(source: Source) -> Opened:
    """Open a file of lines, uncompressed. Raises OSError, and MissingDependency for .zst."""
    raw = open_raw(source)
    if source.compression == "gzip":
        return Opened(io.BufferedReader(gzip.GzipFile(fileobj=raw), _BUFFER_BYTES), raw)
    if source.compression is not None:
        arrow = import_arrow("", f"reading {source.name}")
        stream = arrow.CompressedInputStream(raw, source.compression)
        return Opened(io.BufferedReader(stream, _BUFFER_BYTES), raw)
    if source.name == STDIN:
        return Opened(raw, raw)
    return Opened(io.BufferedReader(raw, _BUFFER_BYTES), raw)


def expand(given: Sequence[str | Path], kind: str | None = None) -> list[Source]:
    """Return the files that were named, in the order of their names within each glob or folder.

    ``kind`` is the format of all of them, where their names do not tell. Raises InputError for what
    is not there or cannot be read, InvalidOption for an unknown format.
    """
    if not given:
        raise InvalidOption("no input was given: name at least one file", param="inputs")
    chosen = None if kind is None else named_format(kind, INPUTS, "input_format")
    found: list[Source] = []
    for name in map(str, given):
        found += _expand_one(name, chosen)
    if sum(source.name == STDIN for source in found) > 1:
        raise InvalidOption("standard input (-) can be read once: name it once", param="inputs")
    return found


def _expand_one(name: str, chosen: Format | None) -> list[Source]:
    if name == STDIN:
        if sys.stdin is None:
            raise InputError("standard input (-) is closed: name a file", param="inputs")
        if chosen in TABLES:
            raise InvalidOption(
                f"{chosen} cannot be read from standard input: name the file", param="inputs"
            )
        return [Source(STDIN, chosen or Format.TEXT, guessed=chosen is None)]
    if storage.is_address(name):
        if name.startswith("file://"):
            return _local(name.removeprefix("file://"), chosen)
        return _remote(name, chosen)
    return _local(name, chosen)


def _local(name: str, chosen: Format | None) -> list[Source]:
    path = Path(name).expanduser()
    if path.is_dir():
        names = [str(p) for p in sorted(path.rglob("*")) if _is_listed(p.relative_to(path))]
        files = [n for n in names if os.path.isfile(n) and (chosen or is_known_input(n))]
        return [_local_file(n, chosen) for n in _some(files, name, "folder")]
    if not os.path.lexists(path) and _MAGIC.search(name):
        matched = sorted(glob.glob(str(path), recursive=True))
        files = [n for n in matched if os.path.isfile(n)]
        return [_local_file(n, chosen) for n in _some(files, name, "pattern")]
    return [_local_file(str(path), chosen)]


def _local_file(name: str, chosen: Format | None) -> Source:
    kind, compression = _format(name, chosen)
    try:
        if stat.S_ISFIFO(os.stat(name).st_mode) and not name.startswith(_OPEN_ALREADY):
            # Whoever writes to it would write to the first who opens it, who only looks.
            raise InputError(
                f"{name} is a pipe, which can be read once: give - in its place, and it as "
                f"standard input (< {name})",
                param="inputs",
            )
        with open(name, "rb") as file:
            found = os.fstat(file.fileno())
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror}", param="inputs") from error
    return Source(name, kind, compression, found.st_size, found.st_mtime_ns)


def _remote(url: str, chosen: Format | None) -> list[Source]:
    bare, _, query = url.partition("?") if "://" in url and "?" in url else (url, "", "")
    star = _MAGIC.search(bare)
    base = bare if star is None else bare[: star.start()].rpartition("/")[0]
    place = storage.connect(f"{base}?{query}" if query else base, f"reading {url}")
    scheme = base.partition("://")[0]
    with storage.store_errors(url, "read", "inputs"):
        infos = list(_found(place, star is not None))
    if star is not None:
        wanted = place.path.rstrip("/") + bare[len(base) :]
        infos = [info for info in infos if fnmatch.fnmatchcase(info.path, wanted)]
    elif len(infos) != 1 or infos[0].path != place.path:
        root = place.path.rstrip("/") + "/"
        infos = [i for i in infos if _is_listed(Path(i.path.removeprefix(root)))]
        infos = [i for i in infos if chosen or is_known_input(i.path)]
    kind_of_place = "folder" if star is None else "pattern"
    return [
        Source(
            f"{scheme}://{info.path.lstrip('/')}",
            *_format(info.path, chosen),
            info.size,
            info.mtime_ns,
            storage.Remote(url, place.fs, info.path),
        )
        for info in _some(sorted(infos, key=lambda i: str(i.path)), url, kind_of_place)
    ]


def _found(place: storage.Remote, listing: bool) -> Iterator[Any]:
    arrow_fs = import_arrow("fs", f"reading {place.url}")
    info = place.fs.get_file_info(place.path)
    if info.type == arrow_fs.FileType.File and not listing:
        yield info
    elif info.type == arrow_fs.FileType.Directory:
        selector = arrow_fs.FileSelector(place.path, recursive=True)
        for one in place.fs.get_file_info(selector):
            if one.type == arrow_fs.FileType.File:
                yield one
    elif info.type == arrow_fs.FileType.NotFound:
        raise InputError(f"cannot read {place.url}: there is nothing", param="inputs")


def _format(name: str, chosen: Format | None) -> tuple[Format, str | None]:
    if chosen is None:
        return input_format(name)
    try:
        return chosen, input_format(name)[1]
    except InvalidOption:
        return chosen, None


def _is_listed(path: Path) -> bool:
    """Return whether a file of a folder counts: hidden and underscored ones are bookkeeping."""
    return not any(part.startswith((".", "_")) for part in path.parts)


def _some(files: list[Any], name: str, kind: str) -> list[Any]:
    if not files:
        raise InputError(f"the {kind} {name} has no file of a known format", param="inputs")
    return files
