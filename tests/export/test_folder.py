"""Where an export may go, and that it appears whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from poolc.errors import ArtifactExists
from poolc.export.folder import MARKER, exporting
from poolc.model_cache.artifact import Artifact, open_artifact


@pytest.fixture(scope="module")
def ours(tiny_embedder: Path) -> Artifact:
    return open_artifact(tiny_embedder)


def export(ours: Artifact, place: Path, content: str = "x", *, force: bool = False) -> None:
    with exporting(place, "home", ours, force=force) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "file").write_text(content)


def left(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_new_and_empty_folders_are_taken(ours: Artifact, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        export(ours, tmp_path / name)
        assert left(tmp_path / name) == [MARKER, "sub"]
    assert left(tmp_path) == ["empty", "new"]


def test_an_earlier_export_is_replaced_with_force(ours: Artifact, tmp_path: Path) -> None:
    place = tmp_path / "out"
    export(ours, place)
    with pytest.raises(ArtifactExists, match="--force"):
        export(ours, place, "y")
    assert (place / "sub" / "file").read_text() == "x"
    export(ours, place, "y", force=True)
    assert (place / "sub" / "file").read_text() == "y"
    assert left(tmp_path) == ["out"]


def test_files_of_others_are_never_replaced(ours: Artifact, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").write_text("years of work")
    with pytest.raises(ArtifactExists, match="no earlier export"):
        export(ours, tmp_path / "own", force=True)
    export(ours, tmp_path / "out")
    (tmp_path / "out" / "sub" / "notes").write_text("mine")
    with pytest.raises(ArtifactExists, match="sub/notes, which no export wrote"):
        export(ours, tmp_path / "out", force=True)
    with pytest.raises(ArtifactExists, match="is not a folder"):
        export(ours, tmp_path / "own" / "thesis.txt", force=True)


def test_an_export_of_another_home_is_not_replaced(ours: Artifact, tmp_path: Path) -> None:
    export(ours, tmp_path / "out")
    with (
        pytest.raises(ArtifactExists, match="no earlier export to elsewhere"),
        exporting(tmp_path / "out", "elsewhere", ours, force=True),
    ):
        pytest.fail("the block ran")


def test_a_failed_export_leaves_what_was_there(ours: Artifact, tmp_path: Path) -> None:
    export(ours, tmp_path / "out")
    with (
        pytest.raises(KeyError),
        exporting(tmp_path / "out", "home", ours, force=True) as folder,
    ):
        (folder / "half").write_text("")
        raise KeyError
    assert left(tmp_path) == ["out"]
    assert (tmp_path / "out" / "sub" / "file").read_text() == "x"
