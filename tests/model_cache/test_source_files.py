"""Digests of source model folders: what counts, and what is hashed again."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from poolc.errors import ModelError, ModelNotFound
from poolc.model_cache import source_files, stamps
from poolc.model_cache.source_files import source_digest
from poolc.model_cache.stamps import Hashed
from poolc.model_cache.store import Store

from .fakes import next_tick, write_files

COUNTED = [
    "config.json",
    "model.safetensors",
    "1_Pooling/config.json",
    "modeling_x.py",
    "vocab.txt",
]
SKIPPED = [
    *("README.md", "readme.txt", "card.MD", "figure.png", "logo.SVG", ".gitattributes"),
    *(".git/config", ".cache/x", "onnx/model.onnx", "openvino/model.bin", "a/onnx/config.json"),
    *("tf_model.h5", "flax_model.msgpack", "rust_model.ot", "model.gguf", "__pycache__/x.pyc"),
    *("pytorch_model.bin", "model.pt", "training_args.bin"),
]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    write_files(folder, {name: name.encode() for name in COUNTED + SKIPPED})
    return folder


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    original = stamps.hash_file

    def spy(path: Path) -> Hashed:
        names.append(path.name)
        return original(path)

    monkeypatch.setattr(source_files, "hash_file", spy)
    return names


def test_digest_of_what_matters(model: Path) -> None:
    digest = source_digest(model)
    assert list(digest) == sorted(COUNTED)
    assert digest["vocab.txt"] == hashlib.sha256(b"vocab.txt").hexdigest()


def test_pickles_count_where_no_safetensors_lie(model: Path) -> None:
    (model / "model.safetensors").unlink()
    write_files(model, {"2_Dense/pytorch_model.bin": b"x", "3/w.pt": b"x", "3/w.safetensors": b"x"})
    digest = source_digest(model)
    assert digest.keys() >= {"pytorch_model.bin", "model.pt", "2_Dense/pytorch_model.bin"}
    assert "3/w.pt" not in digest


def test_pickles_count_beside_safetensors_of_something_else(model: Path) -> None:
    (model / "model.safetensors").unlink()
    write_files(model, {"adapter_model.safetensors": b"x", "adapter_model.bin": b"x"})
    digest = source_digest(model)
    assert digest.keys() >= {"pytorch_model.bin", "adapter_model.safetensors"}
    assert "adapter_model.bin" not in digest
    write_files(model, {"model.safetensors.index.json": b"{}"})
    assert "pytorch_model.bin" not in source_digest(model)


def test_pickled_heads_count_beside_safetensors(model: Path) -> None:
    write_files(model, {"colbert_linear.pt": b"x", "sparse_linear.pt": b"x"})
    assert source_digest(model).keys() >= {"colbert_linear.pt", "sparse_linear.pt"}


def test_links_are_followed(model: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for name in ("config.json", "model.safetensors"):
        (snapshot / name).symlink_to(model / name)
    (snapshot / "1_Pooling").symlink_to(model / "1_Pooling")
    (snapshot / "loop").symlink_to(snapshot)
    whole = source_digest(model)
    digest = source_digest(snapshot)
    assert list(digest) == ["1_Pooling/config.json", "config.json", "model.safetensors"]
    assert digest.items() <= whole.items()


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound):
        source_digest(tmp_path / "missing")


def test_dangling_link_is_named(model: Path) -> None:
    (model / "more.json").symlink_to("nowhere")
    with pytest.raises(ModelError, match=r"more\.json"):
        source_digest(model)


@pytest.mark.usefixtures("settled")
def test_second_digest_hashes_nothing(model: Path, store: Store, hashed: list[str]) -> None:
    first = store.source_digest(model)
    assert len(hashed) == len(COUNTED)
    hashed.clear()
    assert store.source_digest(model) == first
    assert hashed == []


@pytest.mark.usefixtures("settled")
def test_changed_file_is_hashed_again(model: Path, store: Store, hashed: list[str]) -> None:
    first = store.source_digest(model)
    hashed.clear()
    path = model / "vocab.txt"
    before = path.stat()
    next_tick(model.parent)
    path.write_bytes(b"VOCAB.txt")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    second = store.source_digest(model)
    assert hashed == ["vocab.txt"]
    assert second == first | {"vocab.txt": hashlib.sha256(b"VOCAB.txt").hexdigest()}


@pytest.mark.usefixtures("settled")
def test_added_and_removed_files_are_noticed(model: Path, store: Store, hashed: list[str]) -> None:
    store.source_digest(model)
    hashed.clear()
    (model / "vocab.txt").unlink()
    (model / "merges.txt").write_text("x")
    assert sorted(store.source_digest(model)) == sorted({*COUNTED, "merges.txt"} - {"vocab.txt"})
    assert hashed == ["merges.txt"]


@pytest.mark.usefixtures("settled")
def test_retargeted_link_is_hashed_again(model: Path, store: Store, tmp_path: Path) -> None:
    (model / "vocab.txt").unlink()
    write_files(tmp_path, {"a": b"a", "b": b"b"})
    (model / "vocab.txt").symlink_to(tmp_path / "a")
    first = store.source_digest(model)
    (model / "vocab.txt").unlink()
    (model / "vocab.txt").symlink_to(tmp_path / "b")
    assert store.source_digest(model)["vocab.txt"] != first["vocab.txt"]
