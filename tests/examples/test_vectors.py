"""Vectors of a bulk job in databases: each example finds what comparing every vector finds."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from poolc import bulk
from poolc.runtime.engine import Engine
from tests.clients.environments import DATABASES, ROOT, python_of

EXAMPLES = ROOT / "examples"
QUERIES = [
    json.loads(line)["text"]
    for line in (EXAMPLES / "demo/queries.jsonl").read_text(encoding="utf-8").splitlines()[:3]
]
POSTGRES = Path(__file__).parent / "programs" / "postgres_server.py"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # the first run installs packages


@pytest.fixture(scope="module")
def vectors(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's passages, embedded into Parquet."""
    output = tmp_path_factory.mktemp("vectors") / "vectors.parquet"
    bulk.embed(minilm, EXAMPLES / "demo/passages.jsonl", output, keep="all", part_rows=64)
    return output


@pytest.fixture(scope="module")
def engine(minilm: Path) -> Engine:
    from poolc import load

    return load(minilm)


def nearest(engine: Engine, vectors: Path, query: str) -> list[str]:
    """Return the ids of the five rows whose cosine is the highest."""
    table = pyarrow.parquet.read_table(vectors)
    rows = np.array(table["embedding"].to_pylist(), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    order = np.argsort(-(rows @ engine.embed_query(query)[0]))[:5]
    ids = table["id"].to_pylist()
    return [ids[place] for place in order.tolist()]


def run(program: str, *arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [str(python_of(DATABASES)), str(EXAMPLES / "vectors" / program), *map(str, arguments)]
    return subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def found(program: str, *arguments: str | Path, cwd: Path) -> list[str]:
    """Run an example; return the ids that it printed."""
    done = run(program, *arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr[-3000:]
    return [line.split("\t")[0] for line in done.stdout.splitlines()]


@pytest.mark.parametrize("program", ["in_duckdb", "in_lancedb", "in_faiss", "in_usearch"])
def test_search(program: str, minilm: Path, engine: Engine, vectors: Path, tmp_path: Path) -> None:
    for query in QUERIES:  # the second finds the index that the first made
        expected = nearest(engine, vectors, query)
        assert found(f"{program}.py", minilm, vectors, query, cwd=tmp_path) == expected


def test_duckdb_with_an_index(minilm: Path, engine: Engine, vectors: Path, tmp_path: Path) -> None:
    done = run("in_duckdb.py", minilm, vectors, QUERIES[0], "--index", cwd=tmp_path)
    if "Failed to download extension" in done.stderr:
        pytest.skip("the extension vss cannot be downloaded here")
    assert done.returncode == 0, done.stderr[-3000:]
    ids = [line.split("\t")[0] for line in done.stdout.splitlines()]
    assert ids == nearest(engine, vectors, QUERIES[0])


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[str]:
    """A database server with pgvector, of its own for the test."""
    command = [str(python_of(DATABASES)), str(POSTGRES), str(tmp_path / "server")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.communicate()  # the end of its input stops it


def test_postgres(
    connection: str, minilm: Path, engine: Engine, vectors: Path, tmp_path: Path
) -> None:
    for query, more in zip(QUERIES, ((), (), ("--index",)), strict=True):
        expected = nearest(engine, vectors, query)
        ids = found("in_postgres.py", minilm, vectors, query, connection, *more, cwd=tmp_path)
        assert ids == expected


def test_vectors_of_another_model_are_refused(
    tiny_embedder: Path, vectors: Path, tmp_path: Path
) -> None:
    done = run("in_faiss.py", tiny_embedder, vectors, "a query", cwd=tmp_path)
    assert (done.returncode, "made by another model" in done.stderr) == (1, True)
