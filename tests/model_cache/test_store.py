"""The store: lookup, listing, verifying, removing, pinned commits."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from poolc.errors import ArtifactError, ArtifactNotFound, InvalidOption
from poolc.model_cache import store as store_module
from poolc.model_cache.artifact import Artifact, open_artifact
from poolc.model_cache.store import Store, request_key
from poolc.spec import Precision

from .fakes import DATA, digests, fake_manifest, flip, publish_fake

KEY = "ab" * 32
OTHER_KEY = "cd" * 32


@pytest.fixture
def second(contents: dict[str, bytes], store: Store) -> Artifact:
    """Another artifact of the store."""
    other = {**contents, DATA: bytes(32)}
    manifest = fake_manifest(digests(other), precision=Precision.INT8)
    path = store.artifact_path(manifest.artifact_id)
    return publish_fake(other, path, precision=Precision.INT8)


def test_default_store_follows_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POOLC_CACHE", str(tmp_path / "here"))
    assert Store.default().root == tmp_path / "here"
    monkeypatch.delenv("POOLC_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Store.default().root == tmp_path / ".cache" / "poolc"
    assert not Store.default().root.exists()


def test_request_key_depends_on_every_part(monkeypatch: pytest.MonkeyPatch) -> None:
    source, options = {"id": "a/b", "commit": "1"}, {"target": "cpu", "precision": Precision.FP32}
    keys = {
        request_key(source, options, "x86_64"),
        request_key(source | {"commit": "2"}, options, "x86_64"),
        request_key(source, options | {"target": "cuda"}, "x86_64"),
        request_key(source, options, "arm64"),
    }
    monkeypatch.setattr(store_module, "RECIPE", 99)
    keys.add(request_key(source, options, "x86_64"))
    assert len(keys) == 5
    assert all(re.fullmatch("[0-9a-f]{64}", key) for key in keys)


def test_request_key_is_independent_of_order_and_enums() -> None:
    one = request_key({"a": "1", "b": "2"}, {"precision": Precision.FP32}, "x")
    assert one == request_key({"b": "2", "a": "1"}, {"precision": "fp32"}, "x")


def test_lookup_finds_what_was_remembered(store: Store, artifact: Artifact) -> None:
    assert store.lookup(KEY) is None
    store.remember(KEY, artifact.artifact_id, {"source": "someone/tiny"})
    assert store.lookup(KEY) == artifact.path
    assert store.lookup(OTHER_KEY) is None


def test_lookup_of_a_missing_artifact_is_a_miss(store: Store) -> None:
    store.remember(KEY, "12" * 32, {})
    assert store.lookup(KEY) is None


@pytest.mark.parametrize(
    "ref", [b"", b"[]", b'{"artifact_id": 3}', b'{"artifact_id": "../../etc"}', b"\xff"]
)
def test_lookup_of_a_damaged_ref_is_a_miss(store: Store, artifact: Artifact, ref: bytes) -> None:
    store.remember(KEY, artifact.artifact_id, {})
    (store.root / "refs" / f"{KEY}.json").write_bytes(ref)
    assert store.lookup(KEY) is None


@pytest.mark.parametrize("key", ["", "../x", "AB" * 32])
def test_keys_and_ids_that_are_none_are_refused(store: Store, key: str) -> None:
    with pytest.raises(InvalidOption):
        store.lookup(key)
    with pytest.raises(InvalidOption):
        store.remember(KEY, key, {})


def test_remember_leaves_no_drafts_and_drops_old_ones(store: Store, artifact: Artifact) -> None:
    (store.root / "tmp").mkdir(parents=True)
    (store.root / "tmp" / "young").touch()
    (store.root / "tmp" / "old").touch()
    os.utime(store.root / "tmp" / "old", (0, 0))
    store.remember(KEY, artifact.artifact_id, {})
    assert os.listdir(store.root / "tmp") == ["young"]


def test_read_only_store_refuses_to_remember(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ArtifactError, match="POOLC_CACHE"):
        Store(tmp_path / "file").remember(KEY, "12" * 32, {})


def test_absent_store_is_empty(store: Store) -> None:
    assert store.entries() == []
    assert store.verify() == []
    assert store.lookup(KEY) is None
    assert store.recorded_commit("a/b", None) is None
    assert not store.root.exists()


def test_commit_is_recorded_by_id_and_revision(store: Store) -> None:
    store.record_commit("a/b", None, "c1")
    store.record_commit("a/b", "v2", "c2")
    assert store.recorded_commit("a/b", None) == "c1"
    assert store.recorded_commit("a/b", "v2") == "c2"
    assert store.recorded_commit("a/c", None) is None
    store.record_commit("a/b", None, "c3")
    assert store.recorded_commit("a/b", None) == "c3"


def test_entries_say_what_is_there(store: Store, artifact: Artifact, second: Artifact) -> None:
    os.utime(artifact.path / "manifest.json", (1000, 1000))
    for key in (KEY, OTHER_KEY):
        store.remember(key, artifact.artifact_id, {})
    (store.artifacts / "stray").mkdir()
    first, other = store.entries()
    assert (first.artifact_id, first.source, first.target) == (
        artifact.artifact_id,
        "someone/tiny",
        "cpu",
    )
    assert (first.precision, other.precision) == ("fp32", "int8")
    assert first.created == 1000
    assert first.refs == (KEY, OTHER_KEY)
    assert other.refs == ()
    assert first.size_bytes == sum(
        p.stat().st_size for p in artifact.path.rglob("*") if p.is_file()
    )


@pytest.mark.parametrize("how", ["flip", "unlink"])
def test_entries_list_damaged_artifacts(store: Store, artifact: Artifact, how: str) -> None:
    path = artifact.path / "manifest.json"
    if how == "flip":
        flip(path, 9)
    else:
        path.unlink()
    (entry,) = store.entries()
    assert entry.artifact_id == artifact.artifact_id
    assert entry.source is None
    assert entry.problem is not None
    assert "manifest.json" in entry.problem


@pytest.mark.usefixtures("settled")
def test_verify_finds_damage_that_stamps_hide(
    store: Store, artifact: Artifact, second: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_artifact(artifact.path, store=store)
    monkeypatch.setattr("poolc.model_cache.artifact._stamp", _blind(store, artifact))
    flip(artifact.path / DATA, 1)
    assert open_artifact(artifact.path, store=store)  # the stamp still stands
    problems = {verdict.artifact_id: verdict.problem for verdict in store.verify()}
    assert problems[second.artifact_id] is None
    assert DATA in str(problems[artifact.artifact_id])


def _blind(store: Store, artifact: Artifact) -> object:
    kept = store.stamps.load("artifact", str(artifact.path), artifact.artifact_id)
    return lambda path, name: kept.files[name].stamp if name in kept.files else None


def test_verify_takes_ids_and_unique_beginnings(
    store: Store, artifact: Artifact, second: Artifact
) -> None:
    (verdict,) = store.verify(second.artifact_id[:10])
    assert (verdict.artifact_id, verdict.problem) == (second.artifact_id, None)


def test_find_unknown_and_ambiguous(store: Store) -> None:
    for name in ("12" * 32, "12" * 31 + "34"):
        (store.artifacts / name).mkdir(parents=True)
    assert store.find("12" * 32) == "12" * 32
    with pytest.raises(InvalidOption, match="fits 2 artifacts"):
        store.find("12")
    for unknown in ("9", ""):
        with pytest.raises(ArtifactNotFound, match="poolc cache list"):
            store.find(unknown)


def test_open_by_prefix(store: Store, artifact: Artifact) -> None:
    assert store.open(artifact.artifact_id[:8]) == artifact


@pytest.mark.usefixtures("settled")
def test_remove_takes_refs_and_stamps_along(
    store: Store, artifact: Artifact, second: Artifact
) -> None:
    store.remember(KEY, artifact.artifact_id, {})
    store.remember(OTHER_KEY, second.artifact_id, {})
    for each in (artifact, second):
        open_artifact(each.path, store=store)
    (removed,) = store.remove(artifact.artifact_id[:12])
    assert removed.artifact_id == artifact.artifact_id
    assert os.listdir(store.artifacts) == [second.artifact_id]
    assert store.lookup(KEY) is None
    assert store.lookup(OTHER_KEY) == second.path
    assert len(os.listdir(store.root / "stamps")) == 1


def test_remove_everything(store: Store, artifact: Artifact, second: Artifact) -> None:
    assert len(store.remove(everything=True)) == 2
    assert store.entries() == []


def test_remove_takes_damaged_ones(store: Store, artifact: Artifact) -> None:
    (artifact.path / "manifest.json").unlink()
    store.remove(artifact.artifact_id)
    assert os.listdir(store.artifacts) == []


def test_remove_is_all_or_nothing(store: Store, artifact: Artifact) -> None:
    with pytest.raises(ArtifactNotFound):
        store.remove(artifact.artifact_id, "ff")
    assert artifact.path.exists()


@pytest.mark.parametrize(("prefixes", "everything"), [((), False), (("1",), True)])
def test_remove_needs_names_or_all(
    store: Store, prefixes: tuple[str, ...], everything: bool
) -> None:
    with pytest.raises(InvalidOption):
        store.remove(*prefixes, everything=everything)
