"""The task metric of a compile is in its report, before and after a change of precision."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from poolc.compiler import pipeline
from poolc.compiler.events import Progress
from poolc.model_cache.store import Store
from poolc.runtime.engine import Engine
from poolc.runtime.quality import SPEARMAN, measure, read_labelled
from poolc.spec import CompileOptions, Precision

PAIRS = [
    {"sentence1": "a river", "sentence2": "a stream", "score": 4},
    {"sentence1": "bread and salt", "sentence2": "the night train", "score": 0.5},
    {"sentence1": "the cat", "sentence2": "the cat", "score": 5},
    {"sentence1": "the cat", "sentence2": "a dog", "score": 2},
]


def test_quality_before_and_after(plain_bert: Path, store: Store, tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in PAIRS), encoding="utf-8")
    request = pipeline.Request(
        str(plain_bert), CompileOptions(precision=Precision.INT8), quality=file
    )
    artifact = pipeline.compile_model(request, store, Progress(lambda event: None))
    found = artifact.report()["quality"]
    assert found["file"] == "pairs.jsonl"
    assert sorted(found[SPEARMAN]) == ["fp32", "int8"]
    assert found[SPEARMAN]["int8"] == pytest.approx(measure(Engine(artifact), read_labelled(file)))
