"""Finding a model on disk, and making its folder safe and overridden before anything reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from poolc.api import make_options
from poolc.compiler import source
from poolc.compiler.events import Progress
from poolc.compiler.json_files import read_json
from poolc.compiler.source import SourceModel, fetch, fetch_tokenizer, materialize, merge
from poolc.errors import (
    CorruptWeights,
    InvalidOption,
    ModelNotFound,
    TokenizerError,
    UnsafeWeights,
    UnsupportedModel,
)
from poolc.model_cache.store import Store
from tests.compiler.folders import add_dense, encoder, sentence_transformer
from tests.models import HIDDEN, wordpiece, write_json, write_modules

WEIGHTS = "model.safetensors"
PICKLE = "pytorch_model.bin"


def to_pickle(folder: Path, **extra: Any) -> dict[str, torch.Tensor]:
    """Put the weights, and what else is given, into a pickle instead of safetensors."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    torch.save({**tensors, **extra}, folder / PICKLE)
    return tensors


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


class Prepared:
    """A materialised folder, and what was said on the way."""

    def __init__(self, folder: Path, work: Path, **options: Any) -> None:
        self.progress = Progress(lambda event: None)
        found = SourceModel(folder, folder.name, None, {})
        self.folder = materialize(found, None, make_options(**options), work, self.progress)


# Finding.


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent/folder/model", "there is no folder .*absent/folder/model, nor is it a hub id"),
        ("file", "file is a file; give a model folder or a hub id"),
        ("empty", "empty holds neither config.json nor modules.json: give a Hugging Face or"),
    ],
)
def test_fetch_nothing(name: str, message: str, tmp_path: Path, store: Store) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelNotFound, match=message):
        fetch(str(tmp_path / name), make_options(), store, Progress(lambda event: None))


def test_fetch_folder(tmp_path: Path, store: Store) -> None:
    folder = encoder(tmp_path / "model")
    found = fetch(str(folder), make_options(), store, Progress(lambda event: None))
    assert (found.folder, found.id, found.revision) == (folder, "model", None)
    assert set(found.files) == {"config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json"}
    assert found.identity() == {"name": "model", "files": found.files}


def test_fetch_tokenizer_needs_no_model(tmp_path: Path, store: Store) -> None:
    (tmp_path / "words").mkdir()
    wordpiece(tmp_path / "words")
    found = fetch_tokenizer(str(tmp_path / "words"), store, Progress(lambda event: None))
    assert (found.id, found.revision) == ("words", None)
    assert "tokenizer.json" in found.files


def test_fetch_tokenizer_of_a_folder_without(tmp_path: Path, store: Store) -> None:
    with pytest.raises(TokenizerError, match=r"holds no tokenizer: none of tokenizer\.json"):
        fetch_tokenizer(str(tmp_path), store, Progress(lambda event: None))


# As it is, and mirrored.


def test_materialize_leaves_a_folder_alone(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "model")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert Prepared(folder, tmp_path / "work").folder == folder
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert not (tmp_path / "work").exists()


def test_materialize_overrides_a_copy(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "model", id2label={0: "a", 1: "b"}, label2id={"a": 0, "b": 1})
    before = (folder / "config.json").read_bytes()
    overrides = {"id2label": {"1": "c"}, "hidden_act": "relu", "matryoshka_dimensions": [1, 2]}
    mirror = Prepared(folder, tmp_path / "work", hf_overrides=overrides).folder
    assert (folder / "config.json").read_bytes() == before
    config = read_json(mirror / "config.json")
    assert config["id2label"] == {"0": "a", "1": "c"}
    assert (config["hidden_act"], config["matryoshka_dimensions"]) == ("relu", [1, 2])
    assert config["hidden_size"] == HIDDEN
    assert (mirror / WEIGHTS).resolve() == folder / WEIGHTS


