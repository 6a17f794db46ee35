"""Parts, ledger and output of a job in an object store.

Nothing can be appended there, so a ledger is one object a line; an object appears when its upload
ends. Knows nothing about what parts hold.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from poolc.errors import InputError
from poolc.runtime.bulk import storage
from poolc.runtime.bulk.destination import (
    ERRORS_SUFFIX,
    FOLDER_ERRORS,
    FOLDER_JOB,
    FOLDER_META,
    JOB_SUFFIX,
    WHOLE,
    Assemble,
    Destination,
    meta_object,
)
from poolc.runtime.bulk.inputs import Source
from poolc.runtime.bulk.publish import META_SUFFIX, meta_bytes
from poolc.runtime.bulk.shelf import (
    Parts,
    Shelf,
    Stored,
    disk_errors,
    ledger_line,
    parsed_line,
    stored,
)

_LINES = "ledger"
# Lines of a ledger are small objects: asking for one after the other is waiting.
_READS_AT_ONCE, _READ_AHEAD = 16, 256
_COPY_BYTES = 1 << 22


class RemoteShelf(Shelf):
    """Objects below a prefix; with ``parts`` the finished parts are below that, to stay there."""

    def __init__(self, place: storage.Remote, prefix: str, parts: str | None = None) -> None:
        self._place = place
        self._fs = place.fs
        self._prefix = prefix.rstrip("/")
        self._parts = self._prefix if parts is None else parts.rstrip("/")
        self._num_entries: int | None = None
        self._sizes: dict[str, int] | None = None  # of the parts that were there

    def put(self, name: str, data: Any) -> Stored:
        with self._errors("write"), self._fs.open_output_stream(f"{self._parts}/{name}") as file:
            file.write(data)  # an object appears when its upload ends
        self._sizes = None
        return stored(name, data)

    def admit(self) -> str:
        return ""  # whoever has credentials may put

    def open(self, name: str) -> Any:
        with self._errors("read"):
            return self._fs.open_input_file(f"{self._parts}/{name}")

    def holds(self, part: Stored) -> bool:
        if self._sizes is None:  # one listing tells of a thousand parts, a request of one
            self._sizes = self._listed()
        return self._sizes.get(part.name) == part.num_bytes

    def read(self) -> Iterator[dict[str, Any]]:
        with self._errors("read"):
            names = self._lines()
        number = 0
        with ThreadPoolExecutor(_READS_AT_ONCE) as threads:
            for start in range(0, len(names), _READ_AHEAD):
                for line in threads.map(self._content, names[start : start + _READ_AHEAD]):
                    entry = parsed_line(line)
                    if entry is None:
                        self._num_entries = number
                        return
                    number += 1
                    yield entry
        self._num_entries = number

    def append(self, entry: Mapping[str, Any]) -> None:
        if self._num_entries is None:
            self._num_entries = sum(1 for _ in self.read())
        with self._errors("write"):
            name = f"{self._prefix}/{_LINES}/{self._num_entries:08d}.json"
            with self._fs.open_output_stream(name) as file:
                file.write(ledger_line(entry))
        self._num_entries += 1

    def truncate(self, num_entries: int) -> None:
        with self._errors("write"):
            for name in reversed(self._lines()[num_entries:]):
                self._fs.delete_file(name)
        self._num_entries = num_entries

    def remove(self, name: str) -> None:
        with self._errors("write"), contextlib.suppress(FileNotFoundError):
            self._fs.delete_file(f"{self._parts}/{name}")
        self._sizes = None

    def clear(self) -> None:
        self.truncate(0)
        with self._errors("write"), contextlib.suppress(FileNotFoundError):
            self._fs.delete_dir(self._prefix)

    def _content(self, name: str) -> bytes:
        with self._errors("read"), self._fs.open_input_stream(name) as file:
            return bytes(file.read())

    def _listed(self) -> dict[str, int]:
        from pyarrow.fs import FileSelector

        with self._errors("read"):
            infos = self._fs.get_file_info(FileSelector(self._parts, allow_not_found=True))
        return {info.base_name: info.size for info in infos if info.is_file}

    def _lines(self) -> list[str]:
        from pyarrow.fs import FileSelector

        folder = f"{self._prefix}/{_LINES}"
        infos = self._fs.get_file_info(FileSelector(folder, allow_not_found=True))
        return sorted(info.path for info in infos if info.path.endswith(".json"))

    @contextmanager
    def _errors(self, verb: str) -> Iterator[None]:
        with storage.store_errors(self._place.url, verb, "output"):
            yield


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
            return RemoteShelf(self._place, f"{self._path}/{FOLDER_JOB}", self._path)
        return RemoteShelf(self._place, self._path + JOB_SUFFIX)

    def open_parts(self, token: str) -> Parts:
        return self.shelf()

    def unfinished(self) -> bool:
        return next(self.shelf().read(), None) is not None

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
                return meta_object(file.read())

    def errors_name(self) -> str:
        return self.name + (FOLDER_ERRORS if self.of_parts else ERRORS_SUFFIX)

    def put_errors(self, data: bytes | None) -> None:
        own = f"/{FOLDER_ERRORS}" if self.of_parts else ERRORS_SUFFIX
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
        return self._path + (f"/{FOLDER_META}" if self.of_parts else META_SUFFIX)

    def _put(self, path: str, data: bytes | None) -> None:
        with storage.store_errors(self.name, "write", "output"):
            if data is not None:
                with self._fs.open_output_stream(path) as file:
                    file.write(data)
            elif self._fs.get_file_info(path).size is not None:
                self._fs.delete_file(path)
