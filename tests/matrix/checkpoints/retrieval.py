"""Multi-vector models in the layouts of three libraries, and BGE-M3."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.compiler.flag_embedding import FlagEmbedding
from tests.compiler.retrieval_folders import multi_vector, stanford
from tests.matrix.checkpoints.base import Checkpoint, compared, worst
from tests.matrix.compare import PAIRS, TEXTS, Measured
from tests.models import DOCUMENT_LENGTH, MAX_LENGTH, QUERY_LENGTH, tiny_bge_m3, tiny_colbert

if TYPE_CHECKING:
    from poolc.runtime.engine import Engine

_FIXED = {"query_expansion": {"strategy": "fixed", "length": QUERY_LENGTH}}
_STANFORD = {
    "query_maxlen": QUERY_LENGTH,
    "doc_maxlen": DOCUMENT_LENGTH,
    "attend_to_mask_tokens": True,
}


def _in(write: Callable[[Path], object]) -> Callable[[Path], Path]:
    """A builder that writes into a folder of its own."""

    def build(root: Path) -> Path:
        folder = root / "model"
        folder.mkdir()
        write(folder)
        return folder

    return build


def _multi_vector(folder: Path, engine: Engine) -> Measured:
    """Compare the vectors of both sides, and scores of pairs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers import MultiVectorEncoder

        model = MultiVectorEncoder(str(folder), device="cpu", local_files_only=True)
    return worst(
        _side(model.encode_query, engine, "query"),
        _side(model.encode_document, engine, "document"),
        _scores(model, engine),
    )


def _side(encode: Any, engine: Engine, side: Any) -> Measured:
    return compared(
        "sentence-transformers MultiVectorEncoder",
        lambda texts: engine.embed_tokens(texts, side=side, truncate=True),
        TEXTS,
        [encode([text], convert_to_numpy=True)[0] for text in TEXTS],
        longest=DOCUMENT_LENGTH,
    )


def _scores(model: Any, engine: Engine) -> Measured:
    expected = [
        model.similarity_pairwise(model.encode_query([a]), model.encode_document([b]))[0]
        for a, b in PAIRS
    ]

    def ask(pairs: list[Any]) -> Any:
        left, right = (list(side) for side in zip(*pairs, strict=True))
        return engine.score(left, right, truncate=True)

    return compared("", ask, PAIRS, expected, longest=DOCUMENT_LENGTH)


def _bge_m3(folder: Path, engine: Engine) -> Measured:
    model, size = FlagEmbedding(folder), engine.spec.vocab_size
    dense, lexical, tokens = zip(*map(model, TEXTS), strict=True)
    sparse = [np.zeros(size, np.float32) for _ in lexical]
    for row, weights in zip(sparse, lexical, strict=True):
        row[[*weights]] = [*weights.values()]
    ways: list[tuple[str, Any]] = [("dense", dense), ("sparse", sparse), ("tokens", tokens)]
    parts = []
    for name, expected in ways:

        def ask(texts: list[Any], name: str = name) -> Any:
            found = getattr(engine.embed_hybrid(texts, truncate=True), name)
            return found.to_dense() if name == "sparse" else found

        reference = "transformers, heads as in FlagEmbedding"
        parts.append(compared(reference, ask, TEXTS, expected, longest=MAX_LENGTH))
    return worst(*parts)


CHECKPOINTS = (
    Checkpoint(
        "bge-m3",
        "dense, sparse and multi-vector heads",
        "BAAI/bge-m3",
        _in(tiny_bge_m3),
        _bge_m3,
    ),
    Checkpoint(
        "colbert-sentence-transformers",
        "ColBERT of Sentence Transformers",
        "models of MultiVectorEncoder",
        lambda root: multi_vector(root, trunk=_FIXED),
        _multi_vector,
    ),
    Checkpoint(
        "colbert-pylate",
        "ColBERT of PyLate",
        "lightonai/GTE-ModernColBERT-v1",
        _in(tiny_colbert),
        _multi_vector,
    ),
    Checkpoint(
        "colbert-stanford",
        "ColBERT of Stanford's library",
        "colbert-ir/colbertv2.0",
        _in(lambda folder: stanford(folder, **_STANFORD)),
        _multi_vector,
    ),
)
