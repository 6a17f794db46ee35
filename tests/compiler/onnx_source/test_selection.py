"""Which files of a repository are fetched, and when ONNX is chosen without being asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from poolc import api
from poolc.compiler import source
from poolc.compiler.events import Progress
from poolc.compiler.onnx_source import selection
from poolc.errors import MissingDependency, UnsupportedModel
from poolc.model_cache import requests
from poolc.model_cache.artifact import Artifact
from poolc.model_cache.store import Store
from poolc.runtime.engine import Engine
from tests.compiler.conftest import CompileHere
from tests.compiler.fake_hub import Hub, files_of
from tests.compiler.folders import TEXTS, add_dense, add_modules, encoder
from tests.compiler.onnx_source.shipping import GRAPH, save_outside
from tests.models import HIDDEN

NAME = "someone/tiny-model"
# What such repositories hold beside.
VARIANTS = {
    "onnx/model_quantized.onnx": b"x",
    "onnx/model_fp16.onnx": b"x",
    "onnx/model_fp16.onnx_data": b"x",
    "onnx/model_O4.onnx": b"x",
    "onnx/config.json": b"{}",
    "onnx/tokenizer.json": b"{}",
    "openvino/openvino_model.bin": b"x",
    "pytorch_model.bin": b"x",
    "model.safetensors": b"no weights: whoever fetches them fails",
    "tf_model.h5": b"x",
    "README.md": b"x",
}


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make poolc believe that PyTorch is not installed; ``test_compile.py`` hides it for real."""
    for module in (requests, selection, source):
        monkeypatch.setattr(module, "has_torch", lambda: False)


def assert_like(artifact: Artifact, folder: Path) -> None:
    expected = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    found = Engine(artifact).embed(TEXTS, truncate=True)
    assert np.abs(found - expected).max() < 1e-5


def read(folder: Path) -> set[str]:
    """Return the names of a folder's files, but for the trunk's weights."""
    return set(files_of(folder)) - {"model.safetensors"}


@pytest.mark.parametrize("location", ["model.onnx_data", "model.onnx.data", "weights.bin", None])
def test_hub_fetches_the_graph_and_its_weights(
    location: str | None, hub: Hub, copied: Path, compile_here: CompileHere
) -> None:
    save_outside(copied, location)
    hub.add(NAME, {**files_of(copied), **VARIANTS})
    artifact = compile_here(NAME, from_onnx=True)
    assert hub.fetched() == read(copied)
    assert set(artifact.manifest.source.files) == read(copied)
    assert_like(artifact, copied)


def test_hub_fetches_the_heads(
    hub: Hub, copied: Path, compile_here: CompileHere, store: Store
) -> None:
    add_dense(copied, "2_Dense", (HIDDEN, 24))
    add_modules(copied, ("Dense", "2_Dense"), ("Normalize", "3_Normalize"))
    hub.add(NAME, {**files_of(copied), **VARIANTS, "2_Dense/pytorch_model.bin": b"x"})
    artifact = compile_here(NAME, from_onnx=True)
    assert hub.fetched() == read(copied)
    assert "2_Dense/model.safetensors" in artifact.manifest.source.files
    assert_like(artifact, copied)
    # Known now: neither looked up nor compiled again.
    hub.requests.clear()
    assert api.lookup(NAME, api.make_options(from_onnx=True), store) == artifact.path
    assert compile_here(NAME, from_onnx=True).artifact_id == artifact.artifact_id
    assert hub.requests == []


def test_hub_weights_after_onnx_and_back(
    hub: Hub, copied: Path, compile_here: CompileHere, store: Store, tmp_path: Path
) -> None:
    """Both ways fetch what the other left out, of the same commit, and stay apart."""
    save_outside(copied, "model.onnx_data")
    first = hub.add(NAME, files_of(copied)).branches["main"]
    graph = compile_here(NAME, from_onnx=True)
    hub.repositories[NAME].push(files_of(copied))
    weights = source.fetch(NAME, api.make_options(), store, Progress(lambda event: None))
    assert graph.manifest.source.revision == weights.revision == first
    assert "model.safetensors" in hub.fetched()
    assert not {GRAPH, "onnx/model.onnx_data"} & set(weights.files)
    assert "model.safetensors" not in graph.manifest.source.files
    for path in (tmp_path / "hub").rglob("model.onnx_data"):
        path.resolve().unlink()  # the blob, then the link to it
        path.unlink()
    hub.requests.clear()
    assert compile_here(NAME, from_onnx=True).artifact_id == graph.artifact_id
    assert f"GET /{NAME}/resolve/{first}/onnx/model.onnx_data" in hub.requests


def test_hub_without_a_graph_fetches_nothing(
    hub: Hub, copied: Path, compile_here: CompileHere
) -> None:
    files = {name: data for name, data in files_of(copied).items() if name != GRAPH}
    hub.add(NAME, {**files, **VARIANTS})
    message = (
        rf"{NAME} ships no onnx/model\.onnx or model\.onnx \(only onnx/model_O4\.onnx.*other "
        "variants.*: compile its weights, without --from-onnx"
    )
    with pytest.raises(UnsupportedModel, match=message):
        compile_here(NAME, from_onnx=True)
    assert hub.fetched() == set()


# Where PyTorch is missing.


@pytest.mark.usefixtures("without_torch")
def test_onnx_is_the_default_without_torch(
    hub: Hub, copied: Path, compile_here: CompileHere, store: Store
) -> None:
    hub.add(NAME, {**files_of(copied), **VARIANTS})
    artifact = compile_here(NAME)
    assert hub.fetched() == read(copied)
    assert "PyTorch is not installed: compiling the ONNX" in artifact.report()["warnings"][0]
    assert artifact.manifest.options["from_onnx"] is True
    # The same request as one that asks for it, found by either.
    for options in (api.make_options(), api.make_options(from_onnx=True)):
        assert api.lookup(NAME, options, store) == artifact.path
    assert_like(artifact, copied)


def test_with_torch_another_artifact_is_meant(
    copied: Path, compile_here: CompileHere, store: Store
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(requests, "has_torch", lambda: False)
        compile_here(copied)
    assert api.lookup(str(copied), api.make_options(), store) is None


@pytest.mark.usefixtures("without_torch")
def test_neither_torch_nor_a_graph(tmp_path: Path, compile_here: CompileHere) -> None:
    folder = encoder(tmp_path / "plain")
    message = r"plain ships no onnx/model\.onnx .*need PyTorch.*pip install \"poolc\[compile,cpu\]"
    with pytest.raises(MissingDependency, match=message):
        compile_here(folder)


@pytest.mark.usefixtures("without_torch")
def test_pickled_head_without_torch(copied: Path, compile_here: CompileHere) -> None:
    dense = add_dense(copied, "2_Dense", (HIDDEN, 24))
    add_modules(copied, ("Dense", "2_Dense"))
    (copied / "2_Dense" / "model.safetensors").unlink()
    torch.save(dense.state_dict(), copied / "2_Dense" / "pytorch_model.bin")
    message = r"2_Dense/pytorch_model\.bin is a pickle, which only PyTorch reads: pip install"
    with pytest.raises(MissingDependency, match=message):
        compile_here(copied)
