"""Whole compiles from a shipped graph, against the libraries that define the models."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from poolc.errors import InvalidOption, UnsupportedTask
from poolc.runtime.engine import Engine
from tests.compiler.conftest import CompileHere
from tests.compiler.folders import TEXTS, classifier, encoder
from tests.compiler.onnx_source.shipping import ship

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


def test_compile_without_torch(embedder: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HIDING)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
        "POOLC_CACHE": str(tmp_path / "store"),
    }
    texts = tmp_path / "texts.txt"
    texts.write_text("A sentence.\na river runs through the old town\n")
    command = [sys.executable, "-m", "poolc", "embed", str(embedder), str(texts)]
    command += ["-o", str(tmp_path / "out.npy")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "PyTorch is not installed" in " ".join(done.stderr.split())
    wanted = SentenceTransformer(str(embedder), device="cpu").encode(texts.read_text().splitlines())
    assert np.abs(np.load(tmp_path / "out.npy") - wanted).max() < 1e-5
