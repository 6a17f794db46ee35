"""Equal texts of different parts: where the first one of each was computed.

An index on the local disk, so that memory does not grow with the texts; it is a function of the
parts before, never of what has been committed meanwhile. Each part keeps the numbers of its
distinct texts on the shelf until the job ends: an array, then a byte and a hash a text. Knows
nothing about engines.
"""

from __future__ import annotations

import hashlib
import io
import sqlite3
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from poolc.runtime.request import Item

_DIGEST_BYTES = 16


class Found(NamedTuple):
    """Where a text was computed: its place among the distinct texts of a part."""

    part: int
    place: int


@dataclass(frozen=True, slots=True, eq=False)
class Distinct:
    """The numbers of a part's distinct texts: values [n, ...], whether cut [n], and hashes."""

    values: npt.NDArray[Any]
    truncated: npt.NDArray[np.bool_]
    digests: Sequence[bytes]

    def to_bytes(self) -> bytes:
        """Return the file that is kept."""
        file = io.BytesIO()
        np.save(file, self.values)
        file.write(self.truncated.astype(np.uint8).tobytes())
        file.write(b"".join(self.digests))
        return file.getvalue()


class Known(Protocol):
    """What tokenising a part asks about earlier ones, and tells for later ones."""

    def find(self, items: Iterable[Item]) -> dict[Item, Found]:
        """Return those of ``items`` that were computed before."""

    def add(self, part: int, digests: Sequence[bytes]) -> None:
        """Take note of the distinct texts of a part, in their places."""


class Earlier:
    """The texts of earlier parts, by hash."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="poolc-dedupe-")
        path = Path(self._folder.name) / "index.sqlite"
        # It is made anew from the shelf whenever a job goes on: nothing here has to survive.
        self._index = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._index.execute("PRAGMA journal_mode = OFF")
        self._index.execute("PRAGMA synchronous = OFF")
        self._index.execute(
            "CREATE TABLE texts (digest BLOB PRIMARY KEY, part INTEGER, place INTEGER) "
            "WITHOUT ROWID"
        )

    def find(self, items: Iterable[Item]) -> dict[Item, Found]:
        """Return those of ``items`` that were computed before."""
        found: dict[Item, Found] = {}
        query = "SELECT part, place FROM texts WHERE digest = ?"
        for item in items:
            row = self._index.execute(query, (digest_of(item),)).fetchone()
            if row is not None:
                found[item] = Found(*row)
        return found

    def add(self, part: int, digests: Sequence[bytes]) -> None:
        """Enter the distinct texts of a part, in their places."""
        rows = [(digest, part, place) for place, digest in enumerate(digests)]
        self._index.execute("BEGIN")
        self._index.executemany("INSERT OR IGNORE INTO texts VALUES (?, ?, ?)", rows)
        self._index.execute("COMMIT")

    def close(self) -> None:
        """Remove the index."""
        self._index.close()
        self._folder.cleanup()


def digest_of(item: Item) -> bytes:
    """Return a hash of a text or a pair of texts."""
    parts = (item,) if isinstance(item, str) else tuple(str(part) for part in item)
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.digest()


def read_digests(file: Any) -> list[bytes]:
    """Return the hashes of a part's distinct texts, from the file that was kept."""
    shape, _, start = _header(file)
    file.seek(start + shape[0])
    data = file.read(shape[0] * _DIGEST_BYTES)
    return [data[i : i + _DIGEST_BYTES] for i in range(0, len(data), _DIGEST_BYTES)]


def read_rows(file: Any, places: Sequence[int]) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Return values [n, ...] and whether cut [n] at places, from the file that was kept."""
    shape, dtype, after = _header(file)
    size = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
    first = after - shape[0] * size
    values, cut = [], []
    for place in places:
        file.seek(first + place * size)
        values.append(file.read(size))
        file.seek(after + place)
        cut.append(file.read(1) == b"\1")
    array = np.frombuffer(b"".join(values), dtype).reshape(len(places), *shape[1:])
    return array, np.array(cut, np.bool_)


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Return shape and dtype of the array in a file, and where it ends."""
    np.lib.format.read_magic(file)
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    count = int(np.prod(shape, dtype=np.int64))
    return shape, dtype, file.tell() + count * dtype.itemsize


def by_part(found: Mapping[int, Found]) -> dict[int, list[int]]:
    """Return the rows that take their numbers from each part, in order of places."""
    parts: dict[int, list[int]] = {}
    for row in sorted(found, key=lambda row: found[row]):
        parts.setdefault(found[row].part, []).append(row)
    return parts
