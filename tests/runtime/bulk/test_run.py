"""File-to-file jobs: what comes out equals the engine's answers, and bad input names its line."""

from __future__ import annotations

import io
import json
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poolc.errors import (
    InputError,
    InvalidDimensions,
    InvalidOption,
    InvalidText,
    TextTooLong,
    UnsupportedTask,
)
from poolc.runtime.bulk import (
    BulkJob,
    BulkProgress,
    BulkResult,
    Columns,
    Settings,
    check,
    run,
)
from poolc.runtime.calls import WINDOW
from poolc.runtime.engine import Engine
from poolc.runtime.request import Params
from poolc.spec import Task

TEXTS = ["the quick brown fox", "a river runs", "bread needs flour"]
PAIRS = [("bread", "flour"), ("bread", "water"), ("river", "town")]


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "in.txt"
    path.write_text("\n".join(TEXTS) + "\n")
    return path


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def embed(engine: Engine, path: Path, output: Path | str, **params: Any) -> BulkResult:
    return run(engine, BulkJob(Task.EMBED, (path,), str(output), params=Params(**params)))


def embed_strictly(engine: Engine, path: Path, output: Path) -> BulkResult:
    job = BulkJob(Task.EMBED, (path,), str(output), settings=Settings(strict=True))
    return run(engine, job)


def test_embed_text_to_npy(embedder: Engine, text_file: Path) -> None:
    output = text_file.with_name("out.npy")
    result = embed(embedder, text_file, output)
    assert result.num_rows == 3
    vectors = np.load(output)
    assert vectors.dtype == np.float32
    assert np.array_equal(vectors, embedder.embed(TEXTS))


def test_embed_text_to_jsonl(embedder: Engine, text_file: Path) -> None:
    output = text_file.with_name("out.jsonl")
    embed(embedder, text_file, output)
    rows = read_jsonl(output)
    assert [list(row) for row in rows] == [["index", "embedding"]] * 3
    assert [row["index"] for row in rows] == [0, 1, 2]
    vectors = np.array([row["embedding"] for row in rows], np.float32)
    assert np.array_equal(vectors, embedder.embed(TEXTS))


def test_ids_are_kept(embedder: Engine, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": "a", "text": TEXTS[0]},
        {"text": TEXTS[1]},
        {"id": 7, "text": TEXTS[2]},
    ]
    path = write_jsonl(tmp_path / "in.jsonl", rows)
    embed(embedder, path, tmp_path / "out.jsonl")
    assert [row.get("id") for row in read_jsonl(tmp_path / "out.jsonl")] == ["a", None, 7]


def test_params_reach_the_engine(embedder: Engine, text_file: Path) -> None:
    output = text_file.with_name("out.npy")
    options: dict[str, Any] = {"dimensions": 16, "prompt_name": "query", "output_dtype": "ubinary"}
    embed(embedder, text_file, output, **options)
    assert np.array_equal(np.load(output), embedder.embed(TEXTS, **options))


def test_meta_describes_the_rows(embedder: Engine, text_file: Path) -> None:
    output = text_file.with_name("out.npy")
    result = embed(embedder, text_file, output, dimensions=8, prompt_name="query")
    meta = json.loads(output.with_name("out.npy.meta.json").read_text())
    assert meta == result.meta
    assert meta["artifact_id"] == embedder.artifact.artifact_id
    assert meta["space_id"] == embedder.artifact.space_id
    assert meta["params"] == {"dimensions": 8, "prompt_name": "query"}
    assert (meta["rows"], meta["row_shape"], meta["prompt"]) == (3, [8], "query: ")


def test_several_inputs_in_order(embedder: Engine, text_file: Path) -> None:
    more = write_jsonl(text_file.with_name("more.jsonl"), [{"body": "a cat sleeps"}])
    output = text_file.with_name("out.npy")
    run(embedder, BulkJob(Task.EMBED, (text_file, more), str(output), Columns("body")))
    assert np.array_equal(np.load(output), embedder.embed([*TEXTS, "a cat sleeps"]))


def test_more_than_the_engine_reads_ahead(embedder: Engine, tmp_path: Path) -> None:
    texts = [f"{number} bridges" for number in range(4 * WINDOW + 5)]
    path = tmp_path / "in.txt"
    path.write_text("\n".join(texts))
    embed(embedder, path, tmp_path / "out.npy")
    assert np.array_equal(np.load(tmp_path / "out.npy"), embedder.embed(texts))


