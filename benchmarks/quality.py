"""Task quality of an artifact, or without data its agreement with Sentence Transformers.

    python -m benchmarks.quality [--data DIR] [--model M]

DIR holds ``stsb-test.jsonl`` and ``sick-r.jsonl`` (``s1``, ``s2``, ``score``), or a folder ``eval``
that does: then the figures are Spearman x 100 of cosine similarity and human judgement. Published
for all-MiniLM-L6-v2 (MTEB): STSBenchmark 82.03, SICK-R 77.58.

Without DIR, the scores of generated pairs are compared with those of Sentence Transformers. That
says whether an artifact ranks as the original model does, and nothing about how good the model is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

import poolc
from benchmarks.options import model_or_default, parser, write
from benchmarks.workload import pairs

FILES = {"STSBenchmark test": "stsb-test.jsonl", "SICK-R": "sick-r.jsonl"}
PUBLISHED = {"STSBenchmark test": 82.03, "SICK-R": 77.58}
NUM_PAIRS = 500


def main() -> None:
    """Evaluate and print a table."""
    arguments = parser("Quality of an artifact on semantic textual similarity").parse_args()
    model = model_or_default(arguments.model)
    engine = poolc.load(model)
    if arguments.data is None:
        results = agreement(engine, model)
    else:
        results = quality(engine, arguments.data)
    write({**results, "artifact": engine.artifact.artifact_id}, arguments.json)


def quality(engine: poolc.Engine, data: Path) -> dict[str, Any]:
    """Print and return the correlation with human judgement."""
    folder = data / "eval" if (data / "eval").is_dir() else data
    results = {name: evaluate(engine, folder / file) for name, file in FILES.items()}
    print("| task | Spearman x 100 | published for all-MiniLM-L6-v2 |")
    print("| --- | --- | --- |")
    for name, value in results.items():
        print(f"| {name} | {value:.2f} | {PUBLISHED[name]:.2f} |")
    return {"spearman_x_100": results}


def agreement(engine: poolc.Engine, model: str) -> dict[str, Any]:
    """Print and return how the scores of generated pairs agree with Sentence Transformers'."""
    from sentence_transformers import SentenceTransformer

    left, right = (list(side) for side in zip(*pairs(NUM_PAIRS), strict=True))
    ours = engine.score(left, right, truncate=True)
    transformer = SentenceTransformer(model, device="cpu")
    vectors = transformer.encode(left + right, normalize_embeddings=True, show_progress_bar=False)
    theirs = np.sum(vectors[:NUM_PAIRS] * vectors[NUM_PAIRS:], axis=1)
    results = {
        "pairs": NUM_PAIRS,
        "spearman_x_100": float(spearmanr(ours, theirs).statistic) * 100,
        "max_abs_difference": float(np.abs(ours - theirs).max()),
    }
    print("Agreement with Sentence Transformers, not quality (for that, give --data DIR):")
    print("| generated pairs | Spearman x 100 with its scores | largest difference of a score |")
    print("| --- | --- | --- |")
    print(
        f"| {NUM_PAIRS} | {results['spearman_x_100']:.4f} | {results['max_abs_difference']:.1e} |"
    )
    return {"agreement": results}


def evaluate(engine: poolc.Engine, path: Path) -> float:
    """Return Spearman's correlation x 100 between cosine similarities and the labels."""
    rows = [_fields(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    left, right, labels = zip(*rows, strict=True)
    scores = engine.score(list(left), list(right), truncate=True)
    return float(spearmanr(scores, labels).statistic) * 100


def _fields(row: dict[str, Any]) -> tuple[str, str, float]:
    first = "s1" if "s1" in row else "sentence1"
    second = "s2" if "s2" in row else "sentence2"
    return row[first], row[second], float(row["score"])


if __name__ == "__main__":
    main()
