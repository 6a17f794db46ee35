"""Publishing: all at once or not at all, under kills and races, and never over something else."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import poolc
from poolc.errors import ArtifactCorrupt, ArtifactError, ArtifactExists
from poolc.model_cache import publish as publish_module
from poolc.model_cache.artifact import RESERVED_FILES, Artifact, open_artifact
from poolc.model_cache.publish import STAGING_PREFIX, publish, seal, staging
from poolc.model_cache.store import Store

from .fakes import (
    DATA,
    REPORT,
    digests,
    fake_manifest,
    flip,
    publish_fake,
    write_files,
)

KEY = "ab" * 32  # as in forked_publishers.py
PROGRAM = f"{Path(__file__).parent.name}.forked_publishers"


def run_forked(mode: str, *arguments: object) -> list[Any]:
    here = Path(__file__)
    path = os.pathsep.join([str(here.parents[1]), str(Path(str(poolc.__file__)).parents[1])])
    done = subprocess.run(
        [sys.executable, "-m", PROGRAM, mode, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    result: list[Any] = json.loads(done.stdout)
    return result


@pytest.fixture
def template(contents: dict[str, bytes], tmp_path: Path) -> Path:
    """The files of an artifact in a folder, some more than the tiny one has."""
    folder = tmp_path / "template"
    folder.mkdir()
    write_files(folder, contents | {f"templates/{i}.jinja": b"x" * 50 for i in range(4)})
    return folder


def read_template(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def damaged_store(template: Path, root: Path) -> Path:
    """A store that holds the artifact with one byte flipped."""
    contents = read_template(template)
    store = Store(root)
    path = store.artifact_path(fake_manifest(digests(contents)).artifact_id)
    flip(publish_fake(contents, path).path / DATA, 3)
    return root


@pytest.mark.parametrize("scene", ["fresh", "damaged", "there"])
def test_kill_at_any_step_leaves_nothing_that_half_loads(
    template: Path, tmp_path: Path, scene: str
) -> None:
    prepared, roots = tmp_path / "prepared", tmp_path / "roots"
    prepared.mkdir()
    if scene == "damaged":
        damaged_store(template, prepared)
    elif scene == "there":
        contents = read_template(template)
        name = fake_manifest(digests(contents)).artifact_id
        publish_fake(contents, Store(prepared).artifact_path(name))
    statuses = run_forked("kill", template, prepared, roots)
    assert statuses == [-signal.SIGKILL] * (len(statuses) - 1) + [0]
    assert len(statuses) >= 60
    outcomes = [check_after_kill(roots / str(step + 1), scene) for step in range(len(statuses))]
    assert outcomes[-1] == "remembered"
    assert set(outcomes) >= {"remembered", "opens"}
    assert ("refused" in outcomes) is (scene == "damaged")


def check_after_kill(root: Path, scene: str) -> str:
    """Check a store after a kill, and that the next staging cleans it; say what readers find."""
    store = Store(root)
    with staging(store.artifacts):
        pass
    left = os.listdir(store.artifacts)
    assert not [name for name in left if name.startswith(".")]
    answer = store.lookup(KEY)
    if not left:
        assert scene != "there"
        assert answer is None
        return "absent"
    (name,) = left
    try:
        opened = open_artifact(store.artifacts / name, store=store)
    except ArtifactCorrupt:
        assert scene == "damaged"
        return "refused"
    assert opened.artifact_id == name
    assert answer in (None, opened.path)
    return "opens" if answer is None else "remembered"


def test_concurrent_publishers_make_one_artifact(template: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    ids = run_forked("race", template, root, 8)
    (name,) = os.listdir(root / "artifacts")
    assert ids == [name] * 8
    assert open_artifact(root / "artifacts" / name).artifact_id == name


def test_concurrent_publishers_over_a_damaged_one(template: Path, tmp_path: Path) -> None:
    root = damaged_store(template, tmp_path / "store")
    ids = run_forked("race", template, root, 8)
    (name,) = os.listdir(root / "artifacts")
    assert ids == [name] * 8
    assert open_artifact(root / "artifacts" / name).artifact_id == name


def test_published_folder_holds_exactly_its_files(
    artifact: Artifact, contents: dict[str, bytes]
) -> None:
    found = {
        path.relative_to(artifact.path).as_posix()
        for path in artifact.path.rglob("*")
        if path.is_file()
    }
    assert found == contents.keys() | RESERVED_FILES
    assert os.listdir(artifact.path.parent) == [artifact.artifact_id]


def test_publish_is_byte_identical_twice(
    artifact: Artifact, contents: dict[str, bytes], tmp_path: Path
) -> None:
    again = publish_fake(contents, tmp_path / "again")
    assert again.artifact_id == artifact.artifact_id
    for path in artifact.path.rglob("*"):
        if path.is_file():
            twin = again.path / path.relative_to(artifact.path)
            assert twin.read_bytes() == path.read_bytes()


def test_publish_over_the_same_returns_theirs(
    artifact: Artifact, contents: dict[str, bytes]
) -> None:
    before = artifact.path.stat().st_ino
    assert publish_fake(contents, artifact.path) == artifact
    assert artifact.path.stat().st_ino == before


def test_publish_over_another_is_refused(contents: dict[str, bytes], tmp_path: Path) -> None:
    theirs = publish_fake(contents, tmp_path / "out")
    with pytest.raises(ArtifactExists, match="choose another place"):
        publish_fake({**contents, DATA: bytes(32)}, tmp_path / "out")
    assert open_artifact(theirs.path) == theirs
    assert os.listdir(tmp_path) == ["out"]


def test_publish_over_a_newer_schema_is_refused(
    contents: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = publish_fake(contents, tmp_path / "out")
    data = theirs.manifest.to_bytes().replace(b'"major":1', b'"major":9')
    (theirs.path / "manifest.json").write_bytes(data)
    (theirs.path / "manifest.json.sha256").write_text(digests({"m": data})["m"] + "\n")
    with pytest.raises(ArtifactExists, match="upgrade poolc"):
        publish_fake(contents, tmp_path / "out")


def test_publish_into_an_empty_folder(contents: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert open_artifact(publish_fake(contents, tmp_path / "out").path)


def test_publish_through_a_link_to_an_empty_folder(
    contents: dict[str, bytes], tmp_path: Path
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert publish_fake(contents, tmp_path / "link").path == tmp_path / "real"


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_publish_over_something_else_is_refused(
    contents: dict[str, bytes], tmp_path: Path, kind: str
) -> None:
    kept = tmp_path / "out"
    if kind == "folder":
        kept.mkdir()
        kept /= "precious"
    kept.write_text("precious")
    with pytest.raises(ArtifactExists, match=f"is not an? .*{'folder'}"):
        publish_fake(contents, tmp_path / "out")
    assert kept.read_text() == "precious"
    assert os.listdir(tmp_path) == ["out"]


def test_publish_over_a_damaged_one_outside_the_store_is_refused(
    contents: dict[str, bytes], tmp_path: Path
) -> None:
    flip(publish_fake(contents, tmp_path / "out").path / DATA, 0)
    with pytest.raises(ArtifactExists, match="damaged artifact"):
        publish_fake(contents, tmp_path / "out")
    assert (tmp_path / "out" / DATA).exists()


@pytest.mark.parametrize("lost", ["model.onnx.data", "manifest.json.sha256", "manifest.json"])
def test_publish_over_a_damaged_one_of_the_store_replaces_it(
    artifact: Artifact, contents: dict[str, bytes], lost: str
) -> None:
    (artifact.path / lost).unlink()
    assert publish_fake(contents, artifact.path) == artifact
    assert open_artifact(artifact.path) == artifact
    assert os.listdir(artifact.path.parent) == [artifact.artifact_id]


def test_publish_over_ruins_without_a_manifest_replaces_them(
    artifact: Artifact, contents: dict[str, bytes]
) -> None:
    for name in RESERVED_FILES:
        (artifact.path / name).unlink()
    assert publish_fake(contents, artifact.path) == artifact


def test_publish_repairs_only_what_is_still_damaged(
    artifact: Artifact, contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process repairs it between our look and our lock: theirs stays."""
    shutil.move(artifact.path, artifact.path.with_name("repaired"))
    artifact.path.mkdir()
    (artifact.path / "manifest.json").write_text("ruins")
    original = publish_module.removal_lock

    def repaired_meanwhile(parent: Path) -> Any:
        shutil.rmtree(artifact.path)
        os.rename(artifact.path.with_name("repaired"), artifact.path)
        return original(parent)

    inode = artifact.path.with_name("repaired").stat().st_ino
    monkeypatch.setattr(publish_module, "removal_lock", repaired_meanwhile)
    assert publish_fake(contents, artifact.path) == artifact
    assert artifact.path.stat().st_ino == inode


