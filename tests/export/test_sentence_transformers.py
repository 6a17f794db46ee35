"""A folder for Sentence Transformers' ONNX backend: what is in it, and what that library makes of
it in an environment of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest

import poolc
from poolc.errors import CannotExport
from poolc.export.sentence_transformers import activation_class, export_sentence_transformers
from poolc.model_cache.artifact import open_artifact
from poolc.runtime.engine import Engine
from poolc.runtime.request import Params
from poolc.spec import Activation, Target, Task, Trunk
from tests.clients.environments import ROOT, ST_ONNX, python_of
from tests.export.conftest import Opened

PROGRAM = ROOT / "tests" / "clients" / "programs" / "sentence_transformers_onnx.py"
TEXTS = [
    "the quick brown fox jumps over the lazy dog",
    "bread",
    "Réserver une table à Zürich, s'il vous plaît: naïve café",
    "a river runs through the old town and under seven bridges of stone " * 8,
]


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def graph(folder: Path, engine: Engine, texts: list[str]) -> npt.NDArray[np.float32]:
    """Run an exported graph on the tokens that poolc's runtime makes."""
    path = str(folder / "onnx" / "model.onnx")
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    sequences = engine.prepare(Task.EMBED, texts, Params(truncate=True)).sequences
    (found,) = session.run(None, engine.feeds(sequences, ""))
    return np.asarray(found, np.float32)


def test_graph_hands_over_one_token(opened: Opened, embedder: Engine, tmp_path: Path) -> None:
    export_sentence_transformers(opened("tiny_embedder"), tmp_path / "out")
    found = graph(tmp_path / "out", embedder, TEXTS)
    assert found.shape == (4, 1, 32)
    expected = embedder.embed(TEXTS, truncate=True, normalize=False)
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-5)


def test_settings_of_embedding_models(opened: Opened, tmp_path: Path) -> None:
    export_sentence_transformers(opened("tiny_embedder"), tmp_path / "out")
    modules = read(tmp_path / "out" / "modules.json")
    assert [one["path"] for one in modules] == ["", "1_Pooling", "2_Normalize"]
    settings = read(tmp_path / "out" / "config_sentence_transformers.json")
    assert settings["prompts"] == {"query": "query: ", "document": "passage: "}
    assert settings["similarity_fn_name"] == "cosine"
    assert read(tmp_path / "out" / "sentence_bert_config.json")["max_seq_length"] == 64
    config = read(tmp_path / "out" / "config.json")
    assert (config["model_type"], config["matryoshka_dimensions"]) == ("bert", [8, 16])
    tokens = read(tmp_path / "out" / "tokenizer_config.json")
    assert (tokens["pad_token"], tokens["model_max_length"]) == ("[PAD]", 64)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "tiny_embedder" in card and "licence" in card and 'backend="onnx"' in card


def test_cut_vectors(opened: Opened, embedder: Engine, tmp_path: Path) -> None:
    export_sentence_transformers(opened("tiny_embedder", default_dimensions=8), tmp_path / "out")
    found = graph(tmp_path / "out", embedder, TEXTS)
    assert found.shape == (4, 1, 8)
    expected = embedder.embed(TEXTS, truncate=True, normalize=False, dimensions=8)
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-5)
    pooling = read(tmp_path / "out" / "1_Pooling" / "config.json")
    assert pooling["word_embedding_dimension"] == 8


@pytest.mark.parametrize(
    ("changes", "activation"),
    [
        ({}, "activation.Softmax"),
        ({"use_activation": False}, "linear.Identity"),
        ({"activation": Activation.LOGSIGMOID}, "activation.LogSigmoid"),
    ],
)
def test_classifiers(
    opened: Opened, tmp_path: Path, changes: dict[str, Any], activation: str
) -> None:
    export_sentence_transformers(opened("tiny_classifier", **changes), tmp_path / "out")
    config = read(tmp_path / "out" / "config.json")
    assert config["id2label"] == {"0": "negative", "1": "neutral", "2": "positive"}
    assert config["sentence_transformers"]["activation_fn"] == f"torch.nn.modules.{activation}"
    assert not (tmp_path / "out" / "modules.json").exists()


