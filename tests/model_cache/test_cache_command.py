"""``poolc cache``: what is printed, and what it does to the store."""

from __future__ import annotations

import json
import os

import pytest
from typer.testing import CliRunner

from poolc.cli.cache import app
from poolc.errors import ArtifactCorrupt, ArtifactNotFound, InvalidOption
from poolc.model_cache.artifact import Artifact
from poolc.model_cache.store import Store

from .fakes import DATA, flip

KEY = "ab" * 32


@pytest.fixture(autouse=True)
def cache(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOLC_CACHE", str(store.root))
    monkeypatch.setenv("COLUMNS", "120")


def run(*arguments: str) -> str:
    return CliRunner().invoke(app, arguments, catch_exceptions=False).output


def test_list_of_an_empty_store(store: Store) -> None:
    assert str(store.root) in run("list").replace("\n", "")
    assert json.loads(run("list", "--json")) == []


def test_list_shows_a_table(artifact: Artifact) -> None:
    output = run("list")
    assert artifact.artifact_id[:12] in output
    assert "someone/tiny" in output
    assert "fp32" in output


def test_list_as_json(store: Store, artifact: Artifact) -> None:
    store.remember(KEY, artifact.artifact_id, {})
    (row,) = json.loads(run("list", "--json"))
    assert row["artifact_id"] == artifact.artifact_id
    assert row["refs"] == [KEY]


def test_list_shows_damage(artifact: Artifact) -> None:
    flip(artifact.path / "manifest.json", 4)
    assert "damaged" in run("list")


def test_verify_says_ok(artifact: Artifact) -> None:
    assert run("verify") == f"{artifact.artifact_id[:12]}  ok\n"
    (row,) = json.loads(run("verify", artifact.artifact_id[:6], "--json"))
    assert row == {"artifact_id": artifact.artifact_id, "problem": None}


def test_verify_fails_on_damage(artifact: Artifact) -> None:
    flip(artifact.path / DATA, 4)
    result = CliRunner().invoke(app, ["verify"])
    assert DATA in result.output
    assert isinstance(result.exception, ArtifactCorrupt)


def test_verify_unknown() -> None:
    with pytest.raises(ArtifactNotFound):
        run("verify", "ff")


def test_remove_one(store: Store, artifact: Artifact) -> None:
    assert "1 removed" in run("remove", artifact.artifact_id[:6])
    assert os.listdir(store.artifacts) == []


def test_remove_all(store: Store, artifact: Artifact) -> None:
    assert "1 removed" in run("remove", "--all")
    assert os.listdir(store.artifacts) == []


def test_remove_needs_names_or_all(artifact: Artifact) -> None:
    for arguments in (["remove"], ["remove", "--all", artifact.artifact_id]):
        with pytest.raises(InvalidOption):
            run(*arguments)
    assert artifact.path.exists()
