"""The original model's answers, from its own library in a process of its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poolc.compare import Settings, compare
from poolc.compare.original import OriginalSide
from poolc.compare.sides import Asked
from poolc.errors import CompileError, ModelNotFound
from poolc.model_cache.store import Store
from poolc.spec import CompileOptions, Task
from tests.compare.conftest import TEXTS

PAIRS = [(TEXTS[i], TEXTS[-1 - i]) for i in range(9)]


def opened(folder: Path) -> OriginalSide:
    return OriginalSide(str(folder), CompileOptions(), Store.default(), lambda event: None)


def answers(side: OriginalSide, task: Task, items: Any, **asked: Any) -> np.ndarray[Any, Any]:
    return np.concatenate(list(side.answers(Asked(task, **asked), items)))


@pytest.mark.slow
def test_embedder_is_sentence_transformers(tiny_embedder_source: Path) -> None:
    from sentence_transformers import SentenceTransformer

    library = SentenceTransformer(str(tiny_embedder_source), device="cpu")
    side = opened(tiny_embedder_source)
    try:
        found = answers(side, Task.EMBED, TEXTS)
        cut = answers(side, Task.EMBED, TEXTS, dimensions=8)
        scores = answers(side, Task.SCORE, PAIRS)[:, 0]
    finally:
        side.close()
    np.testing.assert_allclose(found, library.encode(TEXTS), atol=1e-5)
    short = library.encode(TEXTS, truncate_dim=8, normalize_embeddings=True)
    np.testing.assert_allclose(cut, short, atol=1e-5)
    left, right = (library.encode([pair[i] for pair in PAIRS]) for i in (0, 1))
    expected = library.similarity_pairwise(left, right).numpy()
    np.testing.assert_allclose(scores, expected, atol=1e-5)


@pytest.mark.slow
def test_classifier_is_transformers(tiny_classifier_source: Path) -> None:
    from transformers import pipeline

    library = pipeline("text-classification", str(tiny_classifier_source), top_k=None, device="cpu")
    side = opened(tiny_classifier_source)
    try:
        found = answers(side, Task.CLASSIFY, TEXTS)
    finally:
        side.close()
    for row, told in zip(found, library(TEXTS), strict=True):
        scores = {one["label"]: one["score"] for one in told}
        np.testing.assert_allclose(row, [scores[name] for name in side.spec.labels], atol=1e-5)


@pytest.mark.slow
def test_cross_encoder_is_sentence_transformers(tiny_cross_encoder_source: Path) -> None:
    from sentence_transformers import CrossEncoder

    library = CrossEncoder(str(tiny_cross_encoder_source), device="cpu")
    side = opened(tiny_cross_encoder_source)
    try:
        found = answers(side, Task.SCORE, PAIRS)[:, 0]
    finally:
        side.close()
    np.testing.assert_allclose(found, library.predict(PAIRS), atol=1e-5)


@pytest.mark.slow
def test_artifact_and_its_original(
    tiny_embedder: Path, tiny_embedder_source: Path, texts: Path, quick: Settings
) -> None:
    found = compare(tiny_embedder, tiny_embedder_source, texts, quick)
    figures = found.figures()
    assert figures["cosine_min"] > 0.99999
    assert figures["max_abs"] < 1e-5
    assert figures["overlap"] == 1
    assert (found.same_space, found.sides[1].artifact_id) == (None, None)
    assert found.sides[1].engine == "sentence-transformers"


def test_a_model_that_is_not_there(texts: Path, tiny_embedder: Path, quick: Settings) -> None:
    with pytest.raises(ModelNotFound):
        compare(tiny_embedder, "./nowhere", texts, quick)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let a script be the process; it finds ``send(event, data)`` and ``ask()``."""

    def install(body: str) -> None:
        script = tmp_path / "original"
        script.write_text(
            f"#!{sys.executable}\n"
            "import json, os, sys\n"
            "sink = os.fdopen(int(sys.argv[3]), 'wb')\n"
            "def send(event, data=b''):\n"
            "    sink.write(json.dumps(event).encode() + b'\\n' + data); sink.flush()\n"
            "def ask(): return json.loads(sys.stdin.readline())\n"
            f"{body}\n"
        )
        script.chmod(0o755)
        monkeypatch.setattr("poolc.compare.original.sys.executable", str(script))

    return install


@pytest.fixture
def told(tiny_embedder: Path) -> str:
    """What a process says of an embedder that it opened."""
    spec = json.loads((tiny_embedder / "manifest.json").read_text())["spec"]
    event = {"event": "opened", "library": "a library", "spec": spec, "max_length": 64}
    return f"opened = json.loads({json.dumps(event)!r})\n"


def test_process_that_stops(stand_in: Any, told: str) -> None:
    stand_in(f"{told}ask(); send(opened); ask(); print('last words', file=sys.stderr)")
    side = opened(Path("model"))
    with pytest.raises(CompileError, match="stopped without an answer:\nlast words"):
        answers(side, Task.EMBED, ["a"])
    side.close()


def test_process_that_stops_within_an_answer(stand_in: Any, told: str) -> None:
    answer = "send({'event': 'answer', 'shapes': {'pooled': [1, 32]}}, b'1234')"
    stand_in(f"{told}ask(); send(opened); ask(); {answer}")
    side = opened(Path("model"))
    with pytest.raises(CompileError, match="stopped without an answer"):
        answers(side, Task.EMBED, ["a"])
    side.close()


def test_process_that_refuses(stand_in: Any) -> None:
    stand_in("ask(); send({'event': 'error', 'type': 'ModelNotFound', 'message': 'no such'})")
    with pytest.raises(ModelNotFound, match="no such"):
        opened(Path("model"))
