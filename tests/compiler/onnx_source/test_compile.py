"""Whole compiles from a shipped graph, against the libraries that define the models."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import MultiVectorEncoder, SentenceTransformer, SparseEncoder
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from poolc.errors import InvalidOption, UnsupportedTask
from poolc.model_cache.artifact import open_artifact
from poolc.runtime.engine import Engine
from tests.compiler.conftest import CompileHere
from tests.compiler.folders import TEXTS, classifier, encoder
from tests.compiler.onnx_source.shipping import ship
from tests.models import tiny_colbert, tiny_splade, tiny_tagger

ROOT = Path(__file__).resolve().parents[3]
# Makes a process believe that these are not installed.
HIDING = """
import importlib.machinery as machinery
find = machinery.PathFinder.find_spec
def hidden(name, path=None, target=None):
    gone = name.partition(".")[0] in ("torch", "sentence_transformers", "onnxscript")
    return None if gone else find(name, path, target)
machinery.PathFinder.find_spec = staticmethod(hidden)
"""


def test_embedder_equals_sentence_transformers(embedder: Path, compile_here: CompileHere) -> None:
    artifact = compile_here(embedder, from_onnx=True)
    wanted = SentenceTransformer(str(embedder), device="cpu").encode(TEXTS)
    found = Engine(artifact).embed(TEXTS, truncate=True)
    assert np.abs(found - wanted).max() < 1e-5
    assert artifact.report()["parity"]["reference"] == "shipped ONNX + NumPy heads"
    files = artifact.manifest.source.files
    assert "onnx/model.onnx" in files
    assert "model.safetensors" not in files
    assert artifact.manifest.options["from_onnx"] is True
    assert set(artifact.manifest.graphs) == {"main", "tokens"}


def test_classifier_equals_transformers(tmp_path: Path, compile_here: CompileHere) -> None:
    folder = ship(classifier(tmp_path / "classifier", num_labels=3), "model.onnx", opset=17)
    engine = Engine(compile_here(folder, from_onnx=True))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    given = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        wanted = model(**given).logits.softmax(-1).numpy()
    assert np.abs(engine.classify(TEXTS, truncate=True).probs - wanted).max() < 1e-5
    with pytest.raises(UnsupportedTask, match="does not support encode"):
        engine.encode(TEXTS[:1])


def test_pooled_graph_is_used_as_shipped(tmp_path: Path, compile_here: CompileHere) -> None:
    folder = ship(encoder(tmp_path / "pooled"), pooled=True)
    artifact = compile_here(folder, from_onnx=True)
    spec = artifact.manifest.spec
    assert (spec.pooling, spec.normalize) == ((), True)
    assert spec.origins["pooling"] == "onnx/model.onnx: sentence_embedding as shipped"
    assert set(artifact.manifest.graphs) == {"main"}
    with pytest.raises(InvalidOption, match="pools by itself"):
        compile_here(folder, from_onnx=True, pooler_config={"pooling_type": "CLS"})


@pytest.fixture
def without_torch(tmp_path: Path) -> dict[str, str]:
    """The environment of a process that finds no torch."""
    (tmp_path / "hiding").mkdir()
    (tmp_path / "hiding" / "sitecustomize.py").write_text(HIDING)
    path = os.pathsep.join([str(tmp_path / "hiding"), str(ROOT)])
    return {**os.environ, "PYTHONPATH": path, "POOLC_CACHE": str(tmp_path / "store")}


def run(environment: dict[str, str], *arguments: object) -> str:
    """Run Python; return what it said on standard error, on one line."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return " ".join(done.stderr.split())


def test_compile_without_torch(
    embedder: Path, tmp_path: Path, without_torch: dict[str, str]
) -> None:
    texts, vectors = tmp_path / "texts.txt", tmp_path / "out.npy"
    texts.write_text("A sentence.\na river runs through the old town\n")
    said = run(without_torch, "-m", "poolc", "embed", embedder, texts, "-o", vectors)
    assert "PyTorch is not installed" in said
    wanted = SentenceTransformer(str(embedder), device="cpu").encode(texts.read_text().splitlines())
    assert np.abs(np.load(vectors) - wanted).max() < 1e-5


COMPILING = """
import sys
from pathlib import Path
from poolc.api import make_options
from poolc.compiler.events import Progress
from poolc.compiler.pipeline import Request, compile_model
from poolc.model_cache.store import Store
for folder in map(Path, sys.argv[1:]):
    request = Request(str(folder), make_options(), folder.with_name(folder.name + "-compiled"))
    compile_model(request, Store(folder.parent / "store"), Progress(lambda event: None))
assert "torch" not in sys.modules
"""


def test_other_kinds_without_torch(tmp_path: Path, without_torch: dict[str, str]) -> None:
    builders = {"splade": tiny_splade, "colbert": tiny_colbert, "tagger": tiny_tagger}
    for name, build in builders.items():
        (tmp_path / name).mkdir()
        build(tmp_path / name)
        ship(tmp_path / name)
    run(without_torch, "-c", COMPILING, *(tmp_path / name for name in builders))
    splade, colbert, tagger = (Engine(open_artifact(tmp_path / f"{n}-compiled")) for n in builders)
    sparse: Any = SparseEncoder(str(tmp_path / "splade"), device="cpu").encode_query(TEXTS)
    found = splade.embed_sparse(TEXTS, side="query", truncate=True).to_dense()
    assert np.abs(found - sparse.to_dense().numpy()).max() < 1e-5
    vectors = MultiVectorEncoder(str(tmp_path / "colbert"), device="cpu").encode_query(TEXTS)
    rows = colbert.embed_tokens(TEXTS, side="query", truncate=True)
    for row, wanted in zip(rows, vectors, strict=True):
        assert np.abs(row - np.asarray(wanted)).max() < 1e-5
    assert sum(map(len, tagger.classify_tokens(TEXTS, aggregation="simple", truncate=True))) > 0
