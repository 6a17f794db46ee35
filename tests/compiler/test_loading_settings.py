"""Settings that a folder gives to the Auto classes, against the library that loads it with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import CrossEncoder, SentenceTransformer, SparseEncoder
from sentence_transformers.sentence_transformer.modules import Transformer

from poolc.compiler import recognize, st_files
from poolc.compiler.st_files import SentenceTransformer as StFiles
from poolc.compiler.tokenizer import load_tokenizer, tokenizer_json
from poolc.errors import ParityError, TokenizerError, UnsupportedModel
from poolc.runtime.engine import Engine
from poolc.runtime.tokenize import Limits, TextTokenizer
from tests.compiler.conftest import CompileHere, Recognise
from tests.compiler.folders import TEXTS, edit_json, roberta, sentence_transformer
from tests.compiler.test_parity import assert_close
from tests.models import (
    MAX_LENGTH,
    tiny_cross_encoder,
    tiny_splade,
    write_json,
    write_modules,
    write_pooling,
)

FILE = "sentence_bert_config.json"
CASES = [*TEXTS, "The QUICK Brown FOX", "RIVER IN THE SUN"]


def byte_level(folder: Path) -> Path:
    roberta(folder)
    write_modules(folder, ("Transformer", ""), ("Pooling", "1_Pooling"))
    write_pooling(folder, "mean_tokens")
    return folder


def llama_tokenizer(folder: Path) -> Path:
    byte_level(folder)
    edit_json(folder / "tokenizer_config.json", tokenizer_class="LlamaTokenizer")
    return folder


def bert_tokenizer(folder: Path) -> Path:
    sentence_transformer(folder)
    edit_json(folder / "tokenizer_config.json", tokenizer_class="BertTokenizer")
    return folder


def ids_by_the_library(folder: Path, texts: list[str]) -> list[list[int]]:
    transformer = SentenceTransformer(str(folder), device="cpu", local_files_only=True)[0]
    assert isinstance(transformer, Transformer)
    return [transformer.preprocess([text])["input_ids"][0].tolist() for text in texts]


def ids_by_the_runtime(folder: Path, texts: list[str], max_length: int) -> list[list[int]]:
    tokenizer = load_tokenizer(folder, st_files.read(folder), trust_remote_code=False)
    path = folder.with_name("artifact.json")
    path.write_text(tokenizer_json(tokenizer), encoding="utf-8")
    side = tokenizer.truncation_side
    limits = Limits(max_length, 10_000, has_type_ids=False, truncation_side=side)
    ours = TextTokenizer(path, limits)
    return [one.ids.tolist() for one in ours.encode(texts, truncate=True)]


@pytest.mark.parametrize(
    ("build", "settings"),
    [
        (sentence_transformer, {"tokenizer_args": {"model_max_length": 20}}),
        (sentence_transformer, {"processor_kwargs": {"model_max_length": 20, "x": 1}}),
        (
            sentence_transformer,
            {"max_seq_length": 20, "processor_kwargs": {"truncation_side": "left"}},
        ),
        # Both names: the library follows the older one.
        (
            sentence_transformer,
            {"tokenizer_args": {"model_max_length": 9}, "processor_kwargs": {"truncation_side": 1}},
        ),
        (
            sentence_transformer,
            {"processor_kwargs": {"cls_token": "the", "token": False, "revision": "x"}},
        ),
        (bert_tokenizer, {"processor_kwargs": {"do_lower_case": False}}),
        (llama_tokenizer, {"processor_kwargs": {"add_eos_token": True}}),
        (
            sentence_transformer,
            {"processing_kwargs": {"common": {"max_length": 12}, "text": {"max_length": 9}}},
        ),
    ],
)
def test_processor_kwargs(
    build: Callable[[Path], Path],
    settings: dict[str, Any],
    tmp_path: Path,
    recognise: Recognise,
) -> None:
    folder = build(tmp_path / "model")
    write_json(folder / FILE, settings)
    max_length = recognise(folder).spec.max_length
    expected = ids_by_the_library(folder, CASES)
    assert ids_by_the_runtime(folder, CASES, max_length) == expected
    assert max_length == max(map(len, expected))


def test_origins_name_the_file_and_the_key(tmp_path: Path, recognise: Recognise) -> None:
    folder = sentence_transformer(tmp_path / "model")
    given = {"model_max_length": 20, "truncation_side": "left"}
    write_json(folder / FILE, {"max_seq_length": 40, "tokenizer_args": given})
    spec = recognise(folder).spec
    assert (spec.max_length, spec.truncation_side) == (20, "left")
    assert spec.origins["max_length"] == f"{FILE}: processor_kwargs.model_max_length"
    assert spec.origins["truncation_side"] == f"{FILE}: processor_kwargs.truncation_side"


def test_no_limit_is_none(tmp_path: Path) -> None:
    folder = sentence_transformer(tmp_path / "model")
    given = {"model_max_length": 1000000000000000019884624838656}
    write_json(folder / FILE, {"max_seq_length": 40, "processor_kwargs": given})
    read = st_files.read(folder)
    assert read is not None
    assert read.max_length is None


def test_embedding_settings_reach_the_vectors(tmp_path: Path, compile_here: CompileHere) -> None:
    folder = sentence_transformer(tmp_path / "model")
    plain = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    write_json(
        folder / FILE,
        {
            "config_kwargs": {"hidden_act": "relu"},
            "tokenizer_args": {"model_max_length": 24, "truncation_side": "left"},
            "model_args": {"torch_dtype": "float32", "attn_implementation": "sdpa"},
        },
    )
    engine = Engine(compile_here(folder))
    expected = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    assert np.abs(plain - expected).max() > 1e-2
    assert_close(engine.embed(TEXTS, truncate=True), expected)


def test_cross_encoder_settings_reach_the_scores(tmp_path: Path, compile_here: CompileHere) -> None:
    plain, folder = tmp_path / "plain", tmp_path / "model"
    plain.mkdir()
    tiny_cross_encoder(plain)
    CrossEncoder(str(plain), device="cpu").save_pretrained(str(folder))
    settings = {"hidden_act": "relu", "num_hidden_layers": 1}
    edit_json(folder / FILE, config_kwargs=settings, processor_kwargs={"model_max_length": 16})
    engine, model = Engine(compile_here(folder)), CrossEncoder(str(folder), device="cpu")
    found = engine.score(TEXTS[0], TEXTS, truncate=True)
    assert_close(found, model.predict([(TEXTS[0], text) for text in TEXTS]))


def test_sparse_settings_reach_the_weights(tmp_path: Path, compile_here: CompileHere) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    tiny_splade(folder)
    edit_json(folder / FILE, config_args={"hidden_act": "relu"})
    engine, model = Engine(compile_here(folder)), SparseEncoder(str(folder), device="cpu")
    expected = model.encode(TEXTS, convert_to_sparse_tensor=False).numpy()
    found = np.zeros_like(expected)
    for row, sparse in zip(found, engine.embed_sparse(TEXTS, truncate=True), strict=True):
        row[sparse.indices] = sparse.values
    assert_close(found, expected)


def test_overrides_beat_the_folder(tmp_path: Path, compile_here: CompileHere) -> None:
    folder = sentence_transformer(tmp_path / "model")
    write_json(folder / FILE, {"config_kwargs": {"hidden_act": "relu"}})
    engine = Engine(compile_here(folder, hf_overrides={"hidden_act": "gelu"}))
    write_json(folder / FILE, {})
    expected = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    assert_close(engine.embed(TEXTS, truncate=True), expected)


def test_gate_sees_a_setting_that_was_not_followed(
    tmp_path: Path, compile_here: CompileHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = bert_tokenizer(tmp_path / "model")
    write_json(folder / FILE, {"processor_kwargs": {"do_lower_case": False}})

    def forgetful(place: Path, st: StFiles | None, *, trust_remote_code: bool) -> Any:
        forgotten = st and replace(st, bert=replace(st.bert, processor_kwargs={}))
        return load_tokenizer(place, forgotten, trust_remote_code=trust_remote_code)

    monkeypatch.setattr(recognize, "load_tokenizer", forgetful)
    with pytest.raises(ParityError, match="the tokenizer differs from"):
        compile_here(folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_args": {"variant": "fp16"}}, "model_kwargs.variant is 'fp16', which poolc does"),
        ({"config_kwargs": [1]}, r"config_kwargs is \[1\]; it must be an object"),
        ({"processor_kwargs": {"model_max_length": 0}}, "processor_kwargs.model_max_length is 0"),
        ({"tokenizer_name_or_path": "x"}, "tokenizer_name_or_path is 'x'; poolc reads"),
    ],
)
def test_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = sentence_transformer(tmp_path / "model")
    write_json(folder / FILE, settings)
    with pytest.raises(UnsupportedModel, match=f"{FILE}: {message}"):
        st_files.read(folder)


def test_error_of_a_tokenizer_names_its_settings(tmp_path: Path) -> None:
    folder = sentence_transformer(tmp_path / "model")
    write_json(folder / FILE, {"processor_kwargs": {"truncation_side": "up"}})
    with pytest.raises(TokenizerError, match=f"with {FILE}: processor_kwargs: Truncation side"):
        load_tokenizer(folder, st_files.read(folder), trust_remote_code=False)


def test_lower_case_leaves_a_tokenizer_that_does_it(tmp_path: Path) -> None:
    """What stands before its own step still sees capitals."""
    folder = sentence_transformer(tmp_path / "model")
    path = folder / "tokenizer.json"
    replaces = {"type": "Replace", "pattern": {"String": "I"}, "content": "u"}
    steps = [replaces, {"type": "Lowercase"}]
    content = json.loads(path.read_text())
    content["normalizer"] = {"type": "Sequence", "normalizers": steps}
    write_json(path, content)
    write_json(folder / FILE, {"max_seq_length": MAX_LENGTH, "do_lower_case": True})
    expected = ids_by_the_library(folder, CASES)
    assert ids_by_the_runtime(folder, CASES, MAX_LENGTH) == expected
