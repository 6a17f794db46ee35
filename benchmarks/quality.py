"""Task quality of an artifact: Spearman x 100 of cosine similarity on STSBenchmark and SICK-R.

    python -m benchmarks.quality --data DIR [--model M]

DIR holds ``stsb-test.jsonl`` and ``sick-r.jsonl`` (``s1``, ``s2``, ``score``), or a folder ``eval``
that does. Published for all-MiniLM-L6-v2 (MTEB): STSBenchmark 82.03, SICK-R 77.58.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scipy.stats import spearmanr

import poolc
from benchmarks.options import model_or_default, parser, write

FILES = {"STSBenchmark test": "stsb-test.jsonl", "SICK-R": "sick-r.jsonl"}
PUBLISHED = {"STSBenchmark test": 82.03, "SICK-R": 77.58}


def main() -> None:
    """Evaluate and print a table."""
    options = parser("Quality of an artifact on semantic textual similarity")
    arguments = options.parse_args()
    if arguments.data is None:
        raise SystemExit("--data DIR: the folder with stsb-test.jsonl and sick-r.jsonl")
    folder = arguments.data / "eval" if (arguments.data / "eval").is_dir() else arguments.data
    engine = poolc.load(model_or_default(arguments.model))
    results = {name: evaluate(engine, folder / file) for name, file in FILES.items()}
    print("| task | Spearman x 100 | published for all-MiniLM-L6-v2 |")
    print("| --- | --- | --- |")
    for name, value in results.items():
        print(f"| {name} | {value:.2f} | {PUBLISHED[name]:.2f} |")
    write({"spearman_x_100": results, "artifact": engine.artifact.artifact_id}, arguments.json)


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
