"""Task metrics of labelled texts, against SciPy and transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from poolc.errors import InputError, InvalidOption
from poolc.runtime.engine import Engine
from poolc.runtime.quality import ACCURACY, SPEARMAN, measure, read_labelled, spearman

PAIRS = [
    {"sentence1": "a river", "sentence2": "a stream", "score": 4},
    {"sentence1": "bread and salt", "sentence2": "the night train", "score": 0.5},
    {"sentence1": "the cat", "sentence2": "the cat", "score": 5},
    {"sentence1": "the cat", "sentence2": "a dog", "score": 2},
]


def lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_spearman_is_scipys() -> None:
    random = np.random.default_rng(2)
    left, right = random.normal(size=50), random.integers(0, 5, size=50)
    assert spearman(left, right) == pytest.approx(spearmanr(left, right).statistic)


def test_measure_pairs(embedder: Engine, tmp_path: Path) -> None:
    data = read_labelled(lines(tmp_path / "pairs.jsonl", PAIRS))
    assert data.metric == SPEARMAN
    scores = embedder.score(data.left, data.right)
    assert measure(embedder, data) == pytest.approx(100 * spearmanr(scores, data.labels).statistic)


def test_measure_classes(classifier: Engine, tmp_path: Path) -> None:
    texts = ["a river", "bread", "no", "the old town"]
    answers = classifier.classify(texts).probs.argmax(1).tolist()
    names = classifier.spec.labels
    rows = [{"text": t, "label": a} for t, a in zip(texts, answers, strict=True)]
    rows[1]["label"], rows[2]["label"] = names[answers[1]], (answers[2] + 1) % len(names)
    data = read_labelled(lines(tmp_path / "texts.jsonl", rows))
    assert (data.metric, measure(classifier, data)) == (ACCURACY, 75.0)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("", InvalidOption, "holds no line"),
        ('{"title": "a"}\n', InvalidOption, "two texts .* the first line has: title"),
        ('{"text": "a", "label": 1}\n{"text": "a"}\n', InputError, "line 2: there is no 'label'"),
        ("[1]\n", InputError, "line 1 is no JSON object"),
        ("{\n", InputError, "line 1 is not JSON"),
    ],
)
def test_read_refused(content: str, error: type[Exception], message: str, tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text(content)
    with pytest.raises(error, match=message):
        read_labelled(file)
