"""Jina-BERT, which no library here has: the reference is a forward pass in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.compiler.jina_bert import QK_POST_NORM, Layout, Numpy, author
from tests.matrix.checkpoints.base import UPSTREAM_NOT_RUN, Checkpoint, compared
from tests.matrix.compare import PAIRS, TEXTS, Measured
from tests.matrix.words import LIMIT
from tests.models import write_modules, write_pooling

if TYPE_CHECKING:
    from poolc.runtime.engine import Engine

_REFERENCE = "a NumPy forward of the published layout, float64"


def _embedder(layout: Layout) -> Callable[[Path], Path]:
    def build(root: Path) -> Path:
        folder = root / "model"
        author(folder, layout)
        write_modules(folder, ("Transformer", ""), ("Pooling", "1_Pooling"))
        write_pooling(folder, "mean_tokens", dim=layout.hidden)
        return folder

    return build


def _reranker(root: Path) -> Path:
    author(root / "model", Layout(heads=6, architecture="JinaBertForSequenceClassification"))
    return root / "model"


def _vectors(folder: Path, engine: Engine) -> Measured:
    model = Numpy(folder)
    expected = [model.hidden(text).mean(0) for text in TEXTS]

    def ask(texts: list[Any]) -> Any:
        return engine.embed(texts, truncate=True, normalize=False)

    return compared(_REFERENCE, ask, TEXTS, expected, longest=LIMIT)


def _scores(folder: Path, engine: Engine) -> Measured:
    model = Numpy(folder)
    expected = [1 / (1 + np.exp(-model.logits(pair)[0])) for pair in PAIRS]

    def ask(pairs: list[Any]) -> Any:
        left, right = (list(side) for side in zip(*pairs, strict=True))
        return engine.score(left, right, truncate=True)

    return compared(_REFERENCE, ask, PAIRS, expected, longest=LIMIT)


CHECKPOINTS = (
    Checkpoint(
        "jina-bert",
        "Jina-BERT, ALiBi with 6 heads, GEGLU",
        "jinaai/jina-embeddings-v2-base-en",
        _embedder(Layout(heads=6)),
        _vectors,
        note=UPSTREAM_NOT_RUN,
    ),
    Checkpoint(
        "jina-bert-qk-post-norm",
        "Jina-BERT with norms on queries and keys",
        "jinaai/jina-embeddings-v2-base-code",
        _embedder(Layout(QK_POST_NORM, prefix="")),
        _vectors,
        note=UPSTREAM_NOT_RUN,
    ),
    Checkpoint(
        "jina-bert-reranker",
        "Jina-BERT reranker",
        "jinaai/jina-reranker-v1-turbo-en",
        _reranker,
        _scores,
        note=UPSTREAM_NOT_RUN,
    ),
)
