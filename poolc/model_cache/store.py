"""The store: where artifacts live on this machine, and which request each one answers.

    artifacts/<artifact_id>/      artifacts, published here by one rename
    refs/<request_key>.json       request -> artifact
    commits/<hash>.json           hub id and revision -> the commit that was compiled first
    stamps/<hash>.json            what was hashed, so that it need not be again
    timing/                       what engine builders timed, by library, GPU and driver
    tmp/                          drafts of the small files above

Knows nothing about compiling or about the hub. All of it is a cache: a file that cannot be read
counts as absent.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Any

from poolc.errors import ArtifactCorrupt, ArtifactError, ArtifactNotFound, InvalidOption
from poolc.model_cache.artifact import STAMP_KIND, Artifact, is_artifact, open_artifact
from poolc.model_cache.durable import replace_file
from poolc.model_cache.manifest import (
    MANIFEST_FILE,
    RECIPE,
    SCHEMA_MAJOR,
    Manifest,
    parse_manifest,
)
from poolc.model_cache.serde import canonical_json, to_plain
from poolc.model_cache.source_files import source_digest
from poolc.model_cache.stamps import Stamps

_ID = re.compile(r"[0-9a-f]{64}")
_DRAFT_AGE_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One artifact of the store. ``problem`` says why its manifest cannot be read, if it cannot;
    what the manifest would say is then None. ``created`` is in seconds since the epoch."""

    artifact_id: str
    source: str | None
    target: str | None
    precision: str | None
    size_bytes: int
    created: float
    refs: tuple[str, ...]
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What verifying one artifact found; ``problem`` is None for a sound one."""

    artifact_id: str
    problem: str | None


def request_key(source: Mapping[str, Any], options: Mapping[str, Any], host_class: str) -> str:
    """Hash a request: what to compile, the options (target included), where, and by which recipe.

    ``source`` is the hub id with its resolved commit, or the digests of a folder's files.
    """
    plain = {
        "schema": SCHEMA_MAJOR,
        "recipe": RECIPE,
        "source": to_plain(source),
        "options": to_plain(options),
        "host_class": host_class,
    }
    return hashlib.sha256(canonical_json(plain)).hexdigest()


class Store:
    """A store folder; it need not exist until something is written."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.artifacts = self.root / "artifacts"
        self.stamps = Stamps(self.root / "stamps", self.root / "tmp")

    @classmethod
    def default(cls) -> Store:
        """Return the store at ``$POOLC_CACHE``, else ``~/.cache/poolc``."""
        configured = os.environ.get("POOLC_CACHE")
        return cls(Path(configured or "~/.cache/poolc").expanduser().absolute())

    def artifact_path(self, artifact_id: str) -> Path:
        """Return where an artifact of this id lives, or would."""
        if not _ID.fullmatch(artifact_id):
            raise InvalidOption(f"{artifact_id!r} is not an artifact id: 64 hexadecimal digits")
        return self.artifacts / artifact_id

    def expected_id(self, real_path: str) -> str | None:
        """Return the id that an artifact at this real path must have; None where it may be any."""
        folder, name = os.path.split(real_path)
        inside = _ID.fullmatch(name) and folder == os.path.realpath(self.artifacts)
        return name if inside else None

    def lookup(self, key: str) -> Path | None:
        """Return the folder of the artifact that answers a request; it is still to be opened."""
        artifact_id = self._read(self._ref(key)).get("artifact_id")
        if not isinstance(artifact_id, str) or not _ID.fullmatch(artifact_id):
            return None
        path = self.artifact_path(artifact_id)
        return path if is_artifact(path) else None

    def remember(self, key: str, artifact_id: str, note: Mapping[str, Any]) -> None:
        """Let ``lookup(key)`` find an artifact; ``note`` says for people what was asked."""
        self.artifact_path(artifact_id)  # refuses what is not an id
        self._write(self._ref(key), {"artifact_id": artifact_id, "note": to_plain(note)})

    def recorded_commit(self, hub_id: str, revision: str | None) -> str | None:
        """Return the commit that this hub id and revision meant when first compiled."""
        commit = self._read(self._commit(hub_id, revision)).get("commit")
        return commit if isinstance(commit, str) else None

    def record_commit(self, hub_id: str, revision: str | None, commit: str) -> None:
        """Pin a hub id and revision to a commit, over an earlier one."""
        plain = {"id": hub_id, "revision": revision, "commit": commit}
        self._write(self._commit(hub_id, revision), plain)

    def source_digest(self, folder: Path, *, from_onnx: bool = False) -> dict[str, str]:
        """Return ``source_digest(folder)``, hashing only what changed since it was last asked."""
        return source_digest(folder, self.stamps, from_onnx=from_onnx)

    def entries(self) -> list[Entry]:
        """List the artifacts, oldest first, without hashing them."""
        refs: dict[str, list[str]] = {}
        for key, artifact_id in self._refs():
            refs.setdefault(artifact_id, []).append(key)
        found = []
        for name in self._ids():
            with suppress(FileNotFoundError):  # removed by another process meanwhile
                found.append(self._entry(name, refs.get(name, [])))
        return sorted(found, key=lambda entry: (entry.created, entry.artifact_id))

    def find(self, prefix: str) -> str:
        """Return the one artifact id that starts with ``prefix``.

        Raises ArtifactNotFound for none and InvalidOption for several.
        """
        matches = [name for name in self._ids() if prefix and name.startswith(prefix)]
        if not matches:
            raise ArtifactNotFound(f"no artifact {prefix!r} in {self.root}: see `poolc cache list`")
        if len(matches) > 1:
            shown = ", ".join(match[:16] for match in sorted(matches)[:5])
            raise InvalidOption(
                f"{prefix!r} fits {len(matches)} artifacts ({shown}): give more digits"
            )
        return matches[0]

    def open(self, prefix: str) -> Artifact:
        """Open an artifact by id or unique prefix."""
        return open_artifact(self.artifact_path(self.find(prefix)), store=self)

    def verify(self, *prefixes: str) -> list[Verdict]:
        """Hash every file of the given artifacts, or of all."""
        chosen = [self.find(prefix) for prefix in prefixes] if prefixes else self._ids()
        return [Verdict(name, self._problem(name)) for name in chosen]

    def remove(self, *prefixes: str, everything: bool = False) -> list[Entry]:
        """Remove artifacts by id or unique prefix, or all; their refs and stamps go too.

        Nothing is removed unless every prefix names one artifact.
        """
        if everything == bool(prefixes):
            raise InvalidOption("name the artifacts to remove, or ask for all of them, not both")
        chosen = set(self._ids() if everything else [self.find(prefix) for prefix in prefixes])
        removed = [entry for entry in self.entries() if entry.artifact_id in chosen]
        for entry in removed:
            self._remove(entry)
        return removed

    def _remove(self, entry: Entry) -> None:
        from poolc.model_cache.publish import move_away, removal_lock

        path = self.artifact_path(entry.artifact_id)
        try:
            # Refs first: killed in between, the artifact is merely compiled again.
            for key in entry.refs:
                self._ref(key).unlink(missing_ok=True)
            with removal_lock(self.artifacts):
                move_away(path)
        except OSError as error:
            raise ArtifactError(f"{path} cannot be removed: {error.strerror or error}") from error
        self.stamps.forget(STAMP_KIND, os.path.realpath(path))

    def _ids(self) -> list[str]:
        with suppress(OSError):
            return sorted(name for name in os.listdir(self.artifacts) if _ID.fullmatch(name))
        return []

    def _entry(self, artifact_id: str, refs: list[str]) -> Entry:
        path = self.artifacts / artifact_id
        manifest, problem = self._manifest(path, artifact_id)
        sizes = [file.lstat().st_size for file in path.rglob("*") if file.is_file()]
        probe = path / MANIFEST_FILE
        return Entry(
            artifact_id=artifact_id,
            source=manifest.source.id if manifest else None,
            target=manifest.target.value if manifest else None,
            precision=manifest.precision.value if manifest else None,
            size_bytes=sum(sizes),
            created=(probe if probe.exists() else path).stat().st_mtime,
            refs=tuple(sorted(refs)),
            problem=problem,
        )

    @staticmethod
    def _manifest(path: Path, artifact_id: str) -> tuple[Manifest | None, str | None]:
        try:
            data = (path / MANIFEST_FILE).read_bytes()
            if hashlib.sha256(data).hexdigest() != artifact_id:
                raise ArtifactCorrupt(f"{MANIFEST_FILE} was altered or damaged")
            return parse_manifest(data), None
        except OSError as error:
            return None, f"{MANIFEST_FILE} cannot be read: {error.strerror or error}"
        except ArtifactError as error:
            return None, str(error)

    def _problem(self, artifact_id: str) -> str | None:
        try:
            path = self.artifact_path(artifact_id)
            open_artifact(path, store=self, always_hash=True, check_host=False).report()
        except ArtifactError as error:
            return str(error)
        return None

    def _ref(self, key: str) -> Path:
        if not _ID.fullmatch(key):
            raise InvalidOption(f"{key!r} is not a request key: 64 hexadecimal digits")
        return self.root / "refs" / f"{key}.json"

    def _refs(self) -> Iterator[tuple[str, str]]:
        for file in sorted((self.root / "refs").glob("*.json")):
            artifact_id = self._read(file).get("artifact_id")
            if _ID.fullmatch(file.stem) and isinstance(artifact_id, str):
                yield file.stem, artifact_id

    def _commit(self, hub_id: str, revision: str | None) -> Path:
        key = hashlib.sha256(canonical_json([hub_id, revision])).hexdigest()
        return self.root / "commits" / f"{key}.json"

    @staticmethod
    def _read(path: Path) -> dict[str, Any]:
        with suppress(OSError, ValueError, RecursionError):
            plain = json.loads(path.read_bytes())
            if isinstance(plain, dict):
                return plain
        return {}

    def _write(self, path: Path, plain: Mapping[str, Any]) -> None:
        self._drop_old_drafts()
        try:
            replace_file(path, canonical_json(dict(plain)), self.root / "tmp")
        except OSError as error:
            raise ArtifactError(
                f"{path} cannot be written ({error.strerror or error}): "
                "set POOLC_CACHE to a folder that can"
            ) from error

    def _drop_old_drafts(self) -> None:
        """Delete what killed writers left; a day is longer than any write takes."""
        for draft in (self.root / "tmp").glob("*"):
            with suppress(OSError):
                if draft.stat().st_mtime < time() - _DRAFT_AGE_S:
                    draft.unlink()
