"""Sentence Transformers folders against what Sentence Transformers itself reads in them."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer, SparseEncoder
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling
from torch import nn
from transformers import AutoTokenizer

from poolc.compiler import st_files
from poolc.compiler.st_files import transformer_path
from poolc.errors import UnsupportedModel
from poolc.runtime.engine import Engine
from poolc.spec import Activation, LayerSpec, PoolingType
from tests.compiler.conftest import CompileHere, Recognise, plain_spec
from tests.compiler.folders import (
    MODES,
    TEXTS,
    add_dense,
    add_modules,
    edit_json,
    sentence_transformer,
    set_pooling,
)
from tests.models import HIDDEN, MAX_LENGTH, tiny_splade, write_json, write_modules, write_pooling

FLAGS = (
    *("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens"),
    *("weightedmean_tokens", "lasttoken"),
)
MODE_NAMES = tuple(MODES.values())


def skeleton(folder: Path, *kinds: tuple[str, str]) -> Path:
    """Configuration without a model: what ``read`` looks at."""
    add_modules(folder, *kinds)
    write_pooling(folder, "mean_tokens")
    return folder


def modes_by_the_library(folder: Path) -> tuple[str, ...]:
    loaded = Pooling.load(str(folder / "1_Pooling")).pooling_mode
    return (loaded,) if isinstance(loaded, str) else tuple(loaded)


def modes_by_poolc(folder: Path) -> tuple[str, ...]:
    read = st_files.read(folder)
    assert read is not None
    return tuple(MODES[kind] for kind in read.pooling)


@pytest.mark.parametrize("flags", [(), *combinations(FLAGS, 1), *combinations(FLAGS, 2), FLAGS])
def test_pooling_flags_of_versions_2_to_4(flags: tuple[str, ...], tmp_path: Path) -> None:
    skeleton(tmp_path)
    write_pooling(tmp_path, *flags)
    assert modes_by_poolc(tmp_path) == modes_by_the_library(tmp_path)


@pytest.mark.parametrize(
    "modes", [*MODE_NAMES, ["cls"], ["lasttoken", "mean"], list(reversed(MODE_NAMES))]
)
def test_pooling_modes_of_versions_5_and_6(modes: str | list[str], tmp_path: Path) -> None:
    skeleton(tmp_path)
    set_pooling(tmp_path, modes)
    found = modes_by_poolc(tmp_path)
    assert found == modes_by_the_library(tmp_path)
    assert found == ((modes,) if isinstance(modes, str) else tuple(modes))


def test_read_without_modules(tmp_path: Path) -> None:
    assert st_files.read(tmp_path) is None
    assert transformer_path(tmp_path) == ""


def test_read_a_folder_that_the_library_saved(
    tiny_embedder_source: Path, tmp_path: Path, recognise: Recognise
) -> None:
    saved = tmp_path / "saved"
    model = SentenceTransformer(str(tiny_embedder_source), device="cpu")
    model.save_pretrained(str(saved), create_model_card=False)
    assert '"sentence_transformers.base.modules' in (saved / "modules.json").read_text()
    before, after = recognise(tiny_embedder_source), recognise(saved)
    assert plain_spec(after.spec) == plain_spec(before.spec)
    assert after.warnings == before.warnings == []


def test_read_0_transformer_layout(tmp_path: Path, recognise: Recognise) -> None:
    flat = sentence_transformer(tmp_path / "flat", "cls_token")
    old = tmp_path / "old"
    old.mkdir()
    flat.rename(old / "0_Transformer")
    (old / "0_Transformer" / "1_Pooling").rename(old / "1_Pooling")
    (old / "0_Transformer" / "modules.json").unlink()
    write_modules(old, ("Transformer", "0_Transformer"), ("Pooling", "1_Pooling"))
    # Version 1 left a config.json of its own at the top.
    write_json(old / "config.json", {"__version__": "0.4.1"})
    write_json(old / "0_Transformer" / "sentence_bert_config.json", {"max_seq_length": 48})
    spec = recognise(old, hf_overrides={"matryoshka_dimensions": [8]}).spec
    assert (spec.model_type, spec.max_length) == ("bert", 48)
    assert spec.max_length == SentenceTransformer(str(old), device="cpu").max_seq_length
    assert spec.matryoshka.dimensions == (8,)  # merged into the model's file, not the other one
    assert transformer_path(old) == "0_Transformer"


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "xlm-roberta", "xlnet"])
def test_read_transformer_config_of_every_family(family: str, tmp_path: Path) -> None:
    skeleton(tmp_path)
    name = f"sentence_{family}_config.json"
    write_json(tmp_path / name, {"max_seq_length": 40, "do_lower_case": True})
    read = st_files.read(tmp_path)
    assert read is not None
    assert (read.max_length, read.max_length_file, read.lower_case) == (40, name, True)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (nn.Tanh(), Activation.TANH),
        (nn.GELU(), Activation.GELU),
        (nn.Identity(), Activation.IDENTITY),
        (nn.ReLU(), Activation.RELU),
        (nn.SiLU(), Activation.SILU),
        (nn.LeakyReLU(), Activation.LEAKY_RELU),
        (nn.Sigmoid(), Activation.SIGMOID),
    ],
)
def test_read_dense(function: nn.Module, name: Activation, tmp_path: Path) -> None:
    skeleton(tmp_path, ("Dense", "2_Dense"))
    add_dense(tmp_path, "2_Dense", (HIDDEN, 8), activation_function=function, bias=False)
    read = st_files.read(tmp_path)
    assert read is not None
    assert read.layers == (LayerSpec("2_Dense", HIDDEN, 8, bias=False, activation=name),)
    assert read.normalize is False


def test_read_dense_chain_with_residual(tmp_path: Path) -> None:
    skeleton(tmp_path, ("Dense", "2_D"), ("Dense", "3_D"), ("Dropout", ""), ("Normalize", "4_N"))
    add_dense(tmp_path, "2_D", (HIDDEN, 16), use_residual=True)
    add_dense(tmp_path, "3_D", (16, 8))
    read = st_files.read(tmp_path)
    assert read is not None
    assert [(d.path, d.residual, d.out_features) for d in read.layers] == [
        ("2_D", True, 16),
        ("3_D", False, 8),
    ]
    assert read.normalize is True


def module(kind: str, path: Any = "") -> dict[str, Any]:
    return {"type": f"sentence_transformers.models.{kind}", "path": path}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("{", "modules.json is not a list of type and path: Expecting"),
        ([], "modules.json names no modules"),
        ([module("Dropout")], "modules.json names no modules"),
        ([{"path": ""}], "modules.json is not a list of type and path: 'type'"),
        (["x"], "modules.json is not a list of type and path"),
        ([module("Transformer", None)], "modules.json is not a list of type and path"),
        ([module("Transformer", "../other")], r"path '\.\./other' leaves the model's folder"),
        ([module("Transformer", "/etc")], "path '/etc' leaves the model's folder"),
        ([module("BoW")], "modules.json starts with BoW; poolc reads .*; of BoW: it counts words"),
        ([module("Transformer"), module("LSTM", "1")], "a LSTM module, .*: .* no recurrent layers"),
        ([module("Transformer"), module("WordWeights", "1")], "a WordWeights module, .* words"),
        ([module("Transformer"), module("CNN", "1")], "a CNN module, which poolc does not compile"),
        ([module("Transformer"), module("WeightedLayerPooling", "1")], "hidden states of every"),
        ([module("Transformer"), module("Other", "1")], "has a Other module; poolc reads Transf"),
        (
            [module("Transformer"), module("Normalize", "1"), module("Pooling", "2")],
            "module_input_name is 'sentence_embedding'; a Normalize module before Pooling reads",
        ),
        (
            [module("Transformer"), module("Pooling", "1_Pooling"), module("Pooling", "1_Pooling")],
            "orders Transformer, Pooling, Pooling: the second Pooling would replace the first",
        ),
    ],
)
def test_read_refuses_modules(entries: Any, message: str, tmp_path: Path) -> None:
    skeleton(tmp_path)
    text = entries if isinstance(entries, str) else json.dumps(entries)
    (tmp_path / "modules.json").write_text(text)
    with pytest.raises(UnsupportedModel, match=message):
        st_files.read(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"pooling_mode": "median"}, r"pooling_mode \['median'\]; known: cls, max, mean"),
        ({"pooling_mode": []}, r"pooling_mode \[\]; known"),
        ({"pooling_mode_median": True}, "pooling_mode_median; known: pooling_mode_cls_token"),
        (
            {"pooling_mode": "mean", "include_prompt": "no"},
            "1_Pooling/config.json: include_prompt is 'no'; allowed: true, false",
        ),
        (
            {"pooling_mode": "cls", "pooling_mode_mean_tokens": True},
            "1_Pooling/config.json contradicts itself: pooling_mode is 'cls', but "
            "pooling_mode_mean_tokens is true",
        ),
        (
            {"pooling_mode": ["cls", "mean"], "pooling_mode_cls_token": False},
            "contradicts itself: .* but pooling_mode_cls_token is false",
        ),
        (
            {"pooling_mode_cls_token": "yes"},
            "pooling_mode_cls_token is 'yes'; allowed: true, false",
        ),
    ],
)
def test_read_refuses_pooling(config: dict[str, Any], message: str, tmp_path: Path) -> None:
    skeleton(tmp_path)
    write_json(tmp_path / "1_Pooling" / "config.json", config)
    with pytest.raises(UnsupportedModel, match=message):
        st_files.read(tmp_path)


def test_read_refuses_missing_pooling(tmp_path: Path) -> None:
    skeleton(tmp_path)
    (tmp_path / "1_Pooling" / "config.json").unlink()
    with pytest.raises(UnsupportedModel, match=r"1_Pooling/config.json is missing"):
        st_files.read(tmp_path)


@pytest.mark.parametrize("file", ["1_Pooling/config.json", "config_sentence_transformers.json"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "must hold a JSON object"),
        ("\udcff", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
    ],
)
def test_read_names_the_malformed_file(
    file: str, content: str, message: str, tmp_path: Path
) -> None:
    folder = skeleton(tmp_path / "model")
    (folder / file).write_bytes(content.encode("utf-8", "surrogateescape"))
    where = file if "/" in file else f"model/{file}"
    with pytest.raises(UnsupportedModel, match=f"{where} {message}"):
        st_files.read(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation_function": "mine.Activation"}, "activation 'mine.Activation'; known: torch"),
        ({"activation_function": "torch.nn.Bilinear"}, "activation 'torch.nn.Bilinear'"),
        ({"activation_function": "torch.nnx.Tanh"}, "activation 'torch.nnx.Tanh'"),
        ({"module_input_name": "token_embeddings"}, "module_input_name is 'token_embeddings'"),
        ({"module_output_name": "scores"}, "module_output_name is 'scores'"),
        ({"in_features": "many"}, "2_Dense/config.json: invalid literal"),
        ({"out_features": None}, "2_Dense/config.json: 'out_features'"),
    ],
)
def test_read_refuses_dense(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    skeleton(tmp_path, ("Dense", "2_Dense"))
    add_dense(tmp_path, "2_Dense", (HIDDEN, 8))
    edit_json(tmp_path / "2_Dense" / "config.json", **changes)
    with pytest.raises(UnsupportedModel, match=message):
        st_files.read(tmp_path)


def test_read_dense_without_activation(tmp_path: Path) -> None:
    skeleton(tmp_path, ("Dense", "2_Dense"))
    add_dense(tmp_path, "2_Dense", (HIDDEN, 8))
    config = {"in_features": HIDDEN, "out_features": 8, "activation_function": None}
    write_json(tmp_path / "2_Dense" / "config.json", config)
    read = st_files.read(tmp_path)
    assert read is not None
    assert read.layers[0].activation is Activation.IDENTITY


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_read_refuses_missing_dense_file(file: str, tmp_path: Path) -> None:
    skeleton(tmp_path, ("Dense", "2_Dense"))
    add_dense(tmp_path, "2_Dense", (HIDDEN, 8))
    (tmp_path / "2_Dense" / file).unlink()
    with pytest.raises(UnsupportedModel, match=f"2_Dense/{file} is missing, which modules.json"):
        st_files.read(tmp_path)


@pytest.mark.parametrize("value", ["64", 0, True, 1.5])
def test_read_refuses_max_seq_length(value: Any, tmp_path: Path) -> None:
    skeleton(tmp_path)
    write_json(tmp_path / "sentence_bert_config.json", {"max_seq_length": value})
    with pytest.raises(UnsupportedModel, match=r"max_seq_length is .*; it must be a positive"):
        st_files.read(tmp_path)


def test_activation_names_are_torch_classes() -> None:
    for name in Activation:
        names = {attribute.lower(): attribute for attribute in dir(torch.nn)}
        assert st_files.activation(f"torch.nn.{names[name]}", "") is name


def test_flags_of_the_shared_builder_are_all_covered() -> None:
    assert set(MODES) == set(PoolingType) - {PoolingType.ALL}
    assert MAX_LENGTH > 48


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"modality_config": {"image": {}}}, "modality_config has no text"),
        (
            {"modality_config": {"text": {"method": "get_text_features"}}},
            "modality_config.text.method is 'get_text_features'; poolc calls forward",
        ),
        (
            {"processing_kwargs": {"text": {"add_special_tokens": False}}},
            "processing_kwargs.text.add_special_tokens is False",
        ),
    ],
)
def test_read_refuses_transformer(config: dict[str, Any], message: str, tmp_path: Path) -> None:
    skeleton(tmp_path)
    write_json(tmp_path / "sentence_bert_config.json", config)
    with pytest.raises(UnsupportedModel, match=f"sentence_bert_config.json: {message}"):
        st_files.read(tmp_path)


def router(folder: Path, **config: Any) -> Path:
    """A Router in front, with a static model for each side."""
    static = "sentence_transformers.models.StaticEmbedding"
    structure = {"query": ["a"], "document": ["b"]}
    given = {"types": {"a": static, "b": static}, "structure": structure, "parameters": {}}
    write_modules(folder, ("Router", ""))
    write_json(folder / "router_config.json", {**given, **config})
    return folder


@pytest.mark.parametrize(
    ("parameters", "main", "has_default"),
    [
        ({}, "query", True),
        ({"default_route": "document"}, "document", True),
        ({"allow_empty_key": False}, "document", False),
        ({"route_mappings": {"(None, 'text')": "document"}}, "document", True),
    ],
)
def test_read_router(
    parameters: dict[str, Any], main: str, has_default: bool, tmp_path: Path
) -> None:
    read = st_files.read(router(tmp_path, parameters=parameters))
    assert read is not None
    assert read.router is not None
    assert (read.router.main, read.router.has_default) == (main, has_default)
    assert read.transformer == transformer_path(tmp_path) == {"query": "a", "document": "b"}[main]
    assert st_files.module_paths(tmp_path) == ["", "a", "b"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"structure": {}}, "structure names no routes"),
        ({"structure": {"query": ["c"]}}, "KeyError 'c'"),
        ({"structure": {"../x": ["a"]}}, "a route is called '../x'"),
        ({"types": {"a": "mine.Module", "b": "mine.Module"}}, "names mine.Module, code that"),
        ({"parameters": {"default_route": "title"}}, "default_route is 'title'; its routes are: q"),
        ({"parameters": {"route_mappings": {"x": "query"}}}, "route_mappings has the key 'x'"),
        ({"parameters": {"route_mappings": {"(1, 2)": "y"}}}, "route_mappings names 'y'"),
    ],
)
def test_read_refuses_router(config: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=f"router_config.json.*{message}"):
        st_files.read(router(tmp_path, **config))


def test_sparse_table_of_a_route(tmp_path: Path, compile_here: CompileHere) -> None:
    """Inference-free SPLADE: refused by name, and what the error says to do works."""
    source, folder = tmp_path / "source", tmp_path / "model"
    source.mkdir()
    tiny_splade(source)
    documents = [
        Transformer(str(source), transformer_task="fill-mask"),
        SpladePooling("max", activation_function="log1p_relu"),
    ]
    queries = SparseStaticEmbedding(AutoTokenizer.from_pretrained(source))
    routes = Router.for_query_document([queries], documents)
    model = SparseEncoder(modules=[routes], device="cpu")
    model.save_pretrained(str(folder))
    with pytest.raises(UnsupportedModel) as caught:
        st_files.read(folder)
    assert str(caught.value) == (
        "router_config.json: route 'query' is a SparseStaticEmbedding module, a table of one "
        "weight a token, which poolc does not compile: to compile route 'document' alone, copy "
        "the folder and list in modules.json, instead of the Router, document_0_Transformer and "
        "document_1_SpladePooling; weights of tokens need no model: they are in "
        "query_0_SparseStaticEmbedding"
    )
    parts = ("Transformer", "document_0_Transformer"), ("SpladePooling", "document_1_SpladePooling")
    write_modules(folder, *parts)
    expected = model.encode_document(TEXTS, convert_to_sparse_tensor=False).numpy()
    found = np.zeros_like(expected)
    vectors = Engine(compile_here(folder)).embed_sparse(TEXTS, truncate=True)
    for row, sparse in zip(found, vectors, strict=True):
        row[sparse.indices] = sparse.values
    assert np.abs(found - expected).max() <= 1e-5 * max(1.0, np.abs(expected).max())