def test_windows_line_ends_and_a_byte_order_mark(embedder: Engine, tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(TEXTS).encode())
    embed(embedder, path, tmp_path / "out.npy")
    assert np.array_equal(np.load(tmp_path / "out.npy"), embedder.embed(TEXTS))


def test_blank_lines_of_jsonl_are_skipped(embedder: Engine, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"text": "bread"}\n\n{"text": "flour"}\n \n')
    assert embed(embedder, path, tmp_path / "out.npy").num_rows == 2


def test_classify_to_jsonl(classifier: Engine, text_file: Path) -> None:
    output = text_file.with_name("out.jsonl")
    run(classifier, BulkJob(Task.CLASSIFY, (text_file,), str(output)))
    expected = classifier.classify(TEXTS)
    rows = read_jsonl(output)
    assert [row["label"] for row in rows] == expected.labels
    assert list(rows[0]["probs"]) == ["negative", "neutral", "positive"]
    probs = np.array([list(row["probs"].values()) for row in rows], np.float32)
    assert np.array_equal(probs, expected.probs)


def test_classify_logits_to_npy(classifier: Engine, text_file: Path) -> None:
    output = text_file.with_name("out.npy")
    params = Params(use_activation=False)
    result = run(classifier, BulkJob(Task.CLASSIFY, (text_file,), str(output), params=params))
    expected = classifier.classify(TEXTS, use_activation=False)
    assert np.array_equal(np.load(output), expected.probs)
    assert result.meta["values"] == "logits"
    assert result.meta["labels"] == ["negative", "neutral", "positive"]


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        (("text_1", "text_2"), Columns()),
        (("query", "document"), Columns()),
        (("sentence1", "sentence2"), Columns()),
        (("q", "d"), Columns(left="q", right="d")),
    ],
)
def test_score_columns(
    cross_encoder: Engine, tmp_path: Path, names: tuple[str, str], columns: Columns
) -> None:
    path = write_jsonl(
        tmp_path / "in.jsonl", [dict(zip(names, pair, strict=True)) for pair in PAIRS]
    )
    run(cross_encoder, BulkJob(Task.SCORE, (path,), str(tmp_path / "out.jsonl"), columns))
    rows = read_jsonl(tmp_path / "out.jsonl")
    assert [list(row) for row in rows] == [["index", "score"]] * 3
    expected = cross_encoder.score([p[0] for p in PAIRS], [p[1] for p in PAIRS])
    assert np.array_equal(np.array([row["score"] for row in rows], np.float32), expected)


def test_score_by_similarity_to_npy(embedder: Engine, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "in.jsonl", [{"text_1": a, "text_2": b} for a, b in PAIRS])
    run(embedder, BulkJob(Task.SCORE, (path,), str(tmp_path / "out.npy")))
    scores = np.load(tmp_path / "out.npy")
    expected = embedder.score([p[0] for p in PAIRS], [p[1] for p in PAIRS])
    assert (scores.shape, scores.dtype) == ((3,), np.float32)
    assert np.array_equal(scores, expected)


