"""The folder that an export makes: where it may go, and how it appears all at once.

Owns the marker that tells an earlier export from a folder of somebody else's. Knows nothing about
what is exported.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from poolc.errors import ArtifactExists
from poolc.model_cache.artifact import Artifact
from poolc.model_cache.durable import fsync_file, fsync_folder, write_new
from poolc.model_cache.publish import removal_lock, staging

MARKER = "poolc-export.json"


@contextmanager
def exporting(destination: Path, home: str, artifact: Artifact, *, force: bool) -> Iterator[Path]:
    """Give a temporary folder, which is renamed to ``destination`` when the block ends well.

    ``home`` is what the marker calls the export. An empty folder is replaced, and with ``force`` an
    earlier export of the same home that holds nothing else. Raises ArtifactExists for anything
    else, before the block and again at the end.
    """
    destination = destination.expanduser().resolve()
    _check(destination, home, force)
    with staging(destination.parent) as staged:
        yield staged
        write_new(staged / MARKER, _marker(staged, home, artifact))
        _sync(staged)
        with removal_lock(destination.parent):
            _check(destination, home, force)
            _put(staged, destination)
        fsync_folder(destination.parent)


def version() -> str:
    """Return poolc's version; of a checkout that is not installed, a word for that."""
    try:
        return metadata.version("poolc")
    except metadata.PackageNotFoundError:
        return "unreleased"


def _check(destination: Path, home: str, force: bool) -> None:
    if not os.path.lexists(destination):
        return
    if not destination.is_dir():
        raise ArtifactExists(f"{destination} is not a folder: remove it or choose another place")
    present = _files(destination)
    if not present and not any(destination.iterdir()):
        return
    listed = _listed(destination, home)
    if listed is None:
        raise ArtifactExists(
            f"{destination} is not empty, and no earlier export to {home}: choose another place"
        )
    added = sorted(present - listed - {MARKER})
    if added:
        raise ArtifactExists(
            f"{destination} holds {added[0]}, which no export wrote: move it away or choose "
            "another place"
        )
    if not force:
        raise ArtifactExists(
            f"{destination} holds an earlier export: replace it with --force (force=True), or "
            "choose another place"
        )


def _listed(destination: Path, home: str) -> set[str] | None:
    """Return the files that an earlier export wrote; None where there was none to this home."""
    try:
        marker = json.loads((destination / MARKER).read_bytes())
        return set(marker["files"]) if marker["home"] == home else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _files(folder: Path) -> set[str]:
    return {
        (Path(root) / name).relative_to(folder).as_posix()
        for root, _, names in os.walk(folder)
        for name in names
    }


def _marker(staged: Path, home: str, artifact: Artifact) -> bytes:
    source = artifact.manifest.source
    marker: dict[str, Any] = {
        "home": home,
        "poolc": version(),
        "artifact_id": artifact.artifact_id,
        "space_id": artifact.space_id,
        "source": {"id": source.id, "revision": source.revision},
        "target": artifact.manifest.target,
        "precision": artifact.manifest.precision,
        "files": sorted(_files(staged)),
    }
    return json.dumps(marker, indent=2).encode() + b"\n"


def _sync(staged: Path) -> None:
    for root, _, names in os.walk(staged, topdown=False):
        for name in names:
            fsync_file(Path(root) / name)
        fsync_folder(Path(root))


def _put(staged: Path, destination: Path) -> None:
    """Rename; what an earlier export wrote is only deleted once the new one is in its place."""
    if not destination.exists() or not any(destination.iterdir()):
        os.rename(staged, destination)
        return
    with staging(destination.parent) as aside:
        os.rename(destination, aside / "replaced")
        try:
            os.rename(staged, destination)
        except OSError:
            os.rename(aside / "replaced", destination)
            raise
