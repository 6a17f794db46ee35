"""Opening an artifact: what is verified, what a stamp stands in for, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from poolc.errors import ArtifactCorrupt, ArtifactNotFound
from poolc.model_cache import artifact as artifact_module
from poolc.model_cache import stamps
from poolc.model_cache.artifact import RESERVED_FILES, Artifact, is_artifact, open_artifact
from poolc.model_cache.manifest import GraphInfo
from poolc.model_cache.stamps import Hashed
from poolc.model_cache.store import Store
from poolc.spec import Target

from .conftest import graph_bytes
from .fakes import DATA, GRAPH, REPORT, digests, fake_manifest, flip, next_tick, publish_fake

FILES = [GRAPH, DATA, "tokenizer.json", "tokenizer_config.json", "templates/score.jinja"]
ALL_FILES = [*FILES, *sorted(RESERVED_FILES)]


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files as they are hashed."""
    names: list[str] = []
    original = stamps.hash_file

    def spy(path: Path, **options: object) -> Hashed:
        names.append(path.name)
        return original(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(artifact_module, "hash_file", spy)
    return names


def seal_by_hand(folder: Path, **changes: object) -> None:
    """Give a folder a manifest that fits its own sidecar, whatever it says."""
    plain = json.loads((folder / "manifest.json").read_bytes()) | changes
    data = json.dumps(plain).encode()
    (folder / "manifest.json").write_bytes(data)
    digest = digests({"manifest.json": data})["manifest.json"]
    (folder / "manifest.json.sha256").write_text(digest + "\n")


def test_open_gives_manifest_ids_report_and_files(
    artifact: Artifact, contents: dict[str, bytes]
) -> None:
    opened = open_artifact(artifact.path)
    assert opened == artifact
    assert opened.artifact_id == opened.manifest.artifact_id == opened.path.name
    assert opened.space_id == opened.manifest.space_id
    assert opened.report() == REPORT
    assert opened.file("templates/score.jinja").read_bytes() == contents["templates/score.jinja"]


def test_sidecar_holds_the_artifact_id(artifact: Artifact) -> None:
    assert (artifact.path / "manifest.json.sha256").read_text().strip() == artifact.artifact_id


def test_file_outside_the_manifest_is_refused(artifact: Artifact) -> None:
    (artifact.path / "extra.json").write_text("{}")
    with pytest.raises(ArtifactCorrupt, match=r"extra\.json"):
        open_artifact(artifact.path).file("extra.json")


@pytest.mark.parametrize("kind", ["missing", "file", "empty", "model"])
def test_open_where_there_is_none(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "thing"
    if kind == "file":
        path.write_text("x")
    elif kind != "missing":
        path.mkdir()
    if kind == "model":  # other tools' manifests beside a config are none of ours
        (path / "config.json").write_text("{}")
        (path / "manifest.json").write_text("{}")
    assert not is_artifact(path)
    with pytest.raises(ArtifactNotFound, match="not an artifact"):
        open_artifact(path)


@pytest.mark.parametrize("name", ALL_FILES)
def test_flipped_byte_is_refused(artifact: Artifact, name: str) -> None:
    path = artifact.path / name
    for offset in {0, path.stat().st_size // 2, path.stat().st_size - 1}:
        flip(path, offset)
        with pytest.raises(ArtifactCorrupt):
            open_artifact(artifact.path)
        flip(path, offset)
    assert open_artifact(artifact.path) == artifact


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("restore_mtime", [False, True])
@pytest.mark.parametrize("name", ALL_FILES)
def test_flipped_byte_after_stamping_is_refused(
    artifact: Artifact, store: Store, name: str, restore_mtime: bool, hashed: list[str]
) -> None:
    path = artifact.path / name
    for offset in {0, path.stat().st_size // 2, path.stat().st_size - 1}:
        open_artifact(artifact.path, store=store)
        hashed.clear()
        open_artifact(artifact.path, store=store)
        assert hashed == []  # the stamps are complete
        before = path.stat()
        next_tick(store.root)
        flip(path, offset)
        if restore_mtime:
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        with pytest.raises(ArtifactCorrupt):
            open_artifact(artifact.path, store=store)
        flip(path, offset)


@pytest.mark.parametrize("name", ALL_FILES)
def test_truncated_file_is_refused(artifact: Artifact, name: str) -> None:
    os.truncate(artifact.path / name, (artifact.path / name).stat().st_size - 1)
    with pytest.raises(ArtifactCorrupt):
        open_artifact(artifact.path)


@pytest.mark.parametrize("name", ALL_FILES)
def test_missing_file_is_refused(artifact: Artifact, name: str) -> None:
    (artifact.path / name).unlink()
    assert is_artifact(artifact.path)
    with pytest.raises(ArtifactCorrupt, match="is missing"):
        open_artifact(artifact.path)


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("name", ALL_FILES)
def test_missing_file_after_stamping_is_refused(
    artifact: Artifact, store: Store, name: str
) -> None:
    open_artifact(artifact.path, store=store)
    (artifact.path / name).unlink()
    with pytest.raises(ArtifactCorrupt, match="is missing"):
        open_artifact(artifact.path, store=store)


@pytest.mark.parametrize("name", ALL_FILES)
def test_linked_file_is_refused(artifact: Artifact, tmp_path: Path, name: str) -> None:
    path = artifact.path / name
    shutil.move(path, tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactCorrupt, match="is a link"):
        open_artifact(artifact.path)


def test_linked_folder_inside_is_refused(artifact: Artifact, tmp_path: Path) -> None:
    shutil.move(artifact.path / "templates", tmp_path / "elsewhere")
    (artifact.path / "templates").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactCorrupt, match="templates is a link"):
        open_artifact(artifact.path)


def test_link_to_the_whole_artifact_is_fine(artifact: Artifact, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(artifact.path)
    assert open_artifact(tmp_path / "link").artifact_id == artifact.artifact_id


@pytest.mark.parametrize("make", [lambda path: os.mkfifo(path), lambda path: path.mkdir()])
def test_other_kind_of_file_is_refused(artifact: Artifact, make: Callable[[Path], None]) -> None:
    (artifact.path / DATA).unlink()
    make(artifact.path / DATA)
    with pytest.raises(ArtifactCorrupt, match="not a regular file"):
        open_artifact(artifact.path)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("../outside", "'..'"),
        ("a/../../outside", "'..'"),
        ("/etc/hostname", "is absolute"),
        ("a\\b", "plain relative"),
        ("C:evil", "plain relative"),
        ("./here", "'.'"),
        ("a//b", "empty"),
        ("a/", "empty"),
        ("", "plain relative"),
        ("a\0b", "plain relative"),
        ("\ud800", "plain relative"),
        ("manifest.json", "reserved"),
        ("report.json.sha256", "reserved"),
    ],
)
def test_manifest_with_a_bad_name_is_refused(artifact: Artifact, name: str, problem: str) -> None:
    seal_by_hand(artifact.path, files={**artifact.manifest.files, name: "0" * 64})
    with pytest.raises(ArtifactCorrupt, match=problem):
        open_artifact(artifact.path)


def test_manifest_graph_that_is_not_listed_is_refused(artifact: Artifact) -> None:
    listed = {name: sha for name, sha in artifact.manifest.files.items() if name != GRAPH}
    seal_by_hand(artifact.path, files=listed)
    with pytest.raises(ArtifactCorrupt, match=r"manifest\.graphs\.main\.file"):
        open_artifact(artifact.path)


def test_manifest_without_main_graph_is_refused(artifact: Artifact) -> None:
    seal_by_hand(artifact.path, graphs={})
    with pytest.raises(ArtifactCorrupt, match="'main'"):
        open_artifact(artifact.path)


@pytest.mark.parametrize(
    "location", ["../secret", "/etc/hostname", "unlisted.data", "a\\b", "templates/../x", ""]
)
def test_external_data_elsewhere_is_refused(
    tmp_path: Path, contents: dict[str, bytes], location: str
) -> None:
    (tmp_path / "secret").write_bytes(bytes(32))
    with pytest.raises(ArtifactCorrupt, match="external data at"):
        publish_fake({**contents, GRAPH: graph_bytes(location)}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_external_data_is_checked_in_every_graph(
    tmp_path: Path, contents: dict[str, bytes]
) -> None:
    with pytest.raises(ArtifactCorrupt, match=r"canonical\.onnx: external data at"):
        publish_fake({**contents, "canonical.onnx": graph_bytes("../x")}, tmp_path / "out")


def test_external_data_is_checked_under_any_file_name(
    tmp_path: Path, contents: dict[str, bytes]
) -> None:
    graphs = {"main": GraphInfo("model.bin", (), ())}
    with pytest.raises(ArtifactCorrupt, match=r"model\.bin: external data at"):
        publish_fake({**contents, "model.bin": graph_bytes("../x")}, tmp_path / "o", graphs=graphs)


def test_external_data_is_relative_to_the_graph(tmp_path: Path, contents: dict[str, bytes]) -> None:
    nested = {**contents, "sub/model.onnx": graph_bytes("w.data"), "sub/w.data": bytes(32)}
    assert open_artifact(publish_fake(nested, tmp_path / "out").path).file("sub/w.data").is_file()


def test_engine_plans_are_not_read_as_onnx(tmp_path: Path, contents: dict[str, bytes]) -> None:
    plan = {**contents, "engine.plan": b"\xff" * 64}
    graphs = {"main": GraphInfo("engine.plan", (), ())}
    made = publish_fake(plan, tmp_path / "out", graphs=graphs, target=Target.TENSORRT)
    assert open_artifact(made.path).manifest.target is Target.TENSORRT


@pytest.mark.usefixtures("settled")
def test_stamped_artifact_is_not_hashed(
    artifact: Artifact, store: Store, hashed: list[str]
) -> None:
    open_artifact(artifact.path, store=store)
    assert sorted(hashed) == sorted(Path(name).name for name in [*FILES, "report.json"])
    hashed.clear()
    assert open_artifact(artifact.path, store=store) == artifact
    assert hashed == []


@pytest.mark.usefixtures("settled")
def test_only_a_touched_file_is_hashed_again(
    artifact: Artifact, store: Store, hashed: list[str]
) -> None:
    open_artifact(artifact.path, store=store)
    hashed.clear()
    next_tick(store.root)
    os.utime(artifact.path / DATA)
    open_artifact(artifact.path, store=store)
    assert hashed == [DATA]
    open_artifact(artifact.path, store=store)
    assert hashed == [DATA]


@pytest.mark.usefixtures("settled")
def test_always_hash_hashes_what_is_stamped(
    artifact: Artifact, store: Store, hashed: list[str]
) -> None:
    open_artifact(artifact.path, store=store)
    hashed.clear()
    open_artifact(artifact.path, store=store, always_hash=True)
    assert len(hashed) == len(FILES) + 1


@pytest.mark.usefixtures("settled")
def test_stamps_belong_to_one_manifest(
    artifact: Artifact, tmp_path: Path, store: Store, hashed: list[str]
) -> None:
    copy = shutil.copytree(artifact.path, tmp_path / "copy")
    open_artifact(copy, store=store)
    seal_by_hand(copy, tuning={"other": 1})
    hashed.clear()
    open_artifact(copy, store=store)
    assert len(hashed) == len(FILES) + 1


@pytest.mark.usefixtures("settled")
def test_artifact_replaced_by_another_is_hashed(
    artifact: Artifact, contents: dict[str, bytes], tmp_path: Path, store: Store, hashed: list[str]
) -> None:
    copy = shutil.copytree(artifact.path, tmp_path / "copy")
    open_artifact(copy, store=store)
    shutil.rmtree(copy)
    other = publish_fake({**contents, DATA: bytes(32)}, copy)
    hashed.clear()
    assert open_artifact(copy, store=store).artifact_id == other.artifact_id
    assert len(hashed) == len(FILES) + 1


@pytest.mark.parametrize(
    ("age_ns", "stamped"), [(0, False), (49_000_000, False), (51_000_000, True)]
)
def test_recently_changed_file_is_not_stamped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age_ns: int, stamped: bool
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    monkeypatch.setattr(stamps, "_COARSE_UNIT_NS", 1 << 62)  # as if ctime were a fine time
    monkeypatch.setattr(stamps, "time_ns", lambda: path.stat().st_ctime_ns + age_ns)
    assert stamps.hash_file(path).settled is stamped


def test_file_of_a_coarse_clock_waits_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    monkeypatch.setattr(stamps, "_COARSE_UNIT_NS", 1)  # every time is a multiple of it
    monkeypatch.setattr(stamps, "time_ns", lambda: path.stat().st_ctime_ns + 2_000_000_000)
    assert not stamps.hash_file(path).settled
    monkeypatch.setattr(stamps, "time_ns", lambda: path.stat().st_ctime_ns + 3_000_000_000)
    assert stamps.hash_file(path).settled


def test_file_that_changes_while_hashed_is_not_stamped(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    found = stamps.hash_file(path, examine=lambda file, size: path.write_bytes(b"longer"))  # type: ignore[arg-type]
    assert not found.settled


@pytest.mark.usefixtures("settled")
def test_damaged_stamps_are_no_stamps(artifact: Artifact, store: Store, hashed: list[str]) -> None:
    open_artifact(artifact.path, store=store)
    (stamp,) = (store.root / "stamps").iterdir()
    whole = json.loads(stamp.read_bytes())
    for broken in (
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'"x"',
        _with_files(whole, 3),
        _with_files(whole, []),
    ):
        stamp.write_bytes(broken)
        hashed.clear()
        assert open_artifact(artifact.path, store=store) == artifact
        assert len(hashed) == len(FILES) + 1


def _with_files(whole: dict[str, object], entry: object) -> bytes:
    return json.dumps(whole | {"files": {GRAPH: entry}}).encode()


@pytest.mark.usefixtures("settled")
def test_store_that_cannot_be_written_does_not_matter(artifact: Artifact, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert open_artifact(artifact.path, store=Store(tmp_path / "file" / "store")) == artifact


@pytest.mark.usefixtures("settled")
def test_read_only_store_does_not_matter(
    artifact: Artifact, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr(stamps, "replace_file", refuse)
    assert open_artifact(artifact.path, store=store) == artifact
    assert open_artifact(artifact.path, store=store) == artifact


def test_artifact_of_the_store_is_the_one_it_is_named_after(
    artifact: Artifact, contents: dict[str, bytes], store: Store
) -> None:
    other = fake_manifest(digests({**contents, DATA: bytes(32)})).artifact_id
    os.rename(artifact.path, store.artifact_path(other))
    with pytest.raises(ArtifactCorrupt, match="named after"):
        open_artifact(store.artifact_path(other), store=store)


def test_report_that_is_altered_after_opening_is_refused(artifact: Artifact) -> None:
    opened = open_artifact(artifact.path)
    flip(artifact.path / "report.json", 5)
    with pytest.raises(ArtifactCorrupt, match=r"report\.json"):
        opened.report()
