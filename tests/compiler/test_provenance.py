"""What makes another vector space, what does not, and what the manifest says of the source."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from poolc.api import make_options
from poolc.compiler.events import Progress
from poolc.compiler.provenance import source_record, space_id
from poolc.compiler.recognize import recognize
from poolc.compiler.source import fetch, fetch_tokenizer, materialize
from poolc.model_cache.store import Store
from tests.compiler.folders import add_dense, add_modules, edit_json, sentence_transformer
from tests.models import HIDDEN, write_json, write_pooling

ST_FILE = "config_sentence_transformers.json"
Space = Callable[..., str]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = sentence_transformer(tmp_path_factory.mktemp("space") / "original")
    write_json(folder / ST_FILE, {"prompts": {"query": "query: "}})
    return folder


@pytest.fixture
def model(original: Path, tmp_path: Path) -> Path:
    """A copy to change, of another name."""
    return Path(shutil.copytree(original, tmp_path / "copy"))


@pytest.fixture
def space(tmp_path: Path, store: Store) -> Space:
    """Compute a folder's space with compile options, as the pipeline does."""
    numbers = iter(range(100))

    def run(folder: Path, **options: Any) -> str:
        chosen, progress = make_options(**options), Progress(lambda event: None)
        found = fetch(str(folder), chosen, store, progress)
        name = chosen.tokenizer
        other = fetch_tokenizer(name, store, progress) if name is not None else None
        read = materialize(found, other, chosen, tmp_path / f"work{next(numbers)}", progress)
        recognized, _ = recognize(read, chosen, progress.warn)
        files = source_record(found, other, recognized.transformer).files
        return space_id(read, recognized, files)

    return run


@pytest.mark.parametrize(
    "options",
    [
        {"keep_canonical": True},
        {"convert": "embed"},
        {"hf_overrides": {"is_matryoshka": True}},
        {"hf_overrides": {"matryoshka_dimensions": [8]}, "pooler_config": {"dimensions": 8}},
        {"hf_overrides": {"transformers_version": "9.9", "dtype": "float16", "use_cache": False}},
        {"pooler_config": {"pooling_type": "MEAN"}},
        {"max_length": 64},
        {"allow_pickle": True},
    ],
)
def test_space_stays(options: dict[str, Any], original: Path, space: Space) -> None:
    assert space(original, **options) == space(original)


@pytest.mark.parametrize(
    "options",
    [
        {"pooler_config": {"pooling_type": "CLS"}},
        {"pooler_config": {"normalize": True}},
        {"max_length": 32},
        {"hf_overrides": {"hidden_act": "relu"}},
        {"hf_overrides": {"layer_norm_eps": 1e-5}},
        {"hf_overrides": {"num_attention_heads": 2}},
    ],
)
def test_space_of_other_options(options: dict[str, Any], original: Path, space: Space) -> None:
    assert space(original, **options) != space(original)


def test_space_is_not_of_a_name_or_a_place(original: Path, model: Path, space: Space) -> None:
    write_json(model / "generation_config.json", {})
    (model / "README.md").write_text("another page")
    edit_json(model / ST_FILE, default_prompt_name="query")
    assert space(model) == space(original)


def _weights(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["encoder.layer.0.output.dense.bias"][0] += 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _tokenizer(folder: Path) -> None:
    words = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(words.replace('"lowercase": true', '"lowercase": false'))


def _pooling(folder: Path) -> None:
    write_pooling(folder, "max_tokens")


def _dense(folder: Path) -> None:
    add_dense(folder, "2_Dense", (HIDDEN, 8))
    add_modules(folder, ("Dense", "2_Dense"))


def _normalize(folder: Path) -> None:
    add_modules(folder, ("Normalize", "2_Normalize"))


def _prompts(folder: Path) -> None:
    write_json(folder / ST_FILE, {"prompts": {"query": "q: "}})


def _lower_case(folder: Path) -> None:
    write_json(folder / "sentence_bert_config.json", {"do_lower_case": True})


def _similarity(folder: Path) -> None:
    edit_json(folder / ST_FILE, similarity_fn_name="dot")


@pytest.mark.parametrize(
    "change",
    [_weights, _tokenizer, _pooling, _dense, _normalize, _prompts, _lower_case, _similarity],
)
def test_space_of_another_model(
    change: Callable[[Path], None], original: Path, model: Path, space: Space
) -> None:
    change(model)
    assert space(model) != space(original)


def test_space_of_another_tokenizer(original: Path, model: Path, space: Space) -> None:
    own = space(original)
    assert space(original, tokenizer=str(model)) == own  # a copy of the same
    _tokenizer(model)
    assert space(original, tokenizer=str(model)) != own


def test_source_record_of_another_tokenizer(original: Path, model: Path, store: Store) -> None:
    progress = Progress(lambda event: None)
    _tokenizer(model)
    (model / "tokenizer_config.json").unlink()
    found = fetch(str(original), make_options(), store, progress)
    other = fetch_tokenizer(str(model), store, progress)
    files = source_record(found, other, "").files
    assert files["tokenizer.json"] == other.files["tokenizer.json"] != found.files["tokenizer.json"]
    assert "tokenizer_config.json" not in files
    assert files["model.safetensors"] == found.files["model.safetensors"]
    assert source_record(found, other, "0_T").files["0_T/tokenizer.json"] == files["tokenizer.json"]
    assert source_record(found, None, "").files == found.files
