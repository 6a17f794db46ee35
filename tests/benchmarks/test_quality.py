"""benchmarks/quality.py: what it measures in a clone without data."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import quality
from benchmarks.workload import pairs
from poolc.runtime.engine import Engine


def test_pairs_are_seeded_and_differ() -> None:
    made = pairs(50)
    assert made == pairs(50)
    assert all(left != right for left, right in made)


def test_agreement_with_sentence_transformers(
    embedder: Engine,
    tiny_embedder_source: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(quality, "NUM_PAIRS", 20)
    (measured,) = quality.agreement(embedder, str(tiny_embedder_source)).values()
    assert measured["max_abs_difference"] < 1e-5
    assert measured["spearman_x_100"] > 99
    assert "not quality" in capsys.readouterr().out
