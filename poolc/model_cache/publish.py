"""Making an artifact appear: all at once, durable, and never over something else.

Knows nothing about what the files hold beyond the manifest's list. A staged folder is hidden beside
its destination and guarded by a lock file next to it, which the kernel releases when the process
ends however it ends: a staging folder whose lock is free belongs to a killed compile.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from poolc.errors import ArtifactCorrupt, ArtifactError, ArtifactExists, ArtifactNotFound
from poolc.model_cache.artifact import (
    RESERVED_FILES,
    Artifact,
    is_artifact,
    open_artifact,
    sidecar,
)
from poolc.model_cache.durable import fsync_file, fsync_folder, write_new
from poolc.model_cache.manifest import MANIFEST_FILE, REPORT_FILE, Manifest
from poolc.model_cache.serde import canonical_json

STAGING_PREFIX = ".poolc-staging-"
_LOCK_SUFFIX = ".lock"
_ATTEMPTS = 10  # a destination can come and go under us only so often before something is wrong


@contextmanager
def staging(parent: Path) -> Iterator[Path]:
    """Give a temporary folder inside ``parent`` that is gone, or published, at the end.

    Removes the staging folders of processes that were killed.
    """
    parent = Path(parent)
    parent.mkdir(parents=True, exist_ok=True)
    _remove_orphans(parent)
    lock, descriptor = _create_lock(parent)
    folder = _folder_of(lock)
    try:
        folder.mkdir()
        yield folder
    finally:
        _discard(folder, lock)
        os.close(descriptor)


def publish(
    staged: Path, manifest: Manifest, report: Mapping[str, Any], destination: Path
) -> Artifact:
    """Complete a staged folder and rename it to ``destination``, on the same filesystem.

    ``manifest.files`` already lists exactly the files of the folder with their sha256; they are
    verified once more before anything is visible. Where the same artifact is there already, ours is
    dropped and theirs returned; an empty folder and a damaged artifact of the store are replaced.
    Raises ArtifactExists for anything else, ArtifactCorrupt for a folder that is not as listed.
    """
    destination = Path(destination).resolve()
    seal(staged, manifest, report)
    ours = open_artifact(staged, check_host=False)
    _sync_tree(staged, manifest)
    destination.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(_ATTEMPTS):
        if _rename(staged, destination):
            fsync_folder(destination.parent)
            return Artifact(destination, ours.manifest, ours.artifact_id)
        theirs = _settle(destination, ours.artifact_id)
        if theirs is not None:
            shutil.rmtree(staged, ignore_errors=True)
            return theirs
    raise ArtifactError(f"{destination} keeps changing: is another program writing there?")


def seal(staged: Path, manifest: Manifest, report: Mapping[str, Any]) -> None:
    """Write manifest and report with their sha256, over those of an earlier call.

    The parity gate runs a staged folder as an artifact before its report is complete.
    """
    for name, data in (
        (MANIFEST_FILE, manifest.to_bytes()),
        (REPORT_FILE, canonical_json(dict(report))),
    ):
        total = sidecar(hashlib.sha256(data).hexdigest())
        for path, content in ((staged / name, data), (staged / f"{name}.sha256", total)):
            path.unlink(missing_ok=True)
            write_new(path, content)


def _sync_tree(staged: Path, manifest: Manifest) -> None:
    """Fsync every file, then every folder from the inside out; refuse what is not listed."""
    listed = manifest.files.keys() | RESERVED_FILES
    for root, folders, files in os.walk(staged, topdown=False):
        here = Path(root)
        for name in files:
            relative = (here / name).relative_to(staged).as_posix()
            if relative not in listed:
                raise ArtifactCorrupt(f"{relative} was staged but the manifest does not list it")
            fsync_file(here / name)
        for name in folders:
            if stat.S_ISLNK(os.lstat(here / name).st_mode):
                raise ArtifactCorrupt(f"{name} is a link in the staged folder: refused")
        fsync_folder(here)


def _rename(staged: Path, destination: Path) -> bool:
    """Rename, over an empty folder too; False where something is in the way."""
    try:
        os.rename(staged, destination)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            return False
        if error.errno == errno.EXDEV:
            raise ArtifactError(
                f"{destination} lies on another filesystem than {staged.parent}: stage beside it"
            ) from error
        raise
    return True


def _settle(destination: Path, artifact_id: str) -> Artifact | None:
    """Decide about a destination that is not free: theirs, or None to try the rename again."""
    damage: str | None = None
    try:
        theirs = _open_same(destination, artifact_id)
    except ArtifactCorrupt as error:
        theirs, damage = None, f"holds a damaged artifact ({error})"
    if theirs is not None or _is_free(destination):
        return theirs
    if destination.name == artifact_id and destination.is_dir():
        return _clear_damaged(destination, artifact_id)
    if not os.path.lexists(destination):  # somebody has just taken it away
        return None
    what = damage or f"is not {'an empty' if destination.is_dir() else 'a'} folder"
    raise ArtifactExists(f"{destination} {what}: remove it or choose another place")


def _open_same(destination: Path, artifact_id: str) -> Artifact | None:
    """Open what lies there if it is an artifact; raise ArtifactExists if it is another one."""
    if not is_artifact(destination):
        return None
    try:
        theirs = open_artifact(destination, check_host=False)
    except ArtifactCorrupt:
        raise
    except ArtifactNotFound:  # it was taken away meanwhile, whatever may be there by now
        return None
    except ArtifactError as error:
        if not os.path.lexists(destination):
            return None
        raise ArtifactExists(
            f"{destination} holds another artifact ({error}): remove it or choose another place"
        ) from error
    if theirs.artifact_id != artifact_id:
        raise ArtifactExists(
            f"{destination} holds artifact {theirs.artifact_id[:12]}, not {artifact_id[:12]}: "
            "remove it or choose another place"
        )
    return theirs


def _clear_damaged(destination: Path, artifact_id: str) -> Artifact | None:
    """Move a damaged artifact of the store away, unless a good one has taken its place."""
    with removal_lock(destination.parent):
        with suppress(ArtifactCorrupt):
            theirs = _open_same(destination, artifact_id)
            if theirs is not None or _is_free(destination):
                return theirs
        move_away(destination)
    return None


def _is_free(destination: Path) -> bool:
    """Tell whether a rename can succeed: nothing there, or an empty folder."""
    try:
        return not os.listdir(destination)
    except FileNotFoundError:
        return not os.path.lexists(destination)
    except NotADirectoryError:
        return False


@contextmanager
def removal_lock(parent: Path) -> Iterator[None]:
    """Exclude other removals in ``parent``.

    A non-empty folder is taken away only under this lock, and a rename cannot replace one: what its
    holder has examined is what it removes.
    """
    descriptor = os.open(parent, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def move_away(folder: Path) -> None:
    """Make a folder vanish in one step, then delete it."""
    with staging(folder.parent) as trash, suppress(FileNotFoundError):
        os.rename(folder, trash / "removed")


def _folder_of(lock: Path) -> Path:
    return lock.with_name(lock.name.removesuffix(_LOCK_SUFFIX))


def _create_lock(parent: Path) -> tuple[Path, int]:
    while True:
        lock = parent / f"{STAGING_PREFIX}{os.urandom(8).hex()}{_LOCK_SUFFIX}"
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        # Another process may have taken it for an orphan between the two calls: it then holds the
        # lock, or has already removed the file.
        if _try_lock(descriptor) and lock.exists():
            return lock, descriptor
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove_orphans(parent: Path) -> None:
    for lock in parent.glob(f"{STAGING_PREFIX}*{_LOCK_SUFFIX}"):
        try:
            descriptor = os.open(lock, os.O_RDWR)
        except OSError:  # removed meanwhile, or another user's
            continue
        try:
            if _try_lock(descriptor):
                _discard(_folder_of(lock), lock)
        finally:
            os.close(descriptor)


def _discard(folder: Path, lock: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    # The lock file is what the next staging finds an undeletable folder by.
    if not os.path.lexists(folder):
        with suppress(OSError):
            lock.unlink()
