"""Static tables, and routers between modules of queries and of documents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.compiler.layout_folders import (
    library,
    model2vec_folder,
    model2vec_vectors,
    shared_router,
    static_embedding,
    whole_router,
)
from tests.matrix.checkpoints.base import Ask, Checkpoint, compared, worst
from tests.matrix.compare import TEXTS, Measured

if TYPE_CHECKING:
    from poolc.runtime.engine import Engine

_LIBRARY = "sentence-transformers"
_LIMIT = 12  # tokens of the model2vec table
_ONLY_UNKNOWN = ["\N{SNOWMAN}", "\N{SNOWMAN} a \N{SNOWMAN} river"]


def _measure_model2vec(folder: Path, engine: Engine) -> Measured:
    texts = [*TEXTS, *_ONLY_UNKNOWN]
    return compared(
        "NumPy forward from model2vec 0.10's encode",
        lambda some: engine.embed(some, truncate=True),
        texts,
        list(model2vec_vectors(texts, folder, _LIMIT)),
        longest=_LIMIT,
    )


def _plain(folder: Path, engine: Engine) -> Measured:
    return _side(library(folder).encode, lambda some: engine.embed(some, truncate=True), engine)


def _sides(folder: Path, engine: Engine) -> Measured:
    model = library(folder)
    return worst(
        _side(model.encode_query, lambda some: engine.embed_query(some, truncate=True), engine),
        _side(
            model.encode_document, lambda some: engine.embed_document(some, truncate=True), engine
        ),
    )


def _all(folder: Path, engine: Engine) -> Measured:
    return worst(_plain(folder, engine), _sides(folder, engine))


def _side(encode: Any, ask: Ask, engine: Engine) -> Measured:
    expected = [encode([text])[0] for text in TEXTS]
    return compared(_LIBRARY, ask, TEXTS, expected, longest=engine.max_length)


CHECKPOINTS = (
    Checkpoint(
        "static-embedding",
        "StaticEmbedding and a Dense module",
        "sentence-transformers/static-retrieval-mrl-en-v1",
        static_embedding,
        _all,
    ),
    Checkpoint(
        "model2vec",
        "model2vec with mapping and weights",
        "minishlab/potion-base-8M",
        lambda root: model2vec_folder(root / "model", max_length=_LIMIT),
        _measure_model2vec,
        note="the library is not among the development dependencies",
    ),
    Checkpoint(
        "router-shared",
        "Router behind a shared encoder, a Dense module a side",
        "asymmetric models of Sentence Transformers' Router",
        shared_router,
        _all,
    ),
    Checkpoint(
        "router-whole",
        "Router of whole models: a table for queries, an encoder for documents",
        "asymmetric models of Sentence Transformers' Router",
        whole_router,
        _sides,
    ),
)
