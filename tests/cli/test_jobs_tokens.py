"""poolc classify on models that label tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poolc.runtime.engine import Engine
from tests.cli.conftest import Cli

TEXTS = ["the quick brown fox", "a river runs", "bread needs flour"]


@pytest.fixture(scope="module")
def model(artifact: Callable[[str], Path]) -> Path:
    return artifact("tiny_tagger")


@pytest.mark.parametrize("aggregation", [None, "simple", "first", "average", "max"])
def test_spans(
    aggregation: str | None, cli: Cli, model: Path, tagger: Engine, text_file: Path
) -> None:
    output = text_file.with_name("out.jsonl")
    options = () if aggregation is None else ("--aggregation", aggregation)
    ran = cli("classify", model, text_file, "-o", output, *options)
    assert ran.code == 0, ran.err
    wanted: Any = tagger.classify_tokens(TEXTS, aggregation=aggregation or "simple")
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    for index, (line, spans) in enumerate(zip(lines, wanted, strict=True)):
        assert list(line) == ["index", "spans"]
        assert line["index"] == index
        assert [list(span) for span in line["spans"]] == [
            ["label", "score", "word", "start", "end"]
        ] * len(spans)
        assert [tuple(span.values()) for span in line["spans"]] == [
            (s.entity_group, pytest.approx(s.score, abs=1e-6), s.word, s.start, s.end)
            for s in spans
        ]
    meta = json.loads(output.with_name("out.jsonl.meta.json").read_text())
    assert (meta["task"], meta["row_shape"]) == ("classify_tokens", [None])
    assert meta["params"]["aggregation"] == (aggregation or "simple")
    assert meta["labels"] == list(tagger.spec.labels)


@pytest.mark.parametrize(("option", "kind"), [(None, "probs"), ("--no-use-activation", "logits")])
def test_every_token(
    option: str | None, kind: str, cli: Cli, model: Path, tagger: Engine, text_file: Path
) -> None:
    options = ("--aggregation", "none", *([option] if option else []))
    ran = cli("classify", model, text_file, "-o", "-", *options)
    assert ran.code == 0, ran.err
    wanted: Any = tagger.classify_tokens(TEXTS, use_activation=kind == "probs")
    for line, row in zip(ran.out.splitlines(), wanted, strict=True):
        np.testing.assert_allclose(json.loads(line)[kind], row, atol=1e-6)


def test_truncated_texts_are_marked(cli: Cli, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_text("bread\n" + "bread " * 100 + "\n")
    ran = cli("classify", model, path, "-o", "-", "--truncate")
    assert [json.loads(line)["truncated"] for line in ran.out.splitlines()] == [False, True]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("out.npy", (), "rows of classify_tokens differ in length: write JSON lines"),
        ("out.jsonl", ("--aggregation", "last"), "aggregation is 'last'; allowed: none, simple"),
        ("out.jsonl", ("--no-use-activation",), "use aggregation='none'"),
    ],
)
def test_refused(
    name: str, options: tuple[str, ...], message: str, cli: Cli, model: Path, text_file: Path
) -> None:
    output = text_file.with_name(name)
    ran = cli("classify", model, text_file, "-o", output, *options)
    assert ran.code == 2
    assert message in ran.err
    assert not output.exists()


def test_aggregation_of_another_model(cli: Cli, tiny_classifier: Path, text_file: Path) -> None:
    ran = cli("classify", tiny_classifier, text_file, "-o", "-", "--aggregation", "simple")
    assert (ran.code, ran.out) == (2, "")
    assert "aggregation applies to classify_tokens, not to classify" in ran.err
