"""Fixtures of the artifact tests: the files of one tiny artifact, published ones, a store."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from poolc.model_cache import stamps
from poolc.model_cache.artifact import Artifact
from poolc.model_cache.store import Store

from .fakes import DATA, GRAPH, digests, fake_manifest, publish_fake


def external_tensor(location: str, name: str = "weight") -> TensorProto:
    """A float tensor of 8 whose bytes lie in another file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[8])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "32")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def graph_bytes(location: str) -> bytes:
    """An ONNX model of one node whose weight is external."""
    vector = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "weight"], ["pooled"])],
        "tiny",
        [vector("x", TensorProto.FLOAT, [8])],
        [vector("pooled", TensorProto.FLOAT, [8])],
        [external_tensor(location)],
    )
    return bytes(helper.make_model(graph).SerializeToString())


@pytest.fixture(scope="session")
def contents() -> dict[str, bytes]:
    """The files of a tiny artifact, by name."""
    return {
        GRAPH: graph_bytes(DATA),
        DATA: bytes(range(32)),
        "tokenizer.json": b'{"model": {"type": "WordPiece"}}',
        "tokenizer_config.json": b'{"model_max_length": 16}',
        "templates/score.jinja": b"{{ query }} {{ document }}",
    }


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def artifact(contents: dict[str, bytes], store: Store) -> Artifact:
    """A tiny artifact published in ``store``."""
    artifact_id = fake_manifest(digests(contents)).artifact_id
    return publish_fake(contents, store.artifact_path(artifact_id))


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let everything written so far count as old enough to be stamped."""
    monkeypatch.setattr(stamps, "time_ns", lambda: time.time_ns() + 10_000_000_000)
