"""Texts to measure with: from a data folder, or generated from a seed so that any clone can run.

A data folder holds ``corpus.jsonl`` and ``queries.jsonl`` (one object a line, with ``text``).
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

SEED = 20260923
_SYLLABLES = [
    "ka",
    "lo",
    "mi",
    "ren",
    "ta",
    "vor",
    "su",
    "pel",
    "da",
    "nim",
    "or",
    "eth",
    "ing",
    "con",
    "ser",
    "ble",
    "al",
    "tion",
    "der",
    "ma",
]
_COMMON = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "that",
    "for",
    "it",
    "with",
    "as",
    "was",
    "on",
    "be",
    "by",
    "at",
    "from",
    "this",
    "are",
    "or",
]


def pairs(count: int) -> list[tuple[str, str]]:
    """Return ``count`` generated pairs, from almost the same sentence to no word in common."""
    rng = random.Random(SEED)
    made: list[tuple[str, str]] = []
    while len(made) < count:
        left = [_word(rng) for _ in range(rng.randint(4, 40))]
        kept = rng.random()
        right = [word if rng.random() < kept else _word(rng) for word in left]
        if left != right:  # equal scores would be ranked by rounding
            made.append((" ".join(left), " ".join(right)))
    return made


def documents(data: Path | None) -> Iterator[str]:
    """Yield the documents of a data folder; without one, generated texts without end."""
    return _generated(214, 0.9) if data is None else _read(data / "corpus.jsonl")


def queries(data: Path | None) -> Iterator[str]:
    """Yield the queries of a data folder; without one, generated texts without end."""
    return _generated(13, 0.5) if data is None else _read(data / "queries.jsonl")


def _read(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["text"]


def _generated(median_words: int, spread: float) -> Iterator[str]:
    """Yield texts whose lengths are log-normal, as those of real documents and queries are."""
    rng = random.Random(SEED + median_words)
    while True:
        length = max(2, round(median_words * 0.7 * rng.lognormvariate(0.0, spread)))
        yield " ".join(_word(rng) for _ in range(length)).capitalize() + "."


def _word(rng: random.Random) -> str:
    if rng.random() < 0.45:
        return rng.choice(_COMMON)
    return "".join(rng.choice(_SYLLABLES) for _ in range(rng.randint(1, 4)))
