"""The ONNX Runtime backend: which installation is imported, and how its failures are told."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from poolc.errors import ArtifactIncompatible, BackendError, MissingDependency
from poolc.model_cache.artifact import Artifact
from poolc.runtime.backends import onnxruntime as onnxruntime_backend
from poolc.runtime.backends.onnxruntime import OnnxRuntimeBackend, import_onnxruntime
from poolc.runtime.cores import computing
from poolc.runtime.engine import Engine
from poolc.runtime.request import TokenSequence
from poolc.spec import MAIN_SET, TOKENS_SET

# Which installation.


def install(folder: Path, *distributions: str) -> Path:
    """Make a package directory and the records of distributions over it; return the folder."""
    (folder / "onnxruntime").mkdir(parents=True)
    (folder / "onnxruntime" / "__init__.py").write_text("")
    for name in distributions:
        record = folder / f"{name.replace('-', '_')}-1.30.0.dist-info"
        record.mkdir()
        (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.30.0\n")
    return folder


def put_first(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let ``folder`` be where onnxruntime is imported from."""
    module = ModuleType("onnxruntime")
    module.__file__ = str(folder / "onnxruntime" / "__init__.py")
    monkeypatch.setitem(sys.modules, "onnxruntime", module)
    monkeypatch.syspath_prepend(folder)


def test_one_installation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put_first(monkeypatch, install(tmp_path, "onnxruntime-gpu"))
    assert import_onnxruntime() is sys.modules["onnxruntime"]


def test_two_installations_in_one_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put_first(monkeypatch, install(tmp_path, "onnxruntime", "onnxruntime-gpu"))
    message = "onnxruntime and onnxruntime-gpu are both installed over .*pip uninstall"
    with pytest.raises(MissingDependency, match=message):
        import_onnxruntime()


def test_another_copy_further_down_the_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    put_first(monkeypatch, install(tmp_path / "first", "onnxruntime"))
    monkeypatch.setattr(
        sys, "path", [*sys.path, str(install(tmp_path / "second", "onnxruntime-gpu"))]
    )
    assert import_onnxruntime() is sys.modules["onnxruntime"]


def test_record_without_a_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put_first(monkeypatch, install(tmp_path / "first", "onnxruntime"))
    other = install(tmp_path / "second", "onnxruntime-gpu")
    shutil.rmtree(other / "onnxruntime")
    monkeypatch.setattr(sys, "path", [*sys.path, str(other)])
    import_onnxruntime()


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependency, match=r'pip install "poolc\[cpu\]"'):
        import_onnxruntime()


# Graphs that do not load.


@pytest.fixture
def copied(tiny_embedder: Path, embedder: Engine, tmp_path: Path) -> Artifact:
    """An artifact whose files a test may change behind the back of verification."""
    folder = tmp_path / "artifact"
    shutil.copytree(tiny_embedder, folder)
    return replace(embedder.artifact, path=folder)


def unsupported_graph() -> bytes:
    """A graph of one node that no runtime knows."""
    vector = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Summon", ["x"], ["pooled"], domain="somewhere.else")],
        "tiny",
        [vector("x", TensorProto.FLOAT, [8])],
        [vector("pooled", TensorProto.FLOAT, [8])],
    )
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("somewhere.else", 1)]
    return bytes(helper.make_model(graph, opset_imports=opsets).SerializeToString())


@pytest.mark.parametrize("content", [b"", b"not a graph", unsupported_graph()])
def test_graph_that_does_not_load(copied: Artifact, content: bytes) -> None:
    (copied.path / "model.onnx").write_bytes(content)
    with pytest.raises(ArtifactIncompatible, match=r"cannot load model\.onnx: "):
        OnnxRuntimeBackend(copied)


def test_graph_without_its_weights(copied: Artifact) -> None:
    (copied.path / "model.onnx.data").unlink()
    with pytest.raises(ArtifactIncompatible, match=r"cannot load model\.onnx"):
        OnnxRuntimeBackend(copied)


def test_other_sets_load_when_first_asked_for(copied: Artifact) -> None:
    (copied.path / "model.tokens.onnx").write_bytes(b"")
    engine = Engine(copied)
    assert engine.embed("a text").shape == (1, 32)
    with pytest.raises(ArtifactIncompatible, match=r"model\.tokens\.onnx"):
        engine.encode("a text")


