"""embed, classify and score: options reach the engine, and errors end with their codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import poolc
from poolc.runtime.engine import Engine
from tests.cli.conftest import Cli

TEXTS = ["the quick brown fox", "a river runs", "bread needs flour"]


def test_embed_to_npy(cli: Cli, tiny_embedder: Path, embedder: Engine, text_file: Path) -> None:
    output = text_file.with_name("out.npy")
    ran = cli("embed", tiny_embedder, text_file, "-o", output)
    assert (ran.code, ran.out) == (0, "")
    assert np.array_equal(np.load(output), embedder.embed(TEXTS))
    assert f"3 rows to {output} in " in ran.err
    assert f"space {embedder.artifact.space_id[:12]}" in ran.err


def test_embed_options(
    cli: Cli, tiny_embedder: Path, embedder: Engine, text_file: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.npy"
    options = ("--dimensions", "16", "--prompt-name", "query", "--output-dtype", "int8")
    assert cli("embed", tiny_embedder, text_file, "--output", output, *options).code == 0
    expected = embedder.embed(TEXTS, dimensions=16, prompt_name="query", output_dtype="int8")
    assert np.array_equal(np.load(output), expected)


def test_embed_unnormalized_with_a_prompt(
    cli: Cli, tiny_embedder: Path, embedder: Engine, text_file: Path, tmp_path: Path
) -> None:
    options = ("--no-normalize", "--prompt", "bread ")
    cli("embed", tiny_embedder, text_file, "-o", tmp_path / "out.npy", *options)
    expected = embedder.embed(TEXTS, normalize=False, prompt="bread ")
    assert np.array_equal(np.load(tmp_path / "out.npy"), expected)


def test_embed_a_column_to_standard_output(
    cli: Cli, tiny_embedder: Path, embedder: Engine, tmp_path: Path
) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"body": "a river runs", "id": 9}\n')
    ran = cli("embed", tiny_embedder, path, "-o", "-", "--text-column", "body")
    row = json.loads(ran.out)
    assert (row["index"], row["id"]) == (0, 9)
    expected = embedder.embed("a river runs")[0]
    assert np.array_equal(np.array(row["embedding"], np.float32), expected)
    assert "1 rows to standard output" in ran.err


def test_embed_with_a_matryoshka_override(
    cli: Cli, tiny_embedder: Path, text_file: Path, tmp_path: Path
) -> None:
    options = ("--dimensions", "9", "--hf-overrides", '{"matryoshka_dimensions": [9]}')
    cli("embed", tiny_embedder, text_file, "-o", tmp_path / "out.npy", *options)
    assert np.load(tmp_path / "out.npy").shape == (3, 9)


@pytest.mark.parametrize(
    ("options", "use_activation"),
    [((), None), (("--use-activation",), True), (("--no-use-activation",), False)],
)
def test_classify(
    cli: Cli,
    tiny_classifier: Path,
    classifier: Engine,
    text_file: Path,
    options: tuple[str, ...],
    use_activation: bool | None,
) -> None:
    output = text_file.with_name("out.npy")
    assert cli("classify", tiny_classifier, text_file, "-o", output, *options).code == 0
    expected = classifier.classify(TEXTS, use_activation=use_activation).probs
    assert np.array_equal(np.load(output), expected)


def test_score(cli: Cli, tiny_cross_encoder: Path, cross_encoder: Engine, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"q": "bread", "d": "flour"}\n{"q": "river", "d": "town"}\n')
    columns = ("--left-column", "q", "--right-column", "d")
    ran = cli("score", tiny_cross_encoder, path, "-o", tmp_path / "out.npy", *columns)
    assert ran.code == 0
    expected = cross_encoder.score(["bread", "river"], ["flour", "town"])
    assert np.array_equal(np.load(tmp_path / "out.npy"), expected)


def test_score_by_a_label(
    cli: Cli, tiny_classifier: Path, classifier: Engine, tmp_path: Path
) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"query": "bread", "document": "flour"}\n')
    cli("score", tiny_classifier, path, "-o", tmp_path / "out.npy", "--label", "neutral")
    expected = classifier.score("bread", "flour", label="neutral")
    assert np.array_equal(np.load(tmp_path / "out.npy"), expected)


@pytest.mark.parametrize(
    ("content", "options", "code", "message"),
    [
        ('{"text": "a"}\n{"text": "b"}\n{"text"}\n', (), 3, "line 3: not JSON"),
        ('{"body": "a"}\n', (), 3, "line 1: no column 'text'; it has 'body'"),
        ('{"text": "' + "bread " * 99 + '"}\n', (), 3, "line 1: item 0 has 101 tokens"),
        ('{"text": "a"}\n', ("--dimensions", "9"), 3, "trained for: 8, 16"),
        ('{"text": "a"}\n', ("--output-dtype", "int4"), 2, "output_dtype is 'int4'"),
        ('{"text": "a"}\n', ("--prompt-name", "nope"), 2, "prompt_name is 'nope'"),
        ('{"text": "a"}\n', ("--hf-overrides", "{"), 2, "--hf-overrides is not JSON at position 1"),
        (
            '{"text": "a"}\n',
            ("--max-length", "9"),
            2,
            "max_length cannot change a compiled artifact",
        ),
    ],
)
def test_bad_input(
    cli: Cli,
    tiny_embedder: Path,
    tmp_path: Path,
    content: str,
    options: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(content)
    ran = cli("embed", tiny_embedder, path, "-o", tmp_path / "out.npy", "--strict", *options)
    assert ran.code == code
    assert ran.err.startswith("error: ")
    assert message in ran.err
    assert ran.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [path]


def test_long_text_with_truncate(cli: Cli, tiny_embedder: Path, tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_text("bread " * 99)
    assert cli("embed", tiny_embedder, path, "-o", tmp_path / "out.npy", "--truncate").code == 0


def test_wrong_task(cli: Cli, tiny_embedder: Path, text_file: Path) -> None:
    ran = cli("classify", tiny_embedder, text_file, "-o", text_file.with_name("out.npy"))
    assert ran.code == 3
    assert "does not support classify; it supports: embed" in ran.err


def test_files_are_checked_before_the_model(cli: Cli, tmp_path: Path) -> None:
    ran = cli("embed", "no/such/model", tmp_path / "missing.txt", "-o", tmp_path / "out.npy")
    assert ran.code == 3
    assert "missing.txt: No such file or directory" in ran.err


def test_empty_model_folder(cli: Cli, text_file: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    ran = cli("embed", tmp_path / "model", text_file, "-o", tmp_path / "out.npy")
    assert ran.code == 4


def test_long_texts(cli: Cli, tiny_embedder: Path, embedder: Engine, tmp_path: Path) -> None:
    texts = ["a river", "bread needs flour water " * 40]
    path, output = tmp_path / "in.txt", tmp_path / "out.jsonl"
    path.write_text("\n".join(texts) + "\n")
    left = {"truncate": True, "truncation_side": "left"}
    for options, arguments in (
        (("--truncate", "--truncation-side", "left"), left),
        (("--chunk",), {"chunk": True}),
    ):
        ran = cli("embed", tiny_embedder, path, "-o", output, *options)
        assert ran.code == 0
        rows = [json.loads(line) for line in output.read_text().splitlines()]
        found = np.array([row["embedding"] for row in rows], np.float32)
        stripped = [text.rstrip("\n") for text in texts]
        np.testing.assert_allclose(found, embedder.embed(stripped, **arguments), atol=1e-6)
        cut = [row.get("truncated") for row in rows]
        assert cut == ([False, True] if "truncate" in arguments else [None, None])
        assert ("1 of them truncated" in ran.err) == ("truncate" in arguments)
    ran = cli("embed", tiny_embedder, path, "-o", output, "--chunk", "--truncate")
    assert "chunk and truncate contradict each other" in ran.err


def test_score_with_an_instruction_and_budgets(
    cli: Cli, artifact: Callable[[str], Path], tmp_path: Path
) -> None:
    path, folder = tmp_path / "in.jsonl", artifact("tiny_lm_reranker")
    path.write_text('{"query": "a river in town", "document": "bread needs flour"}\n')
    options = ("--instruction", "Find", "--max-query-length", "2", "--max-document-length", "1")
    ran = cli("score", folder, path, "-o", "-", *options)
    engine = poolc.load(folder)
    pairs = [("a river in town", "bread needs flour")]
    (wanted,) = engine.score_iter(
        pairs, instruction="Find", max_query_length=2, max_document_length=1
    )
    assert json.loads(ran.out)["score"] == pytest.approx(wanted)


def test_score_with_a_template(cli: Cli, artifact: Callable[[str], Path], tmp_path: Path) -> None:
    path, folder = tmp_path / "in.jsonl", artifact("tiny_lm_reranker")
    path.write_text('{"query": "a river in town", "document": "bread needs flour"}\n')
    template = tmp_path / "own.jinja"
    template.write_text("{{ document }} of {{ query }}")
    engine = poolc.load(folder)
    pair: Any = ("a river in town", "bread needs flour")
    ran = cli("score", folder, path, "-o", "-", "--template", template)
    (wanted,) = engine.score(*pair, template=template.read_text())
    assert json.loads(ran.out)["score"] == pytest.approx(float(wanted), abs=1e-6)
    ran = cli(
        "classify",
        folder,
        path,
        "-o",
        "-",
        "--left-column",
        "query",
        "--right-column",
        "document",
        "--instruction",
        "Find",
    )
    wanted_probs = engine.classify([pair], instruction="Find").probs[0]
    assert [*json.loads(ran.out)["probs"].values()] == pytest.approx(wanted_probs, abs=1e-6)
    ran = cli("score", folder, path, "-o", "-", "--template", "none.jinja")
    assert "--template is 'none.jinja', which is neither a file" in ran.err
    ran = cli("classify", folder, path, "-o", "-", "--left-column", "query")
    assert "a pair has two columns: name both or none" in ran.err


def test_cut_to_a_number_of_tokens(
    cli: Cli, tiny_classifier: Path, classifier: Engine, tmp_path: Path
) -> None:
    path = tmp_path / "in.txt"
    path.write_text("bread needs flour " * 5 + "\nno\n")
    options = ("--truncate-prompt-tokens", "6", "--truncation-side", "left")
    ran = cli("classify", tiny_classifier, path, "-o", "-", *options)
    rows = [json.loads(line) for line in ran.out.splitlines()]
    assert [row["truncated"] for row in rows] == [True, False]
    texts = path.read_text().splitlines()
    wanted = classifier.classify(texts, truncate=True, max_length=6, truncation_side="left").probs
    found = [[*row["probs"].values()] for row in rows]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    ran = cli("classify", tiny_classifier, path, "-o", "-", "--truncate-prompt-tokens", "0")
    assert "--truncate-prompt-tokens is 0; allowed: 1 or more tokens, or -1" in ran.err
    assert cli("embed", tiny_classifier, path, "-o", "-", "--help").out.count("its route") == 1
