"""Files that models are compared on, and settings that take no time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from poolc.compare import Settings
from tests.models import CORPUS

WORDS = [word for line in CORPUS for word in line.split()]
TEXTS = [*CORPUS, *(" ".join(WORDS[i : i + 5]) for i in range(0, 60, 3))]


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    """Three short texts."""
    path = tmp_path / "in.txt"
    path.write_text("the quick brown fox\na river runs\nbread needs flour\n")
    return path


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Texts with a label."""
    path = tmp_path / "texts.jsonl"
    labels = ("negative", "neutral", "positive")
    rows = [{"text": text, "label": labels[i % 3]} for i, text in enumerate(TEXTS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Pairs of texts with a score."""
    path = tmp_path / "pairs.jsonl"
    rows = [{"query": TEXTS[i], "document": TEXTS[-1 - i], "score": i * 7 % 5} for i in range(20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def quick() -> Settings:
    """Without speed."""
    return Settings(seconds=0, neighbours=5)
