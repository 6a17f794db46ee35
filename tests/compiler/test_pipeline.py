"""The whole compile in this process: what is published, what it is called, and what is left."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import pytest

from poolc.api import make_options
from poolc.compiler.events import Event, Progress
from poolc.compiler.pipeline import Request, compile_model
from poolc.errors import ArtifactExists, InvalidOption, ModelNotFound, UnsupportedModel
from poolc.model_cache.artifact import open_artifact
from poolc.model_cache.store import Store
from poolc.runtime.engine import Engine
from tests.compiler.conftest import CompileHere
from tests.compiler.folders import edit_json

STAGES = ["fetch", "recognise", "load", "export", "tune", "lower", "verify", "publish"]
REPORT = ("report.json", "report.json.sha256")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in REPORT
    }


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this process puts temporary folders."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_compile_again_gives_the_same_bytes(
    tiny_embedder: Path, tiny_embedder_source: Path, store: Store
) -> None:
    """Against what another process compiled and nothing was shared with."""
    request = Request(str(tiny_embedder_source), make_options())
    artifact = compile_model(request, store, Progress(lambda event: None))
    assert artifact.artifact_id == tiny_embedder.name
    assert contents(artifact.path) == contents(tiny_embedder)
    assert {"manifest.json", "model.onnx", "model.onnx.data", "tokenizer.json"} <= set(
        contents(artifact.path)
    )


def test_compile_publishes_and_tells(
    plain_bert: Path, compile_here: CompileHere, store: Store, temporary: Path
) -> None:
    events: list[Event] = []
    artifact = compile_here(plain_bert, events=events)
    stages = [(e["name"], e["status"]) for e in events if e["event"] == "stage"]
    assert stages == [(name, status) for name in STAGES for status in ("start", "done")]
    assert artifact.path == store.artifact_path(artifact.artifact_id)
    assert [entry.artifact_id for entry in store.entries()] == [artifact.artifact_id]
    # Nothing but the artifact is left: no staging folder, no lock, no mirror.
    assert [path.name for path in store.artifacts.iterdir()] == [artifact.artifact_id]
    assert list(temporary.iterdir()) == []

    manifest, report = artifact.manifest, artifact.report()
    assert manifest.source.id == "plain_bert"
    assert manifest.files == {
        name: hashlib.sha256(data).hexdigest()
        for name, data in contents(artifact.path).items()
        if not name.startswith("manifest.json")
    }
    assert str(plain_bert.parent) not in (artifact.path / "manifest.json").read_text()
    (warning,) = report["warnings"]
    assert warning.startswith("BertModel configures no pooling: mean")
    assert {"event": "warning", "message": warning} in events
    assert list(report["seconds"]) == sorted(STAGES[:-1])
    assert {"torch", "transformers", "onnxruntime", "python"} <= report["tools"].keys()
    parity = report["parity"]
    assert parity["texts"] >= 32
    assert parity["longest_tokens"] == 64
    assert parity["token_ids_equal"] is True
    assert parity["max_relative_error"] <= parity["bound"] == 1e-5
    assert parity["outputs"] == ["pooled", "sentence_embedding", "token_embeddings"]


def test_compile_options_are_part_of_the_id(plain_bert: Path, compile_here: CompileHere) -> None:
    plain = compile_here(plain_bert)
    kept = compile_here(plain_bert, keep_canonical=True)
    shorter = compile_here(plain_bert, max_length=32)
    ids = {plain.artifact_id, kept.artifact_id, shorter.artifact_id}
    assert len(ids) == 3
    assert kept.space_id == plain.space_id != shorter.space_id
    assert {"canonical.onnx", "canonical.onnx.data"} == kept.manifest.files.keys() - (
        plain.manifest.files.keys()
    )
    assert Engine(shorter).max_length == 32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "tensorrt", "profiles": "batch=2"}, "profiles is 'batch=2'"),
        ({"target": "tensorrt-rtx", "optimization_level": 9}, "optimization_level is 9; allowed"),
        ({"precision": "fp16"}, "precision is fp16; target cpu has: fp32"),
    ],
)
def test_compile_refuses_before_it_fetches(
    options: dict[str, Any], message: str, compile_here: CompileHere, store: Store
) -> None:
    events: list[Event] = []
    with pytest.raises(InvalidOption, match=message):
        compile_here("no/such/model", events=events, **options)
    assert events == []
    assert not store.root.exists()


def test_compile_failure_leaves_nothing(
    plain_bert: Path, tmp_path: Path, compile_here: CompileHere, store: Store, temporary: Path
) -> None:
    with pytest.raises(ModelNotFound):
        compile_here(tmp_path / "absent" / "model")
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in plain_bert.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    edit_json(broken / "config.json", model_type="nonsense")
    # Overridden, so that there is a mirror to clean up.
    with pytest.raises(UnsupportedModel):
        compile_here(broken, hf_overrides={"num_labels": 3})
    assert store.entries() == []
    assert list(store.artifacts.iterdir()) == []
    assert list(temporary.iterdir()) == []


def test_compile_to_a_folder(
    plain_bert: Path, tmp_path: Path, compile_here: CompileHere, store: Store
) -> None:
    output = tmp_path / "new" / "artifact"
    artifact = compile_here(plain_bert, output=output)
    assert artifact.path == output
    assert open_artifact(output).artifact_id == artifact.artifact_id
    assert store.entries() == []
    # The same again is fine, and so is an empty folder.
    assert compile_here(plain_bert, output=output).artifact_id == artifact.artifact_id
    (tmp_path / "empty").mkdir()
    assert compile_here(plain_bert, output=tmp_path / "empty").path == tmp_path / "empty"
    with pytest.raises(ArtifactExists, match=r"artifact holds artifact .*: remove it or choose"):
        compile_here(plain_bert, output=output, max_length=32)
    assert sorted(path.name for path in output.parent.iterdir()) == ["artifact"]


def test_compile_over_something_else(
    plain_bert: Path, tmp_path: Path, compile_here: CompileHere
) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "page.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("notes", "file"):
        events: list[Event] = []
        with pytest.raises(ArtifactExists, match=f"{name} is there already and is not an artifact"):
            compile_here(plain_bert, output=tmp_path / name, events=events)
        assert events == []
    assert (tmp_path / "notes" / "page.txt").read_text() == "mine"
    assert (tmp_path / "file").read_text() == "mine"