@pytest.mark.parametrize("name", ["stray.tmp", "templates/stray"])
def test_publish_refuses_what_the_manifest_does_not_list(
    contents: dict[str, bytes], tmp_path: Path, name: str
) -> None:
    manifest = fake_manifest(digests(contents))
    with staging(tmp_path) as staged:
        write_files(staged, {**contents, name: b"x"})
        with pytest.raises(ArtifactCorrupt, match="does not list it"):
            publish(staged, manifest, REPORT, tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_publish_refuses_a_linked_folder(contents: dict[str, bytes], tmp_path: Path) -> None:
    with staging(tmp_path / "s") as staged:
        write_files(staged, contents)
        (staged / "link").symlink_to(tmp_path)
        with pytest.raises(ArtifactCorrupt, match="is a link"):
            publish(staged, fake_manifest(digests(contents)), REPORT, tmp_path / "out")


@pytest.mark.parametrize("change", [{DATA: b"other"}, {"missing.json": b"{}"}])
def test_publish_refuses_files_that_are_not_as_listed(
    contents: dict[str, bytes], tmp_path: Path, change: dict[str, bytes]
) -> None:
    with staging(tmp_path) as staged:
        write_files(staged, contents)
        with pytest.raises(ArtifactCorrupt):
            publish(staged, fake_manifest(digests(contents | change)), REPORT, tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_seal_makes_a_staged_folder_open_before_it_is_published(
    contents: dict[str, bytes], store: Store
) -> None:
    manifest = fake_manifest(digests(contents))
    with staging(store.artifacts) as staged:
        write_files(staged, contents)
        seal(staged, manifest, {})
        assert open_artifact(staged, store=store).report() == {}
        made = publish(staged, manifest, REPORT, store.artifact_path(manifest.artifact_id))
    assert made.report() == REPORT


def test_publish_flushes_everything_before_the_rename_and_the_parent_after(
    contents: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    flushed_at_rename: list[int] = []
    fsync, rename = os.fsync, os.rename

    def note_fsync(descriptor: int) -> None:
        flushed.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def note_rename(source: Path, target: Path) -> None:
        flushed_at_rename.extend(flushed)
        flushed.clear()
        rename(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "rename", note_rename)
    made = publish_fake(contents, tmp_path / "out")
    inodes = {path.stat().st_ino for path in [made.path, *made.path.rglob("*")]}
    assert inodes <= set(flushed_at_rename)
    assert flushed == [tmp_path.stat().st_ino]


def test_publish_across_filesystems_says_so(
    contents: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(ArtifactError, match="another filesystem"):
        publish_fake(contents, tmp_path / "out")


def test_publish_gives_up_on_a_place_that_keeps_changing(
    contents: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish_module, "_rename", lambda *_: False)
    with pytest.raises(ArtifactError, match="keeps changing"):
        publish_fake(contents, tmp_path / "out")


def test_staging_is_hidden_and_gone_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), staging(tmp_path / "new") as staged:
        (staged / "file").write_text("x")
        assert staged.name.startswith(STAGING_PREFIX)
        raise KeyError
    assert os.listdir(tmp_path / "new") == []


def test_staging_leaves_folders_of_the_living(tmp_path: Path) -> None:
    with staging(tmp_path) as first:
        (first / "file").write_text("x")
        with staging(tmp_path) as second:
            assert second != first
        assert (first / "file").read_text() == "x"


def test_staging_removes_folders_of_the_dead(tmp_path: Path) -> None:
    orphan = tmp_path / f"{STAGING_PREFIX}0123"
    (orphan / "sub").mkdir(parents=True)
    (orphan / "sub" / "file").write_text("x")
    orphan.with_name(orphan.name + ".lock").touch()
    (tmp_path / f"{STAGING_PREFIX}4567.lock").touch()
    (tmp_path / "unrelated").mkdir()
    with staging(tmp_path):
        pass
    assert os.listdir(tmp_path) == ["unrelated"]


def test_staging_takes_another_name_when_its_lock_is_cleaned_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = publish_module._try_lock, []

    def beaten_once(descriptor: int) -> bool:
        calls.append(descriptor)
        return original(descriptor) if len(calls) > 1 else False

    monkeypatch.setattr(publish_module, "_try_lock", beaten_once)
    with staging(tmp_path) as staged:
        assert staged.is_dir()
    assert len(calls) >= 2
