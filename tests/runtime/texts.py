"""Texts of the runtime's tests: varied ones, and many of mixed length."""

from __future__ import annotations

import random

VARIED = [
    "The quick brown fox jumps over the lazy dog.",
    "a",
    "?",
    " ",
    "\n\t leading and trailing space \n",
    "ÀÉÎÕÜ naïve café Ærøskøbing",
    "e\u0301 combining, \ufb01 ligature, \u00bd fraction",
    "Москва столица России",
    "東京の天気は晴れ",
    "مرحبا بالعالم",
    "👩\u200d👩\u200d👧 family 🇧🇷",
    "zero\u200bwidth \ufeffmark \x00 null \x7f delete",
    "[CLS] [SEP] <s> </s> [MASK] look like special tokens",
    "0123456789 -+*/=.,!?",
    "UPPER lower MiXeD",
]
PAIRS = [
    ("what is the capital of France", "Paris is the capital of France"),
    ("bread", "flour water salt and yeast and a very hot oven"),
    ("the committee approved the budget after a long debate", "東京"),
    ("a", "b"),
    ("é", "naïve café"),
]
_WORDS = ["the", "river", "old", "town", "bread", "oven", "fox", "budget", "café", "good", "7"]


def mixed(count: int, longest: int = 25, seed: int = 0) -> list[str]:
    """Return ``count`` different texts of 2 to ``longest`` words."""
    rng = random.Random(seed)
    return [
        " ".join([str(i), *rng.choices(_WORDS, k=rng.randrange(1, longest))]) for i in range(count)
    ]