def test_standard_output(
    embedder: Engine, text_file: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    embed(embedder, text_file, "-")
    rows = [json.loads(line) for line in capsysbinary.readouterr().out.splitlines()]
    assert [row["index"] for row in rows] == [0, 1, 2]
    assert list(text_file.parent.iterdir()) == [text_file]


def test_progress_reaches_the_end(embedder: Engine, text_file: Path) -> None:
    seen: list[BulkProgress] = []
    job = BulkJob(Task.EMBED, (text_file,), str(text_file.with_name("out.npy")))
    run(embedder, job, seen.append)
    size = text_file.stat().st_size
    last = seen[-1]
    assert (last.num_rows, last.done_bytes, last.total_bytes) == (3, size, size)
    assert (last.num_tokens, last.eta_s) == (sum(len(embedder.tokenize(t)) for t in TEXTS), 0.0)
    assert last.num_computed >= last.num_tokens
    assert last.padding == 1 - last.num_tokens / last.num_computed


# Bad input: the file, the line, what is wrong; no output.


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "in.jsonl",
            b'{"text": "a"}\n{"text": "b"}\n{"text": c}\n',
            r"line 3: not JSON at column 10",
        ),
        ("in.jsonl", b'{"text": "a"}\n[1]\n', "line 2: must be an object .*, not a list"),
        ("in.jsonl", b'{"text": "a"}\n{"body": "b"}\n', "line 2: no column 'text'; it has 'body'"),
        ("in.jsonl", b'{"text": null}\n', "line 1: column 'text' must be a string, not null"),
        ("in.jsonl", b'{"text": 3}\n', "must be a string, not a number"),
        ("in.jsonl", b'{"text": ""}\n', "line 1: item 0 is empty"),
        ("in.jsonl", b'{"text": "\\ud800"}\n', "line 1: not JSON"),
        ("in.jsonl", b"\n\n", "no texts in "),
        ("in.txt", b"a\nb\n\xff\n", "line 3: not valid UTF-8 at byte 1"),
        ("in.txt", b"a\n\nb\n", "line 2: item 1 is empty"),
        ("in.txt", b"", "no texts in "),
    ],
)
def test_bad_records(
    embedder: Engine, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InvalidText, match=message) as caught:
        embed_strictly(embedder, path, tmp_path / "out.npy")
    assert str(path) in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("line", [3, WINDOW + 7])
def test_too_long_names_the_line(embedder: Engine, tmp_path: Path, line: int) -> None:
    path = tmp_path / "in.txt"
    path.write_text("bread\n" * (line - 1) + "bread " * 200 + "\nbread\n")
    with pytest.raises(TextTooLong, match=f"in.txt, line {line}: item {line - 1} has") as caught:
        embed_strictly(embedder, path, tmp_path / "out.npy")
    assert caught.value.index == line - 1
    assert list(tmp_path.iterdir()) == [path]


def test_too_long_cut_on_request(embedder: Engine, tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_text("bread " * 200)
    embed(embedder, path, tmp_path / "out.npy", truncate=True)
    expected = embedder.embed("bread " * 200, truncate=True)
    assert np.array_equal(np.load(tmp_path / "out.npy"), expected)


@pytest.mark.parametrize(
    ("row", "columns", "message"),
    [
        ({"a": "x", "b": "y"}, Columns(), "no pair of columns text_1 and text_2 or query"),
        ({"text_1": "x"}, Columns(left="text_1", right="text_2"), "no column 'text_2'"),
        ({"text_1": "x", "text_2": {}}, Columns(), "'text_2' must be a string, not an object"),
    ],
)
def test_bad_pairs(
    embedder: Engine, tmp_path: Path, row: dict[str, Any], columns: Columns, message: str
) -> None:
    path = write_jsonl(tmp_path / "in.jsonl", [row])
    job = BulkJob(
        Task.SCORE, (path,), str(tmp_path / "out.npy"), columns, settings=Settings(strict=True)
    )
    with pytest.raises(InvalidText, match=message):
        run(embedder, job)


def test_one_named_column_of_a_pair(embedder: Engine, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "in.jsonl", [{"q": "x"}])
    with pytest.raises(InvalidOption, match="name both or none"):
        run(embedder, BulkJob(Task.SCORE, (path,), str(tmp_path / "out.npy"), Columns(left="q")))


def test_pairs_are_not_read_from_text(embedder: Engine, text_file: Path) -> None:
    with pytest.raises(InvalidOption, match="pairs are read from two columns"):
        run(embedder, BulkJob(Task.SCORE, (text_file,), str(text_file.with_name("out.npy"))))


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ((), InvalidOption, "no input was given"),
        (("missing.txt",), InputError, "cannot read .*missing.txt: No such file"),
        (("empty",), InputError, "the folder .*empty has no file of a known format"),
        (("*.csv",), InputError, "the pattern .* has no file of a known format"),
        (("in.docx",), InvalidOption, r"inputs are text \(.txt, .text\).*; not .docx"),
        (("in.parquet.gz",), InvalidOption, "compressed inside"),
    ],
)
def test_bad_inputs(
    embedder: Engine,
    text_file: Path,
    inputs: tuple[str, ...],
    error: type[InputError],
    message: str,
) -> None:
    (text_file.parent / "empty").mkdir()
    paths = tuple(text_file.parent / name for name in inputs)
    with pytest.raises(error, match=message):
        run(embedder, BulkJob(Task.EMBED, paths, str(text_file.with_name("out.npy"))))


