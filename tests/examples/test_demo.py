"""The demo: its corpus is sound, and each question finds the passage that answers it."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

import poolc
from examples.demo import demo
from examples.demo.demo import Passage


def test_passages_are_varied_and_short() -> None:
    passages = demo.read_passages()
    assert len({passage.id for passage in passages}) == len(passages) == 150
    assert len({passage.text for passage in passages}) == 150
    assert set(Counter(passage.subject for passage in passages).values()) == {10}
    for passage in passages:
        assert passage.id.startswith(f"{passage.subject}-")
        assert 8 <= len(passage.text.split()) <= 45


def test_queries_name_an_answer() -> None:
    ids = {passage.id for passage in demo.read_passages()}
    queries = demo.read_queries()
    assert len(queries) == 8
    assert {query.answer for query in queries} <= ids


def test_search_orders_by_cosine() -> None:
    passages = [Passage(str(i), "subject", "text") for i in range(4)]
    vectors = np.array([[1, 0], [0, 5], [3, 3], [-1, 0]], np.float32)
    (hits,) = demo.search(np.array([[0, 2]], np.float32), vectors, passages)
    assert [hit.passage.id for hit in hits] == ["1", "2", "0"]
    assert [round(hit.score, 3) for hit in hits] == [1.0, 0.707, 0.0]


def test_every_question_finds_its_answer(minilm: Path) -> None:
    passages, queries = demo.read_passages(), demo.read_queries()
    engine = poolc.load(minilm)
    vectors = engine.embed_document([passage.text for passage in passages])
    asked = engine.embed_query([query.text for query in queries])
    found = demo.search(asked, vectors, passages)
    assert [hits[0].passage.id for hits in found] == [query.answer for query in queries]


@pytest.mark.parametrize(
    ("parity", "line"),
    [
        ({}, "? texts against its reference"),
        (
            {
                "reference": "sentence-transformers",
                "texts": 40,
                "longest_tokens": 256,
                "max_abs_error": 2.5e-07,
                "worst_cosine": None,
                "bound": 1e-5,
                "token_ids_equal": True,
            },
            "40 texts against sentence-transformers, the longest of 256 tokens; largest difference "
            "2.5e-07 (allowed: 1e-05); token ids equal",
        ),
    ],
)
def test_parity_line(parity: dict[str, object], line: str) -> None:
    assert demo.parity_line(parity) == line


def test_run_prints_parity_answers_and_times(minilm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = SimpleNamespace(path=minilm, report={"parity": {"texts": 40}}, reused=True)
    monkeypatch.setattr(poolc, "compile", lambda model, on_event: compiled)
    written = io.StringIO()
    demo.run("some/model", Console(file=written, width=120))
    printed = written.getvalue()
    for part in (
        "Parity 40 texts",
        "Habeas corpus",
        "compile",
        "already compiled",
        "load",
        "150 passages",
    ):
        assert part in printed


def test_main_error_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(model: str, on_event: object) -> None:
        raise poolc.PoolcError(f"no such model: {model}")

    monkeypatch.setattr(poolc, "compile", refuse)
    assert demo.main(["--model", "nobody/nothing"]) == 1
    assert capsys.readouterr().err == "error: no such model: nobody/nothing\n"
