"""Static models and asymmetric routers, as the libraries save them, against those libraries."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers.sentence_transformer.modules import (
    LayerNorm,
    Normalize,
    Pooling,
    StaticEmbedding,
    Transformer,
)
from torch import nn

from poolc import LLM, PoolingParams
from poolc.errors import InvalidOption, InvalidText, TextTooLong
from poolc.runtime.engine import Engine
from poolc.runtime.request import Params
from poolc.serve.scheduler import Scheduler
from poolc.serve.settings import Settings
from poolc.spec import Task, Trunk
from tests.compiler.conftest import CompileHere
from tests.compiler.folders import TEXTS, encoder
from tests.compiler.layout_folders import (
    dense,
    library,
    model2vec_folder,
    model2vec_vectors,
    saved,
    shared_router,
    static_embedding,
    table,
    whole_router,
)
from tests.compiler.test_parity import assert_close
from tests.models import HIDDEN

WORDS = ["The quick brown fox", "a river", "stone bridges 東京 of stone", "oven " * 90]


def test_layers_before_and_behind_pooling(tmp_path: Path, compile_here: CompileHere) -> None:
    transformer = Transformer(str(encoder(tmp_path / "bert")))
    norm = LayerNorm(24)
    nn.init.normal_(norm.norm.weight)
    functions = [
        *(nn.CELU(), nn.SELU(), nn.ReLU6(), nn.RReLU(), nn.Hardsigmoid(), nn.Hardswish()),
        *(nn.Hardtanh(), nn.LogSigmoid(), nn.Hardshrink(), nn.Softshrink(), nn.Softsign()),
        *(nn.Tanhshrink(), nn.Mish(), nn.Softplus()),
    ]
    chain = [
        dense((24, 24), activation_function=function, use_residual=True) for function in functions
    ]
    folder = saved(
        tmp_path / "model",
        transformer,
        dense((HIDDEN, 12), module_input_name="token_embeddings"),
        Normalize(module_input_name="token_embeddings"),
        Pooling(12, pooling_mode=["mean", "max"]),
        norm,
        Normalize(),
        *chain,
        dense((24, 8), activation_function=None),
        Normalize(),
    )
    _as_pickle(folder / "7_Dense")
    engine, model = Engine(compile_here(folder)), library(folder)
    assert (len(engine.spec.token_layers), len(engine.spec.layers)) == (2, 17)
    assert_close(engine.embed(TEXTS, truncate=True), model.encode(TEXTS))


def _as_pickle(folder: Path) -> None:
    path = folder / "model.safetensors"
    torch.save(load_file(path), folder / "pytorch_model.bin")
    path.unlink()


def test_static_embedding(tmp_path: Path, compile_here: CompileHere) -> None:
    folder = static_embedding(tmp_path)
    engine, model = Engine(compile_here(folder)), library(folder)
    assert (engine.spec.trunk, engine.spec.max_length) == (Trunk.STATIC, 40)
    texts = [*TEXTS, *WORDS]
    assert_close(engine.embed(texts, truncate=True), model.encode(texts))
    assert_close(engine.embed_query(texts, truncate=True), model.encode_query(texts))
    tokens = engine.encode(["a river"])[0]
    ids = model.tokenizer.encode("a river", add_special_tokens=False).ids
    assert_close(tokens, model[0].embedding.weight.detach().numpy()[ids])
    # The library averages nothing to zeros; poolc does not answer where nothing is computed.
    with pytest.raises(InvalidText, match="item 0 has no tokens"):
        engine.embed(["   "])


def test_model2vec(tmp_path: Path, compile_here: CompileHere) -> None:
    folder = model2vec_folder(tmp_path / "model", max_length=12)
    engine = Engine(compile_here(folder))
    texts = [*TEXTS, *WORDS, "☃", "x" * 60, "☃ a ☃ river"]
    found = engine.embed(texts, truncate=True)
    assert_close(found, model2vec_vectors(texts, folder, 12))
    assert not found[texts.index("☃")].any()  # unknown tokens only: zeros, as the library gives
    short = engine.spec.chars_per_token
    assert short is not None
    with pytest.raises(TextTooLong, match=rf"reads the first {12 * short} and 12 tokens"):
        engine.embed(["x" * (12 * short + 1)])


def test_model2vec_of_whole_numbers(tmp_path: Path, compile_here: CompileHere) -> None:
    """An int8 table, which Sentence Transformers does not load: model2vec means its numbers."""
    folder = model2vec_folder(tmp_path / "model", max_length=12)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    scale = 127 / tensors["embeddings"].abs().max()
    save_file({**tensors, "embeddings": (tensors["embeddings"] * scale).to(torch.int8)}, path)
    texts = [*TEXTS, *WORDS]
    found = Engine(compile_here(folder)).embed(texts, truncate=True)
    assert_close(found, model2vec_vectors(texts, folder, 12))


def test_router_behind_a_shared_transformer(tmp_path: Path, compile_here: CompileHere) -> None:
    folder = shared_router(tmp_path)
    artifact = compile_here(folder)
    engine, model = Engine(artifact), library(folder)
    texts = [text for text in TEXTS if len(text) < 100]
    assert_close(engine.embed_query(texts), model.encode_query(texts))
    assert_close(engine.embed_document(texts), model.encode_document(texts))
    assert_close(engine.embed(texts), model.encode(texts))
    assert {"model.onnx", "model.main@query.onnx"} <= set(artifact.manifest.files)
    # Both routes read one copy of the shared weights.
    data, source = artifact.file("model.onnx.data"), folder / "model.safetensors"
    assert data.stat().st_size < 1.5 * source.stat().st_size
    left, right = model.encode_query(texts), model.encode_document(texts[::-1])
    wanted = model.similarity_pairwise(left, right).numpy()
    assert_close(engine.score(texts, texts[::-1]), wanted)
    one = model.similarity(model.encode_query(texts[:1]), model.encode_document(texts)).numpy()[0]
    assert_close(engine.score(texts[0], texts), one)
    assert len(engine.prepare(Task.SCORE, [("a", "a")], Params()).sequences) == 2
    with pytest.raises(InvalidOption, match="side is 'query', which score of this model"):
        next(engine.stream(Task.SCORE, [("a", "b")], Params(side="query")))
    facade = LLM(artifact.path)
    scored = facade.score(texts[0], texts, use_tqdm=False)
    assert_close(np.array([output.outputs.score for output in scored]), one)
    sides = [PoolingParams(side="query"), PoolingParams(side="document"), PoolingParams()]
    outputs = facade.embed(["a"] * 3, pooling_params=sides, use_tqdm=False)
    mixed = np.array([output.outputs.embedding for output in outputs])
    assert_close(mixed[0], model.encode_query("a"))
    assert_close(mixed[1], model.encode_document("a"))
    assert_close(mixed[2], model.encode("a", prompt=""))
    with pytest.raises(InvalidOption, match="side is 'title'; allowed: document, query"):
        engine.embed(texts, side="title")


def test_router_of_whole_models(tmp_path: Path, compile_here: CompileHere) -> None:
    folder = whole_router(tmp_path)
    engine, model = Engine(compile_here(folder)), library(folder)
    assert_close(engine.embed_query(TEXTS, truncate=True), model.encode_query(TEXTS))
    assert_close(engine.embed_document(TEXTS, truncate=True), model.encode_document(TEXTS))
    with pytest.raises(ValueError, match="Could not determine route"):
        model.encode(TEXTS)
    with pytest.raises(InvalidOption, match=r"no default route for embed: say which side"):
        engine.embed(TEXTS)
    assert_close(engine.embed("a river", side="query"), model.encode_query(["a river"]))
    states = engine.encode("a river", side="document")[0]
    wanted = model.encode_document("a river", output_value="token_embeddings")
    assert_close(states, np.asarray(wanted))
    queries, documents = ["a river", "bread"], ["bread and salt", "the old town"]
    both = model.encode_query(queries), model.encode_document(documents)
    assert_close(engine.score(queries, documents), model.similarity_pairwise(*both).numpy())
    long = "bread and salt " * 90
    windows = engine.embed_query(["a river", long], chunk=True)
    whole = engine.embed_document([long, "bread"], chunk=True)
    scores = engine.score(["a river", long], [long, "bread"], chunk=True)
    assert_close(scores, (windows * whole).sum(-1))
    asyncio.run(Scheduler(engine, Settings()).probe())  # a server of it becomes ready
    with pytest.raises(InvalidOption, match=r"say which side .* with PoolingParams\(side="):
        LLM(engine.artifact.path).embed("a", use_tqdm=False)


def test_saved_layout_is_version_6(tmp_path: Path) -> None:
    tokenizer, vectors = table(tmp_path / "words")
    folder = saved(tmp_path / "m", StaticEmbedding(tokenizer, embedding_weights=vectors))
    (entry,) = json.loads((folder / "modules.json").read_text())
    assert entry["type"].startswith("sentence_transformers.sentence_transformer.modules.")