@pytest.mark.parametrize(
    ("output", "error", "message"),
    [
        ("out.csv", InvalidOption, r"allowed: jsonl \(.jsonl, .ndjson\), parquet .*npy"),
        ("out", InvalidOption, "no known format"),
        ("missing/out.npy", InputError, "missing does not exist"),
        ("folder.npy", InputError, "is a folder"),
        ("out.npy", InputError, "out.npy.meta.json is a folder"),
    ],
)
def test_bad_outputs(
    embedder: Engine, text_file: Path, output: str, error: type[InputError], message: str
) -> None:
    (text_file.parent / "folder.npy").mkdir()
    (text_file.parent / "out.npy.meta.json").mkdir()
    with pytest.raises(error, match=message):
        embed(embedder, text_file, text_file.parent / output)


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("in.jsonl", "in.jsonl"),
        ("in.jsonl", "folder/../in.jsonl"),
        ("in.jsonl", "symbolic.jsonl"),
        ("in.jsonl", "hard.jsonl"),
    ],
)
def test_output_that_is_an_input(tmp_path: Path, name: str, output: str) -> None:
    path = write_jsonl(tmp_path / name, [{"text": "bread"}])
    (tmp_path / "folder").mkdir()
    (tmp_path / "symbolic.jsonl").symlink_to(path)
    (tmp_path / "hard.jsonl").hardlink_to(path)
    other = write_jsonl(tmp_path / "other.jsonl", [{"text": "flour"}])
    with pytest.raises(InputError, match=r"the output .* is the input .*: name another file"):
        check(BulkJob(Task.EMBED, (other, path), str(tmp_path / output)))


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    """It would be opened twice, and the second time nobody writes to it."""
    os.mkfifo(tmp_path / "texts")
    with pytest.raises(InputError, match=r"texts is a pipe, which can be read once: give - in"):
        check(BulkJob(Task.EMBED, (tmp_path / "texts",), str(tmp_path / "out.npy")))


def test_a_pipe_of_the_shell_is_read(embedder: Engine) -> None:
    receive, send = os.pipe()
    os.write(send, b"a river runs\n")
    os.close(send)
    with os.fdopen(receive), redirect_stdout(io.TextIOWrapper(io.BytesIO())) as printed:
        embed(embedder, Path(f"/dev/fd/{receive}"), "-")
        assert len(printed.buffer.getvalue().splitlines()) == 1


@pytest.mark.parametrize("name", ["stdin", "stdout"])
def test_closed_standard_streams(
    text_file: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, name, None)
    inputs, output = ("-", "out.npy") if name == "stdin" else (text_file, "-")
    with pytest.raises(InputError, match=r"standard \w+put \(-\) is closed: name a file"):
        check(BulkJob(Task.EMBED, (inputs,), output))


def test_output_that_the_disk_refuses(embedder: Engine, text_file: Path) -> None:
    with pytest.raises(InputError, match=r"cannot write .*: File name too long"):
        embed(embedder, text_file, text_file.with_name("a" * 250 + ".npy"))


def test_wrong_task(classifier: Engine, text_file: Path) -> None:
    with pytest.raises(UnsupportedTask):
        embed(classifier, text_file, text_file.with_name("out.npy"))


def test_task_without_jobs(embedder: Engine, text_file: Path) -> None:
    with pytest.raises(InvalidOption, match="no jobs of embed_hybrid; allowed: embed,"):
        run(embedder, BulkJob(Task.EMBED_HYBRID, (text_file,), "-"))


def test_bad_params_leave_nothing(embedder: Engine, text_file: Path) -> None:
    with pytest.raises(InvalidDimensions):
        embed(embedder, text_file, text_file.with_name("out.npy"), dimensions=9)
    assert list(text_file.parent.iterdir()) == [text_file]


def test_an_error_keeps_the_older_output(embedder: Engine, tmp_path: Path) -> None:
    output, path = tmp_path / "out.npy", tmp_path / "in.txt"
    output.write_bytes(b"older")
    path.write_text("a\n\n")
    with pytest.raises(InvalidText):
        embed_strictly(embedder, path, output)
    assert output.read_bytes() == b"older"
