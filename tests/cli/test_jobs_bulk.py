"""What the commands of bulk jobs say and end with: events, failed rows, columns, appending."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from poolc.cli.exit_codes import SOME_ROWS_FAILED
from poolc.runtime.engine import Engine
from tests.cli.conftest import Cli


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Three rows, the second without text."""
    path = tmp_path / "in.jsonl"
    texts = ("the quick brown fox", "", "bread needs flour")
    lines = [{"key": f"k{i}", "text": text, "year": 1990 + i} for i, text in enumerate(texts)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_failed_rows_are_told(cli: Cli, tiny_embedder: Path, rows: Path) -> None:
    output = rows.with_name("out.parquet")
    options = ("--id-column", "key", "--keep", "year")
    ran = cli("embed", tiny_embedder, rows, "-o", output, *options)
    assert (ran.code, ran.out) == (SOME_ROWS_FAILED, "")
    assert f"1 rows could not be processed: {output}.errors.jsonl says why" in ran.err
    table = pyarrow.parquet.read_table(output)
    assert table.select(["index", "id", "year"]).to_pylist() == [
        {"index": 0, "id": "k0", "year": 1990},
        {"index": 2, "id": "k2", "year": 1992},
    ]
    assert cli("embed", tiny_embedder, rows, "-o", output, "--strict").code == 3


def test_events(cli: Cli, tiny_embedder: Path, embedder: Engine, rows: Path) -> None:
    output = rows.with_name("out.jsonl")
    ran = cli("embed", tiny_embedder, rows, "-o", output, "--json", "--part-rows", "1")
    events = [json.loads(line) for line in ran.err.splitlines()]
    done = events[-1]
    assert (done["event"], done["rows"], done["failed"]) == ("done", 2, 1)
    assert done["meta"]["space_id"] == embedder.artifact.space_id
    assert done["errors"] == f"{output}.errors.jsonl"


def test_folder_and_append(cli: Cli, tiny_embedder: Path, text_file: Path) -> None:
    output = f"{text_file.parent}/out/"
    assert cli("embed", tiny_embedder, text_file, "-o", output, "--part-rows", "2").code == 0
    more = text_file.with_name("more.csv")
    more.write_text("text\na town\n")
    assert cli("embed", tiny_embedder, more, "-o", output, "--append").code == 0
    parts = sorted(path.name for path in Path(output).glob("part-*"))
    assert parts == ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    assert pyarrow.parquet.read_table(output).column("index").to_pylist() == [0, 1, 2, 3]


def test_encode(cli: Cli, tiny_embedder: Path, embedder: Engine, text_file: Path) -> None:
    ran = cli("encode", tiny_embedder, text_file, "-o", "-", "--dimensions", "8", "--normalize")
    assert ran.code == 0, ran.err
    found = [json.loads(line)["token_embeddings"] for line in ran.out.splitlines()]
    texts = text_file.read_text().splitlines()
    for row, expected in zip(
        found, embedder.encode(texts, dimensions=8, normalize=True), strict=True
    ):
        np.testing.assert_allclose(row, expected, atol=1e-5)


@pytest.mark.parametrize("model", ["tiny_cross_encoder"])
def test_reward(cli: Cli, artifact: Callable[[str], Path], text_file: Path, model: str) -> None:
    import poolc

    ran = cli("reward", artifact(model), text_file, "-o", "-")
    assert ran.code == 0, ran.err
    found = [json.loads(line)["reward"] for line in ran.out.splitlines()]
    expected: Any = poolc.load(artifact(model)).reward(text_file.read_text().splitlines())
    for row, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(row, wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--part-rows", "0"), "part_rows is 0; allowed: 1 or more"),
        (("--input-format", "xml"), "input_format is 'xml'; allowed: text, jsonl"),
        (("--output-format", "csv"), "output_format is 'csv'; allowed: jsonl, parquet"),
        (("--keep", "year"), "a file of texts has no columns to keep"),
    ],
)
def test_wrong_options(
    cli: Cli, tiny_embedder: Path, text_file: Path, options: tuple[str, ...], message: str
) -> None:
    ran = cli("embed", tiny_embedder, text_file, "-o", text_file.with_name("o.jsonl"), *options)
    assert ran.code == 2
    assert message in ran.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--engine", "rai"), "--engine is 'rai'; allowed: local, ray; did you mean ray?"),
        (("--workers", "2"), "--workers is for --engine ray: add it"),
        (("--ray-address", "auto"), "--ray-address is for --engine ray: add it"),
        (("--engine", "ray", "--workers", "2-3"), "workers is '2-3'; allowed: how many (4)"),
        (("--engine", "ray", "--num-cpus", "0"), "num_cpus is 0; allowed: more than 0"),
    ],
)
def test_engine_options_refused(
    cli: Cli, tiny_embedder: Path, text_file: Path, options: tuple[str, ...], message: str
) -> None:
    ran = cli("embed", tiny_embedder, text_file, "-o", "-", *options)
    assert ran.code == 2
    assert message in ran.err
