"""Static models and Sentence Transformers' newer modules, as the libraries save them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import (
    Dense,
    Normalize,
    Pooling,
    Router,
    StaticEmbedding,
    Transformer,
)
from tokenizers import Tokenizer
from torch import nn

from tests.compiler.folders import encoder
from tests.models import HIDDEN, wordpiece, write_json

PROMPTS = {"query": "find: ", "document": "title: "}


def saved(folder: Path, *modules: nn.Module, **options: Any) -> Path:
    """Save a model of these modules with the installed Sentence Transformers."""
    model = SentenceTransformer(modules=list(modules), device="cpu", **options)
    model.save_pretrained(str(folder), create_model_card=False)
    return folder


def library(folder: Path) -> Any:
    return SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def table(folder: Path, size: int = HIDDEN) -> tuple[Tokenizer, np.ndarray]:
    """A tokenizer and one vector a token."""
    folder.mkdir(parents=True, exist_ok=True)
    wordpiece(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    rng = np.random.default_rng(0)
    return tokenizer, rng.standard_normal((tokenizer.get_vocab_size(), size), np.float32)


def dense(sizes: tuple[int, int], **options: Any) -> Dense:
    torch.manual_seed(sum(sizes))
    return Dense(*sizes, **options)


def model2vec_folder(folder: Path, **config: Any) -> Path:
    """A folder without modules.json, as model2vec's older versions leave it."""
    _, vectors = table(folder)
    (folder / "tokenizer_config.json").unlink()
    rng = np.random.default_rng(1)
    mapping = rng.integers(0, 50, len(vectors))
    weights = rng.random(len(vectors)).astype(np.float32)
    tensors = {"embeddings": vectors[:50].copy(), "mapping": mapping, "weights": weights}
    save_file(tensors, folder / "model.safetensors")
    write_json(folder / "config.json", {"model_type": "model2vec", "normalize": True, **config})
    return folder


def model2vec_vectors(texts: list[str], folder: Path, limit: int) -> np.ndarray:
    """StaticModel.encode of model2vec 0.10: characters, tokens, unknown ones out, mean, length."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tensors = load_file(folder / "model.safetensors")
    rows = tensors["embeddings"][tensors["mapping"]] * tensors["weights"][:, None]
    most = limit * int(np.median([len(token) for token in tokenizer.get_vocab()]))
    unknown = tokenizer.token_to_id("[UNK]")
    out = np.zeros((len(texts), rows.shape[1]), np.float32)
    for i, text in enumerate(texts):
        ids = tokenizer.encode(text[:most], add_special_tokens=False).ids[:limit]
        kept = [token for token in ids if token != unknown]
        if kept:
            out[i] = rows[kept].mean(axis=0)
    lengths: np.ndarray = np.linalg.norm(out, axis=1, keepdims=True) + 1e-32
    unit: np.ndarray = out / lengths
    return unit


def static_embedding(root: Path) -> Path:
    """A table of 40 tokens a text, with a Dense module behind it."""
    tokenizer, vectors = table(root / "words")
    tokenizer.enable_truncation(40)
    static = StaticEmbedding(tokenizer, embedding_weights=vectors)
    return saved(root / "model", static, dense((HIDDEN, 8)), Normalize(), prompts=PROMPTS)


def shared_router(root: Path) -> Path:
    """Routes of queries and documents behind one encoder."""
    shared = Transformer(str(encoder(root / "bert")))
    router = Router.for_query_document([dense((HIDDEN, 8)), Normalize()], [dense((HIDDEN, 8))])
    return saved(root / "model", shared, Pooling(HIDDEN), router, prompts=PROMPTS)


def whole_router(root: Path) -> Path:
    """A table for queries, an encoder for documents, and no default."""
    tokenizer, vectors = table(root / "words")
    static = StaticEmbedding(tokenizer, embedding_weights=vectors)
    deep = [Transformer(str(encoder(root / "bert"))), Pooling(HIDDEN, pooling_mode="cls")]
    routes = Router({"query": [static], "document": deep}, allow_empty_key=False)
    return saved(root / "model", routes, Normalize())
