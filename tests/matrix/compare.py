"""One cell: compile the folder, run it, and compare with the library that defines the model.

The libraries run on their own, one text at a time (what they make of padding is no reference), and
with eager attention; nothing of the compiler's own references takes part.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tests.matrix.words import LIMIT

if TYPE_CHECKING:
    from poolc.runtime.engine import Engine
    from poolc.runtime.request import Item

Array = npt.NDArray[Any]

BOUND = 1e-5  # times max(1, largest reference value)
_WORDS = "the river runs through seven bridges of stone and sleeps in the sun "
TEXTS = [
    "a",
    _WORDS * 20,  # cut at the limit
    "Réserver une table à Zürich, s'il vous plaît",
    "bread needs flour, water, salt",
    "Москва столица России; 東京の天気は晴れ",
    "السلام عليكم 0123456789 -+*/=",
    _WORDS * 2,
    "how do I reset my password?",
    "x",
    _WORDS.upper(),
]
PAIRS = [
    ("how do I reset my password?", "access to my email"),
    ("a", _WORDS * 20),
    (_WORDS * 3, "the cat"),
    ("Paris", "東京の天気は晴れ"),
    (_WORDS, _WORDS),
]


@dataclass(frozen=True, slots=True)
class Measured:
    """``error`` is relative to max(1, largest reference value), ``invariance`` absolute."""

    reference: str
    error: float
    worst_cosine: float | None
    invariance: float
    longest: int  # tokens


def compile_folder(folder: Path, store: Path, **options: Any) -> Engine:
    """Compile in this process, into a store below ``store``."""
    from poolc.api import make_options
    from poolc.compiler.events import Progress
    from poolc.compiler.pipeline import Request, compile_model
    from poolc.model_cache.store import Store
    from poolc.runtime.engine import Engine

    request = Request(str(folder), make_options(**options))
    return Engine(compile_model(request, Store(store), Progress(lambda event: None)))


def library(folder: Path) -> Any:
    """Load a folder with SentenceTransformer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer(
            str(folder),
            device="cpu",
            local_files_only=True,
            model_kwargs={"attn_implementation": "eager"},
        )


def embedding(folder: Path, engine: Engine) -> Measured:
    """Compare vectors and hidden states with SentenceTransformer."""
    return vectors(library(folder), engine)


def vectors(model: Any, engine: Engine) -> Measured:
    """Compare vectors and hidden states with this SentenceTransformer's."""
    expected = [model.encode([text], batch_size=1)[0] for text in TEXTS]
    tokens = [
        model.encode([text], batch_size=1, output_value="token_embeddings")[0].numpy()
        for text in TEXTS
    ]
    found = engine.embed(TEXTS, truncate=True)
    alone = np.concatenate([engine.embed([text], truncate=True) for text in TEXTS])
    hidden = engine.encode(TEXTS, truncate=True)
    return Measured(
        "sentence-transformers",
        max(difference(found, expected), difference(list(hidden), tokens)),
        smallest_cosine(found, expected),
        float(np.abs(found - alone).max()),
        max(map(len, tokens)),
    )


def classes(folder: Path, engine: Engine) -> Measured:
    """Compare logits and probabilities of texts and pairs with transformers."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    items: list[Item] = [*TEXTS, *PAIRS]
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32
    ).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    expected, longest = [], 0
    with torch.inference_mode():
        for item in items:
            texts: Any = (item,) if isinstance(item, str) else item
            encoded = tokenizer(*texts, return_tensors="pt", truncation=True, max_length=LIMIT)
            expected.append(model(**encoded).logits[0].numpy())
            longest = max(longest, encoded["input_ids"].shape[1])
    found = engine.classify(items, truncate=True, use_activation=False).probs
    probs = engine.classify(items, truncate=True).probs
    wanted = [_activated(row, model.config) for row in expected]
    alone = np.stack([engine.classify([item], truncate=True).probs[0] for item in items])
    return Measured(
        "transformers",
        max(difference(found, expected), difference(probs, wanted)),
        None,
        float(np.abs(probs - alone).max()),
        longest,
    )


def pairs(folder: Path, engine: Engine) -> Measured:
    """Compare scores of pairs with CrossEncoder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers import CrossEncoder

        model = CrossEncoder(
            str(folder),
            device="cpu",
            local_files_only=True,
            model_kwargs={"attn_implementation": "eager"},
            max_length=LIMIT,
        )
        expected = [model.predict([pair], batch_size=1)[0] for pair in PAIRS]
    left, right = (list(side) for side in zip(*PAIRS, strict=True))
    found = engine.score(left, right, truncate=True)
    alone = [engine.score(*pair, truncate=True)[0] for pair in PAIRS]
    return Measured(
        "sentence-transformers CrossEncoder",
        difference(found, expected),
        None,
        float(np.abs(found - np.array(alone)).max()),
        LIMIT,
    )


def _activated(logits: Array, config: Any) -> Array:
    if config.problem_type == "regression":
        return logits
    if config.problem_type == "multi_label_classification":
        return np.asarray(1 / (1 + np.exp(-logits)))
    grown = np.exp(logits - logits.max())
    return np.asarray(grown / grown.sum())


def difference(found: Any, expected: Sequence[Any]) -> float:
    """Return the largest |a - b| / max(1, max |b|) of any row; infinite where shapes differ."""
    worst = 0.0
    for row, wanted in zip(found, expected, strict=True):
        row, wanted = np.asarray(row), np.asarray(wanted)
        if row.shape != wanted.shape or not np.isfinite(row).all():
            return float("inf")
        if not row.size:  # a text of which a library keeps no token
            continue
        error = np.abs(row.astype(np.float64) - wanted).max() / max(1.0, np.abs(wanted).max())
        worst = max(worst, float(error))
    return worst


def smallest_cosine(found: Array, expected: Sequence[Any]) -> float:
    wanted = np.stack(expected)
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    return float(((found * wanted).sum(axis=1) / np.maximum(norms, 1e-30)).min())
