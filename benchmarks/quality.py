"""Task quality of the artifacts that are timed, or without data agreement with the original model.

    python -m benchmarks.quality [--data DIR] [--model M] [--systems poolc,poolc-int8]

DIR, or its folder ``eval``, holds ``stsb-test.jsonl``, ``stsb-dev.jsonl`` and ``sick-r.jsonl``
(``s1``, ``s2``, ``score``): Spearman x 100 of cosine similarity and human judgement; published for
all-MiniLM-L6-v2 (MTEB) are STSBenchmark 82.03 and SICK-R 77.58. And ``banking77-train.jsonl`` and
``banking77-test.jsonl`` (``text``, ``label``): the accuracy of a logistic regression over vectors,
trained on all of the first and tested on the second. No system reads any of them to be compiled.

Without DIR, the scores of generated pairs are compared with those of Sentence Transformers. That
says whether an artifact ranks as the original model does, and nothing about how good the model is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

import poolc
from benchmarks.options import model_or_default, parser, write
from benchmarks.results import ANCHOR, Store
from benchmarks.subject import Subject, subject
from benchmarks.systems.poolc import artifact
from benchmarks.table import BY_NAME, system_names
from benchmarks.tables import quality_table
from benchmarks.workload import pairs

SIMILARITY = {
    "STSBenchmark test": "stsb-test.jsonl",
    "STSBenchmark dev": "stsb-dev.jsonl",
    "SICK-R": "sick-r.jsonl",
}
CLASSES = {"Banking77": ("banking77-train.jsonl", "banking77-test.jsonl")}
INT8 = "poolc-int8"
NUM_PAIRS = 500


def main() -> None:
    """Evaluate and print a table."""
    options = parser("Quality of the artifacts that are timed")
    options.add_argument("--systems", type=system_names, default=f"{ANCHOR},{INT8}")
    arguments = options.parse_args()
    if arguments.data is None:
        model = model_or_default(arguments.model)
        engine = poolc.load(model)
        made = agreement(engine, model) | {"artifact": engine.artifact.artifact_id}
    else:
        made = measure(subject(arguments.model, arguments.data), arguments.systems)
        print(quality_table(made))
    write(made, arguments.json)


def run(target: Subject, systems: Sequence[str], store: Store) -> None:
    """Measure into ``store`` unless it is there; random weights have no quality."""
    if target.data is None or target.model.config:
        return
    if store.get("quality") is None:
        store.put(measure(target, systems), "quality")
    print(f"\nquality:\n{quality_table(store.get('quality'))}", flush=True)


def measure(target: Subject, systems: Sequence[str]) -> dict[str, Any]:
    """Return each system's artifact and figures; the artifacts are those that are timed."""
    if target.data is None:
        raise ValueError("quality needs data")
    folder = target.data / "eval" if (target.data / "eval").is_dir() else target.data
    found: dict[str, Any] = {"artifacts": {}, "figures": {}}
    for name in systems:
        target.prepare(name)
        engine = poolc.load(artifact(target.job(BY_NAME[name])))
        found["artifacts"][name] = engine.artifact.artifact_id
        similarity = {task: correlation(engine, folder / file) for task, file in SIMILARITY.items()}
        classes = {
            task: accuracy(engine, *(folder / file for file in files))
            for task, files in CLASSES.items()
        }
        found["figures"][name] = similarity | classes
    return found


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


def correlation(engine: poolc.Engine, path: Path) -> float:
    """Return Spearman's correlation x 100 between cosine similarities and the labels."""
    rows = _rows(path)
    left, right = ([row[name] for row in rows] for name in _pair(rows[0]))
    scores = engine.score(left, right, truncate=True)
    return float(spearmanr(scores, [float(row["score"]) for row in rows]).statistic) * 100


def accuracy(engine: poolc.Engine, train: Path, test: Path) -> float:
    """Return the accuracy in percent of a logistic regression over the vectors of texts."""
    from sklearn.linear_model import LogisticRegression

    sides = [_rows(path) for path in (train, test)]
    vectors = [engine.embed([row["text"] for row in rows], truncate=True) for rows in sides]
    labels = [[row["label"] for row in rows] for rows in sides]
    classifier = LogisticRegression(max_iter=1000).fit(vectors[0], labels[0])
    return float(classifier.score(vectors[1], labels[1])) * 100


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _pair(row: dict[str, Any]) -> tuple[str, str]:
    return ("s1", "s2") if "s1" in row else ("sentence1", "sentence2")


if __name__ == "__main__":
    main()