def test_materialize_overrides_without_config(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    write_modules(tmp_path / "model", ("Transformer", ""))
    with pytest.raises(InvalidOption, match=r"hf_overrides needs a config\.json"):
        Prepared(tmp_path / "model", tmp_path / "work", hf_overrides={"a": 1})


def test_materialize_replaces_the_tokenizer(tmp_path: Path, store: Store) -> None:
    folder, other = encoder(tmp_path / "model"), tmp_path / "words"
    other.mkdir()
    wordpiece(other)
    (other / "tokenizer_config.json").unlink()
    progress, options = Progress(lambda event: None), make_options(tokenizer=str(other))
    found = fetch(str(folder), options, store, progress)
    words = fetch_tokenizer(str(other), store, progress)
    mirror = materialize(found, words, options, tmp_path / "work", progress)
    assert (mirror / "tokenizer.json").resolve() == other / "tokenizer.json"
    assert not (mirror / "tokenizer_config.json").exists()  # half of the old one would mislead
    assert (mirror / "config.json").resolve() == folder / "config.json"


@pytest.mark.parametrize(
    ("base", "override", "merged"),
    [
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        (
            {"a": {"b": 1, "c": {"d": 2}}},
            {"a": {"c": {"e": 3}}},
            {"a": {"b": 1, "c": {"d": 2, "e": 3}}},
        ),
        ({"a": {"b": 1}}, {"a": None}, {"a": None}),
        ({"a": 1}, {"a": {"b": 2}}, {"a": {"b": 2}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
    ],
)
def test_merge(base: Any, override: Any, merged: Any) -> None:
    before = json.dumps(base)
    assert merge(base, override) == merged
    assert json.dumps(base) == before


# Adapters.


@pytest.mark.parametrize(
    "kept",
    [
        {"config.json", WEIGHTS, "modules.json"},  # an adapter on a whole model
        {"modules.json"},  # what Sentence Transformers saves of a model with an adapter
        {"config.json"},
        set[str](),  # what PEFT saves
    ],
)
def test_adapters_are_not_ignored(kept: set[str], tmp_path: Path, store: Store) -> None:
    folder = sentence_transformer(tmp_path / "model")
    for name in {"config.json", WEIGHTS, "modules.json"} - kept:
        (folder / name).unlink()
    settings = {"peft_type": "LORA", "base_model_name_or_path": "google-bert/bert-base-uncased"}
    write_json(folder / "adapter_config.json", settings)
    save_file({"lora_A": torch.zeros(2, 2)}, folder / "adapter_model.safetensors")
    progress = Progress(lambda event: None)
    found = fetch(str(folder), make_options(), store, progress)
    with pytest.raises(UnsupportedModel) as caught:
        materialize(found, None, make_options(), tmp_path / "work", progress)
    assert str(caught.value) == (
        "model/adapter_config.json: an adapter (LORA) of google-bert/bert-base-uncased, which "
        "poolc does not put on its weights: load it with PEFT, merge it (merge_and_unload), save "
        "the whole model and its tokenizer into another folder, and compile that"
    )


def test_adapters_beside_a_trunk_in_a_folder_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    encoder(folder / "0_Transformer")
    write_modules(folder, ("Transformer", "0_Transformer"))
    write_json(folder / "0_Transformer" / "adapter_config.json", {})
    with pytest.raises(UnsupportedModel, match=r"^0_Transformer/adapter_config.json: an adapter "):
        Prepared(folder, tmp_path / "work")


# Safetensors.


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage" * 10, b"version https://git-lfs.github.com/spec/v1\n", None],
    ids=["empty", "garbage", "pointer", "truncated"],
)
@pytest.mark.parametrize("where", ["", "2_Dense/"])
def test_materialize_corrupt_safetensors(content: bytes | None, where: str, tmp_path: Path) -> None:
    folder = sentence_transformer(tmp_path / "model")
    add_dense(folder, "2_Dense", (HIDDEN, 8))
    write_modules(folder, ("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2_Dense"))
    path = folder / where / WEIGHTS
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(CorruptWeights, match=f"^{where}{WEIGHTS} is not valid safetensors"):
        Prepared(folder, tmp_path / "work")


def test_materialize_header_that_lies(tmp_path: Path) -> None:
    """A header that promises more bytes than there are, and one that is not JSON."""
    folder = encoder(tmp_path / "model")
    for header in (b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}', b"{nonsense"):
        (folder / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header)
        with pytest.raises(CorruptWeights, match=f"{WEIGHTS} is not valid safetensors"):
            Prepared(folder, tmp_path / "work")


def test_materialize_ignores_other_runtimes(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "model")
    for name in ("onnx", "openvino"):
        (folder / name).mkdir()
        (folder / name / WEIGHTS).write_bytes(b"garbage")
    assert Prepared(folder, tmp_path / "work").folder == folder


# Pickles.


def test_materialize_converts_a_pickle(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "model")
    tensors = to_pickle(folder)
    prepared = Prepared(folder, tmp_path / "work")
    assert prepared.progress.warnings == [
        f"{PICKLE} is a pickle: reading it with torch's weights-only loader"
    ]
    converted = load_file(prepared.folder / WEIGHTS)
    assert converted.keys() == tensors.keys()
    assert all(torch.equal(converted[name], value) for name, value in tensors.items())
    assert not (prepared.folder / PICKLE).exists()
    assert sorted(path.name for path in folder.iterdir() if "model" in path.name) == [PICKLE]


def test_materialize_converts_shards_and_tied_weights(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "model")
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(tensors)
    first = {name: tensors[name] for name in names[:10]}
    torch.save({**first, "tied": first[names[0]]}, folder / "pytorch_model-00001-of-00002.bin")
    rest = {name: tensors[name] for name in names[10:]}
    torch.save(rest, folder / "pytorch_model-00002-of-00002.bin")
    write_json(folder / "pytorch_model.bin.index.json", {"weight_map": {}})
    mirror = Prepared(folder, tmp_path / "work").folder
    assert load_file(mirror / WEIGHTS).keys() == {*names, "tied"}
    assert not (mirror / "pytorch_model.bin.index.json").exists()


def test_materialize_prefers_safetensors_to_a_pickle(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "model")
    torch.save({"evil": Malicious(tmp_path / "ran")}, folder / PICKLE)
    torch.save({"evil": Malicious(tmp_path / "ran")}, folder / "training_args.bin")
    prepared = Prepared(folder, tmp_path / "work")
    assert (prepared.folder, prepared.progress.warnings) == (folder, [])
    assert not (tmp_path / "ran").exists()


def test_materialize_converts_a_pickle_beside_other_safetensors(tmp_path: Path) -> None:
    """Sentence Transformers reads it too: what lies beside it is not the model's weights."""
    folder = sentence_transformer(tmp_path / "model")
    expected = SentenceTransformer(str(folder), device="cpu").encode(["a river"])
    tensors = to_pickle(folder)
    save_file({"weight": torch.zeros(2, 2)}, folder / "colbert_linear.safetensors")
    mirror = Prepared(folder, tmp_path / "work").folder
    assert load_file(mirror / WEIGHTS).keys() == tensors.keys()
    for read in (folder, mirror):
        found = SentenceTransformer(str(read), device="cpu").encode(["a river"])
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_materialize_converts_a_pickled_dense(tmp_path: Path) -> None:
    folder = sentence_transformer(tmp_path / "model")
    dense = add_dense(folder, "2_Dense", (HIDDEN, 8))
    write_modules(folder, ("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2_Dense"))
    (folder / "2_Dense" / WEIGHTS).unlink()
    torch.save(dense.state_dict(), folder / "2_Dense" / PICKLE)
    mirror = Prepared(folder, tmp_path / "work").folder
    converted = load_file(mirror / "2_Dense" / WEIGHTS)
    assert torch.equal(converted["linear.weight"], dense.linear.weight)
    assert (mirror / WEIGHTS).resolve() == folder / WEIGHTS


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before torch 1.6"])
def test_materialize_refuses_more_than_tensors(legacy: bool, tmp_path: Path) -> None:
    folder, marker = encoder(tmp_path / "model"), tmp_path / "ran"
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    content = {**tensors, "evil": Malicious(marker)}
    torch.save(content, folder / PICKLE, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UnsafeWeights) as caught:
        Prepared(folder, tmp_path / "refused")
    assert str(caught.value) == (
        f"{PICKLE} holds more than tensors, and unpickling it can run any code; torch's "
        "weights-only loader refused it. Convert it to safetensors, or pass --allow-pickle "
        "(allow_pickle=True) if you trust where it came from"
    )
    assert not marker.exists()
    trusted = Prepared(folder, tmp_path / "trusted", allow_pickle=True)
    assert marker.exists()
    assert trusted.progress.warnings[-1] == (
        f"{PICKLE} is unpickled in full, as --allow-pickle allows"
    )
    assert load_file(trusted.folder / WEIGHTS).keys() == tensors.keys()


@pytest.mark.parametrize("allow", [False, True])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is not a file that torch saved \(a Git LFS pointer\?\)"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is not a file that torch saved"),
        (None, "cannot be read: "),
    ],
    ids=["empty", "pointer", "truncated"],
)
def test_materialize_corrupt_pickle(
    content: bytes | None, message: str, allow: bool, tmp_path: Path
) -> None:
    folder = encoder(tmp_path / "model")
    to_pickle(folder)
    whole = (folder / PICKLE).read_bytes()
    (folder / PICKLE).write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(CorruptWeights, match=f"^{PICKLE} {message}"):
        Prepared(folder, tmp_path / "work", allow_pickle=allow)


def test_materialize_pickle_of_a_class_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = encoder(tmp_path / "model")
    monkeypatch.setattr(source, "Vanishing", type("Vanishing", (), {}), raising=False)
    kind = source.__dict__["Vanishing"]
    kind.__module__ = source.__name__
    to_pickle(folder, extra=kind())
    monkeypatch.delattr(source, "Vanishing")
    with pytest.raises(CorruptWeights, match=f"{PICKLE} cannot be unpickled: .*Vanishing"):
        Prepared(folder, tmp_path / "work", allow_pickle=True)


def test_materialize_pickle_of_a_list(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "model")
    (folder / WEIGHTS).unlink()
    torch.save([torch.zeros(2)], folder / PICKLE)
    with pytest.raises(CorruptWeights, match="holds a list, not a state dict"):
        Prepared(folder, tmp_path / "work")


def test_materialize_sharded_safetensors_stay(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "model")
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    save_file(tensors, folder / "model-00001-of-00001.safetensors", metadata={"format": "pt"})
    index = {"weight_map": dict.fromkeys(tensors, "model-00001-of-00001.safetensors")}
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, **index})
    assert Prepared(folder, tmp_path / "work").folder == folder