def test_provider_that_is_replaced(embedder: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime falls back without an error; the backend does not."""
    ort = import_onnxruntime()
    session = SimpleNamespace(get_providers=lambda: ["OtherProvider"])
    monkeypatch.setattr(ort, "InferenceSession", lambda *_, **__: session)
    with pytest.raises(BackendError, match="chose OtherProvider, not CPUExecutionProvider"):
        OnnxRuntimeBackend(embedder.artifact)


# Lone requests.


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The threads of every session that is opened, on a machine with three cores."""
    ort, threads = import_onnxruntime(), list[int]()
    session = ort.InferenceSession

    def open_session(path: str, options: Any, providers: list[str]) -> Any:
        threads.append(options.intra_op_num_threads)
        return session(path, options, providers=providers)

    monkeypatch.setattr(ort, "InferenceSession", open_session)
    monkeypatch.setattr(onnxruntime_backend, "allowed_cores", lambda: 3)
    return threads


def test_lone_requests_get_several_threads(embedder: Engine, opened: list[int]) -> None:
    engine = Engine(embedder.artifact)
    expected = embedder.embed(["a text", "and another"])
    first = engine.embed("a text")
    assert opened == [1]  # a process that embeds one text does not pay for a second session
    second = engine.embed("a text")
    assert opened == [1, 3]
    np.testing.assert_allclose(np.stack([first[0], second[0]]), expected[[0, 0]], atol=1e-6)
    engine.embed("another text")
    assert opened == [1, 3]


def test_lone_session_of_each_output_set(embedder: Engine, opened: list[int]) -> None:
    engine = Engine(embedder.artifact)
    rows = [engine.encode("a text").values for _ in range(3)]
    assert opened == [1, 1, 3]
    np.testing.assert_allclose(rows[2], rows[0], atol=1e-6)


@pytest.mark.parametrize(("recorded", "threads"), [(1, [1]), (2, [1, 2]), (8, [1, 3])])
def test_lone_threads_as_recorded(
    embedder: Engine, opened: list[int], recorded: int, threads: list[int]
) -> None:
    manifest = replace(embedder.artifact.manifest, tuning={"lone_threads": recorded})
    engine = Engine(replace(embedder.artifact, manifest=manifest))
    for _ in range(3):
        engine.embed("a text")
    assert opened == threads


def test_weights_that_no_session_can_share_are_not_held_twice(
    embedder: Engine, opened: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tiny model's are not packed; here it counts as large."""
    assert embedder.artifact.manifest.packed_for is None
    monkeypatch.setattr(onnxruntime_backend, "_SMALL_BYTES", 0)
    engine = Engine(embedder.artifact)
    for _ in range(3):
        engine.embed("a text")
    assert opened == [1]


def test_request_beside_another_gets_one_thread(embedder: Engine, opened: list[int]) -> None:
    engine, sequence = Engine(embedder.artifact), TokenSequence(np.array([2, 7, 3]), None)
    with computing():  # of another thread, or another engine
        for _ in range(3):
            engine.execute([sequence], MAIN_SET, alone=True)
    assert opened == [1]
    for _ in range(3):
        engine.execute([sequence], MAIN_SET)
    assert opened == [1]
    for _ in range(3):
        engine.execute([sequence], MAIN_SET, alone=True)
    assert opened == [1, 3]


# Runs that fail.


def poison() -> TokenSequence:
    return TokenSequence(np.array([2, 10**6, 3]), None)


def test_poisoned_run(embedder: Engine) -> None:
    with pytest.raises(BackendError, match="ONNX Runtime failed"):
        embedder.execute([poison()], MAIN_SET)
    assert embedder.embed("still works").shape == (1, 32)


def test_run_returns_every_output_by_name(embedder: Engine) -> None:
    sequence = TokenSequence(np.array([2, 7, 3]), None)
    (row,) = embedder.execute([sequence], MAIN_SET)
    assert {name: value.shape for name, value in row.items()} == {
        "pooled": (32,),
        "sentence_embedding": (32,),
    }
    (row,) = embedder.execute([sequence], TOKENS_SET)
    assert row["token_embeddings"].shape == (3, 32)
