"""An artifact on disk: finding, verifying and reading one. Read-only.

Knows nothing about how artifacts are made or run. What is returned has been checked: every file
of the manifest is a regular file inside the folder and has its sha256, or has kept the stamp under
which it had it; ONNX graphs point only at files of the manifest; this machine can run it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from poolc.errors import ArtifactCorrupt, ArtifactNotFound
from poolc.model_cache.manifest import MANIFEST_FILE, REPORT_FILE, Manifest, parse_manifest
from poolc.model_cache.stamps import NO_FOLLOW, FileStamp, Hashed, Record, hash_file, open_regular
from poolc.spec import MAIN_SET, Target

if TYPE_CHECKING:
    from poolc.model_cache.store import Store

MANIFEST_SUM = MANIFEST_FILE + ".sha256"
REPORT_SUM = REPORT_FILE + ".sha256"
RESERVED_FILES = frozenset({MANIFEST_FILE, MANIFEST_SUM, REPORT_FILE, REPORT_SUM})
STAMP_KIND = "artifact"

_MAX_JSON_BYTES = 64 << 20
_ONNX_TARGETS = frozenset({Target.CPU, Target.CUDA})


@dataclass(frozen=True, slots=True)
class Artifact:
    """A verified artifact folder."""

    path: Path
    manifest: Manifest
    artifact_id: str

    @property
    def space_id(self) -> str:
        """The id of the vector space, shared by artifacts whose vectors can be compared."""
        return self.manifest.space_id

    def report(self) -> dict[str, Any]:
        """Read report.json, checked against its sha256 each time."""
        data = _read(self.path, REPORT_FILE)
        if _read(self.path, REPORT_SUM) != sidecar(hashlib.sha256(data).hexdigest()):
            raise _altered(self.path, REPORT_FILE)
        try:
            return cast("dict[str, Any]", json.loads(data))
        except (ValueError, RecursionError) as error:
            raise ArtifactCorrupt(f"{self.path}: {REPORT_FILE} is not JSON: {error}") from error

    def sizes(self) -> dict[str, int]:
        """Return the bytes of every file that the manifest names."""
        return {name: self.file(name).stat().st_size for name in self.manifest.files}

    def file(self, name: str) -> Path:
        """Return the path of a file that the manifest lists, so one that was verified."""
        if name not in self.manifest.files:
            raise ArtifactCorrupt(f"{self.path}: the manifest lists no file {name!r}")
        return self.path / name


def is_artifact(path: Path) -> bool:
    """Tell an artifact folder, damaged ones included, from a model folder or nothing."""
    # Other tools write a manifest.json too: beside a config.json it is taken for a model's.
    if os.path.lexists(path / MANIFEST_SUM):
        return True
    return os.path.lexists(path / MANIFEST_FILE) and not os.path.lexists(path / "config.json")


def open_artifact(
    path: Path, *, store: Store | None = None, always_hash: bool = False, check_host: bool = True
) -> Artifact:
    """Verify an artifact folder and return it.

    With a ``store``, files that kept the stamp of an earlier check are not hashed again, unless
    ``always_hash``; without one everything is. ``check_host=False`` opens artifacts that this
    machine cannot run, to look at them. Raises ArtifactNotFound, ArtifactCorrupt,
    ArtifactIncompatible, and MissingDependency where no ONNX Runtime is installed.
    """
    path = Path(path)
    data, artifact_id = _read_manifest(path)
    real = os.path.realpath(path)
    if store is not None and store.expected_id(real) not in (None, artifact_id):
        raise ArtifactCorrupt(f"{path} holds artifact {artifact_id}, not the one it is named after")
    manifest = parse_manifest(data)
    _check_listing(path, manifest)
    kept = Record(artifact_id)
    if store is not None:
        kept = store.stamps.load(STAMP_KIND, real, artifact_id)
    files = _verify_files(path, manifest, {} if always_hash else kept.files)
    host = kept.host
    if check_host:
        from poolc.model_cache.host import check_host as check

        host = check(manifest.requires, kept.host)
    record = Record(artifact_id, files, host)
    if store is not None and record != kept:
        store.stamps.save(STAMP_KIND, real, record)
    return Artifact(path, manifest, artifact_id)


def sidecar(digest: str) -> bytes:
    """Return the content of a ``.sha256`` file."""
    return digest.encode("ascii") + b"\n"


def relative_name_problem(name: str) -> str | None:
    """Say what is wrong with a file name of a manifest or graph; None for a plain relative path."""
    if not name or not name.isprintable() or "\\" in name or ":" in name:
        return "is not a plain relative path"
    if name.startswith("/"):
        return "is absolute"
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "has empty, '.' or '..' parts"
    return None


def _read_manifest(path: Path) -> tuple[bytes, str]:
    if not is_artifact(path):
        raise ArtifactNotFound(f"{path} is not an artifact: it holds no {MANIFEST_FILE}")
    data = _read(path, MANIFEST_FILE)
    digest = hashlib.sha256(data).hexdigest()
    if _read(path, MANIFEST_SUM) != sidecar(digest):
        raise ArtifactCorrupt(
            f"{path}: {MANIFEST_FILE} and {MANIFEST_SUM} do not belong together: one of them was "
            "altered or damaged; compile the model again"
        )
    return data, digest


def _check_listing(path: Path, manifest: Manifest) -> None:
    for name in manifest.files:
        problem = "is reserved" if name in RESERVED_FILES else relative_name_problem(name)
        if problem is not None:
            raise ArtifactCorrupt(f"{path}: manifest.files: {name!r} {problem}")
    if MAIN_SET not in manifest.graphs:
        raise ArtifactCorrupt(f"{path}: manifest.graphs has no {MAIN_SET!r}")
    for output_set, graph in manifest.graphs.items():
        if graph.file not in manifest.files:
            raise ArtifactCorrupt(
                f"{path}: manifest.graphs.{output_set}.file is {graph.file!r}, which "
                "manifest.files does not list"
            )


def _verify_files(path: Path, manifest: Manifest, kept: Mapping[str, Hashed]) -> dict[str, Hashed]:
    """Check every file but the manifest and the sidecars, which are read and compared each time."""
    report_sum = _read(path, REPORT_SUM)
    expected = {**manifest.files, REPORT_FILE: report_sum[:-1].decode("ascii", "replace")}
    if len(report_sum) != 65 or report_sum[-1:] != b"\n":
        raise ArtifactCorrupt(f"{path}: {REPORT_SUM} is damaged")
    graphs = {name for name in manifest.files if name.endswith(".onnx")}
    if manifest.target in _ONNX_TARGETS:
        graphs |= {graph.file for graph in manifest.graphs.values()}
    _check_folders(path, manifest)
    checked: dict[str, Hashed] = {}
    for name, sha256 in expected.items():
        stamp = _stamp(path, name)
        known = kept.get(name)
        if known is None or known.stamp != stamp or known.sha256 != sha256:
            known = _hash(path, name, manifest if name in graphs else None)
        if known.sha256 != sha256:
            raise _altered(path, name)
        checked[name] = known
    return checked


def _check_folders(path: Path, manifest: Manifest) -> None:
    folders = {str(parent) for name in manifest.files for parent in PurePosixPath(name).parents}
    for name in sorted(folders - {"."}):
        try:
            status = os.lstat(path / name)
        except OSError as error:
            raise _unreadable(path, name, error) from error
        if not stat.S_ISDIR(status.st_mode):
            raise ArtifactCorrupt(f"{path}: {name} is a link or a file, not a folder")


def _stamp(path: Path, name: str) -> FileStamp:
    try:
        status = os.lstat(path / name)
    except (OSError, ValueError) as error:
        raise _unreadable(path, name, error) from error
    if not stat.S_ISREG(status.st_mode):
        raise ArtifactCorrupt(f"{path}: {name} is a link or not a regular file: refused")
    return FileStamp.of(status)


def _hash(path: Path, name: str, graph_of: Manifest | None) -> Hashed:
    def examine(file: BinaryIO, size: int) -> None:
        if graph_of is not None:
            _check_locations(path, name, file, size, graph_of)

    try:
        return hash_file(path / name, flags=NO_FOLLOW, examine=examine)
    except OSError as error:
        raise _unreadable(path, name, error) from error


def _check_locations(path: Path, name: str, file: BinaryIO, size: int, manifest: Manifest) -> None:
    from poolc.model_cache.onnx_paths import external_locations

    folder = name.rpartition("/")[0]
    try:
        for location in set(external_locations(file, size)):
            problem = relative_name_problem(location)
            target = f"{folder}/{location}" if folder else location
            if problem is None and target not in manifest.files:
                problem = "is not a file of the manifest"
            if problem is not None:
                raise ArtifactCorrupt(f"external data at {location!r} {problem}: refused")
    except ArtifactCorrupt as error:
        raise ArtifactCorrupt(f"{path}: {name}: {error}") from error


def _read(path: Path, name: str) -> bytes:
    _stamp(path, name)
    try:
        with open_regular(path / name, NO_FOLLOW) as file:
            data = file.read(_MAX_JSON_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, name, error) from error
    if len(data) > _MAX_JSON_BYTES:
        raise ArtifactCorrupt(f"{path}: {name} is larger than {_MAX_JSON_BYTES} bytes")
    return data


def _altered(path: Path, name: str) -> ArtifactCorrupt:
    return ArtifactCorrupt(
        f"{path}: {name} does not have the sha256 that was recorded: it was altered or damaged; "
        "compile the model again"
    )


def _unreadable(path: Path, name: str, error: OSError | ValueError) -> ArtifactCorrupt:
    if isinstance(error, FileNotFoundError):
        return ArtifactCorrupt(f"{path}: {name} is missing; compile the model again")
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return ArtifactCorrupt(f"{path}: {name} is a link: refused")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return ArtifactCorrupt(f"{path}: {name} cannot be read: {reason}")
