"""Packed twins of graphs: the same numbers, used where their kernels are, left alone elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from poolc.compiler.targets import prepack
from poolc.model_cache.artifact import Artifact
from poolc.runtime.backends import onnxruntime as backend
from poolc.runtime.engine import Engine
from tests.compiler.conftest import CompileHere
from tests.compiler.folders import TEXTS


@pytest.fixture
def packed(
    plain_bert: Path, compile_here: CompileHere, monkeypatch: pytest.MonkeyPatch
) -> Artifact:
    """A small artifact that is packed although that is not worth it."""
    monkeypatch.setattr(prepack, "_WORTH_BYTES", 0)
    return compile_here(plain_bert)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of the graph files that sessions are opened over."""
    names: list[str] = []
    ort = backend.import_onnxruntime()
    session = ort.InferenceSession

    def record(path: str, *rest: Any, **options: Any) -> Any:
        names.append(Path(path).name)
        return session(path, *rest, **options)

    monkeypatch.setattr(ort, "InferenceSession", record)
    yield names


def test_packed_where_the_kernels_are(packed: Artifact, opened: list[str]) -> None:
    engine = Engine(packed)
    vectors, states = engine.embed(TEXTS, truncate=True), engine.encode(TEXTS, truncate=True)
    assert opened == ["model.packed.onnx", "model.tokens.packed.onnx"]
    graphs = packed.manifest.graphs.values()
    assert {graph.packed for graph in graphs} == set(opened)
    assert set(opened) <= set(packed.manifest.files)
    assert vectors.shape == (len(TEXTS), 32)
    assert len(states) == len(TEXTS)


@pytest.mark.parametrize("other", ["runtime_version", "host_class"])
def test_plain_elsewhere(
    other: str, packed: Artifact, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Engine(packed).embed(TEXTS, truncate=True)
    monkeypatch.setattr(backend, other, lambda: "another")
    elsewhere = Engine(packed).embed(TEXTS, truncate=True)
    assert opened == ["model.packed.onnx", "model.onnx"]
    np.testing.assert_array_equal(elsewhere, here)


def test_one_weights_file(packed: Artifact) -> None:
    placed = {}
    for name in ("model.onnx", "model.packed.onnx", "model.tokens.packed.onnx"):
        graph = onnx.load(packed.path / name, load_external_data=False).graph
        placed[name] = {
            tensor.name: {entry.key: entry.value for entry in tensor.external_data}
            for tensor in graph.initializer
            if tensor.data_location == onnx.TensorProto.EXTERNAL
        }
    plain, main, tokens = placed.values()
    packs = {name: entry for name, entry in main.items() if "prepacked_0" in entry}
    assert packs
    assert packs == {name: tokens[name] for name in packs}
    for name, entry in plain.items():
        assert {key: main[name][key] for key in entry} == entry
    assert not list(packed.path.glob("*.data.*"))


def test_packed_again_gives_the_same_bytes(
    packed: Artifact, plain_bert: Path, compile_here: CompileHere
) -> None:
    assert compile_here(plain_bert, refresh=True).artifact_id == packed.artifact_id


def test_small_models_are_not_packed(plain_bert: Path, compile_here: CompileHere) -> None:
    manifest = compile_here(plain_bert).manifest
    assert manifest.packed_for is None
    assert {graph.packed for graph in manifest.graphs.values()} == {None}
