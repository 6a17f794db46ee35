"""Every example runs as a user would run it, on an artifact."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def run(example: str, *arguments: str | Path) -> str:
    """Run an example and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", ROOT / "examples" / example, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_embed(minilm: Path) -> None:
    printed = run("embed.py", minilm)
    assert printed.count("(size=384)") == 4


def test_classify(tiny_classifier: Path) -> None:
    printed = run("classify.py", tiny_classifier)
    assert printed.count("(size=3)") == 3


@pytest.mark.parametrize("model", ["tiny_cross_encoder", "minilm"])
def test_score(request: pytest.FixtureRequest, model: str) -> None:
    printed = run("score.py", request.getfixturevalue(model))
    assert printed.count("Score: ") == 2


def test_embed_matryoshka(tiny_embedder: Path) -> None:
    printed = run("embed_matryoshka.py", tiny_embedder, "16")
    assert printed.count("(size=16)") == 2


def test_bulk(minilm: Path) -> None:
    printed = run("bulk.py", minilm)
    assert printed.count(": 384 numbers") == 2
    assert "1 row failed" in printed
    assert "column 'body' must be a string, not null" in printed