def test_every_activation_has_a_class(opened: Opened) -> None:
    import torch

    for kind in Activation:
        spec = opened("tiny_cross_encoder", activation=kind).manifest.spec
        module, _, name = activation_class(spec).rpartition(".")
        assert getattr(getattr(torch.nn.modules, module.rpartition(".")[2]), name)


def test_what_is_refused(opened: Opened, tmp_path: Path) -> None:
    found = opened("tiny_embedder")
    elsewhere = replace(found, manifest=replace(found.manifest, target=Target.CUDA))
    masked = opened("tiny_embedder", inputs=(*found.manifest.spec.inputs, "pooling_mask"))
    for artifact, said in (
        (elsewhere, "for the target cuda"),
        (opened("tiny_embedder", trunk=Trunk.STATIC), "static models"),
        (masked, "leaves out the tokens of the prompt"),
        (
            opened("tiny_cross_encoder", prompts={"q": "find: "}, default_prompt_name="q"),
            r"a default prompt \('q'\) stands before the left text",
        ),
        (opened("tiny_splade"), "as many weights as a text has"),
    ):
        with pytest.raises(CannotExport, match=said):
            export_sentence_transformers(artifact, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def library(folder: Path, what: str, **asked: Any) -> npt.NDArray[np.float32]:
    """Ask the library, in its own environment, for vectors or scores of a folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(python_of(ST_ONNX)), str(PROGRAM), str(folder), what],
        input=json.dumps(asked),
        env=kept | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return np.array(json.loads(done.stdout.splitlines()[-1]), np.float32)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_embeddings_in_the_library(opened: Opened, embedder: Engine, tmp_path: Path) -> None:
    export_sentence_transformers(opened("tiny_embedder"), tmp_path / "out")
    asking: list[Any] = [{}, {"prompt_name": "query"}, {"truncate_dim": 8}]
    for asked in asking:
        found = library(tmp_path / "out", "embed", texts=TEXTS, **asked)
        expected = embedder.embed(TEXTS, truncate=True, prompt_name=asked.get("prompt_name"))
        expected = expected[:, : asked.get("truncate_dim")]
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_other_kinds_in_the_library(
    opened: Opened,
    classifier: Engine,
    cross_encoder: Engine,
    bge_m3: Engine,
    tmp_path: Path,
) -> None:
    export_sentence_transformers(opened("tiny_cross_encoder"), tmp_path / "ce")
    pairs = [["which fox", TEXTS[0]], [TEXTS[3], TEXTS[3]], ["a", TEXTS[3]]]
    left, right = (list(column) for column in zip(*pairs, strict=True))
    found = library(tmp_path / "ce", "score", pairs=pairs)
    expected = cross_encoder.score(left, right, truncate=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    export_sentence_transformers(opened("tiny_classifier"), tmp_path / "classifier")
    found = library(tmp_path / "classifier", "score", pairs=pairs)
    items = [(a, b) for a, b in pairs]
    expected = classifier.classify(items, truncate=True).probs
    np.testing.assert_allclose(found, expected, atol=1e-5)
    export_sentence_transformers(opened("tiny_bge_m3"), tmp_path / "hybrid")
    found = library(tmp_path / "hybrid", "embed", texts=TEXTS[:3])
    np.testing.assert_allclose(found, bge_m3.embed(TEXTS[:3]), atol=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_trained_model_in_the_library(
    minilm_source: Path, tmp_path: Path, precision: str, passages: list[str]
) -> None:
    compiled = poolc.compile(minilm_source, precision=precision, on_event=lambda event: None)
    export_sentence_transformers(open_artifact(compiled.path), tmp_path / "out")
    expected = poolc.load(compiled.path).embed(passages, truncate=True)
    found = library(tmp_path / "out", "embed", texts=passages, basic=precision == "int8")
    np.testing.assert_allclose(found, expected, atol=1e-5)
    if precision == "int8":  # ONNX Runtime's own fusions round otherwise before integers
        found = library(tmp_path / "out", "embed", texts=passages)
        assert (found * expected).sum(axis=1).min() > 0.999
        assert "ORT_ENABLE_BASIC" in (tmp_path / "out" / "README.md").read_text()
