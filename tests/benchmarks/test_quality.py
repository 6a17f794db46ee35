"""benchmarks/quality.py: what it measures in a clone without data."""

from __future__ import annotations

import json
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


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_correlation_with_labels(embedder: Engine, tmp_path: Path) -> None:
    left, right = (list(side) for side in zip(*pairs(20), strict=True))
    scores = embedder.score(left, right, truncate=True).tolist()
    rows = [{"s1": a, "s2": b, "score": s} for a, b, s in zip(left, right, scores, strict=True)]
    assert quality.correlation(embedder, write(tmp_path / "a.jsonl", rows)) == pytest.approx(100)
    for row in rows:
        row["score"] = -row["score"]
    assert quality.correlation(embedder, write(tmp_path / "b.jsonl", rows)) == pytest.approx(-100)


def test_accuracy_of_classes(embedder: Engine, tmp_path: Path) -> None:
    texts = {"fox": "a fox jumps", "dog": "the lazy dog"}
    rows: list[dict[str, object]] = [
        {"text": text, "label": label} for label, text in texts.items() for _ in range(9)
    ]
    train = write(tmp_path / "train.jsonl", rows)
    assert quality.accuracy(embedder, train, train) == 100
    other = [{"text": row["text"], "label": "dog"} for row in rows]
    assert quality.accuracy(embedder, train, write(tmp_path / "test.jsonl", other)) == 50
