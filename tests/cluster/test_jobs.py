"""Bulk jobs on a real cluster of worker processes: the files of a single process, byte for byte."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from poolc import bulk
from poolc.runtime.engine import Engine
from poolc.spec import Task
from tests.cluster.environment import output_of, said_by, said_in
from tests.runtime.bulk.conftest import content, texts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NUM_ROWS = 1_000
PART_ROWS = 50


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs: JSON lines with texts that occur again and some that cannot be processed; a table."""
    folder = tmp_path_factory.mktemp("ray")
    rows = [
        {"id": i, "text": f"{text} {i % 997}", "y": i} for i, text in enumerate(texts(NUM_ROWS))
    ]
    for bad in (70, 71, 900):
        rows[bad]["text"] = "" if bad % 2 else "bread " * 200
    lines = folder / "in.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    years = [None if i % 3 else f"{1990 + i % 20}" for i in range(NUM_ROWS)]
    table = {"text": [row["text"] for row in rows], "year": years}
    pyarrow.parquet.write_table(pyarrow.table(table), folder / "in.parquet", row_group_size=333)
    pairs = [{"query": text, "document": text[::-1]} for text in texts(200)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return folder


def job(model: Path, inputs: Path, output: str, task: str = "embed", **options: Any) -> Any:
    """Return what the program is told of a job."""
    known = {name: options.pop(name) for name in ("kill", "unreachable") if name in options}
    options = {"part_rows": PART_ROWS, "workers": "2", **options}
    said = {"task": task, "model": str(model), "inputs": str(inputs), "output": output}
    return {**said, "options": options, **known}


def alone(engine: Engine, said: Any) -> Any:
    """Run a job of the program in this process."""
    options = {name: v for name, v in said["options"].items() if name not in ("workers",)}
    made = bulk.job_of(Task(said["task"]), said["inputs"], said["output"], options)
    return bulk.run(engine, made)


def compare(engine: Engine, jobs: list[Any], root: Path) -> list[Any]:
    """Run jobs on the cluster and alone; check that files are equal; return what it said."""
    said = said_by("jobs", json.dumps(jobs))
    found = content(root)
    shutil.rmtree(root)
    root.mkdir()
    for one in jobs:
        alone(engine, one)
    expected = content(root)
    assert found.keys() == expected.keys()
    for name, data in expected.items():
        assert found[name] == data, name
    return list(said)


def test_every_format(embedder: Engine, tiny_embedder: Path, folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "out"
    root.mkdir()
    lines, table = folder / "in.jsonl", folder / "in.parquet"
    jobs = [
        job(tiny_embedder, lines, f"{root}/out.jsonl", keep=("y",)),
        job(tiny_embedder, lines, f"{root}/out.npy", output_dtype="int8"),
        job(tiny_embedder, lines, f"{root}/once.parquet", dedupe=True, truncate=True),
        job(tiny_embedder, table, f"{root}/kept.parquet", keep=("year",), workers="3"),
        job(tiny_embedder, table, f"{root}/parts/", keep=("all",), dimensions=8),
        job(tiny_embedder, table, f"{root}/far.arrow", keep=("all",), unreachable=True),
        job(tiny_embedder, lines, f"{root}/tokens.arrow", "encode", truncate=True),
        job(tiny_embedder, folder / "pairs.jsonl", f"{root}/scores.npy", "score"),
    ]
    said = compare(embedder, jobs, root)
    assert all(one["rows"] for one in said), said
    assert [one["failed"] for one in said[:2]] == [3, 3]
    assert [one["workers"] for one in said[:4]] == [2, 2, 2, 3]


def test_a_worker_is_killed(
    embedder: Engine, tiny_embedder: Path, folder: Path, tmp_path: Path
) -> None:
    root = tmp_path / "out"
    root.mkdir()
    jobs = [
        job(tiny_embedder, folder / "in.jsonl", f"{root}/{name}", kill="worker", **options)
        for name, options in (
            ("parts/", {"keep": ("y",)}),
            ("once.npy", {"dedupe": True, "truncate": True}),
        )
    ]
    said = compare(embedder, jobs, root)
    for one in said:
        assert "a worker was lost" in one["events"][0], one
        assert one["begun"] == 3


def test_begun_on_ray_and_finished_without(
    embedder: Engine, tiny_embedder: Path, folder: Path, tmp_path: Path
) -> None:
    expected_root, root = tmp_path / "expected", tmp_path / "out"
    for one in (expected_root, root):
        one.mkdir()
    told = job(tiny_embedder, folder / "in.jsonl", f"{root}/parts/", keep=("y",))
    output_of("jobs", json.dumps([{**told, "kill": "driver"}]), dies=True)
    result = alone(embedder, told)
    assert 0 < result.num_resumed < NUM_ROWS
    alone(embedder, {**told, "output": f"{expected_root}/parts/"})
    assert content(root) == content(expected_root)


def test_begun_without_ray_and_finished_on_it(
    embedder: Engine,
    tiny_embedder: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from poolc.runtime.bulk.commit import Commit

    told = job(tiny_embedder, folder / "in.jsonl", f"{tmp_path}/out.parquet", keep=("y",))
    add = Commit.add

    def stop(self: Commit, answered: Any) -> Any:
        if answered.part.number == 7:
            raise KeyboardInterrupt
        return add(self, answered)

    monkeypatch.setattr(Commit, "add", stop)
    with pytest.raises(KeyboardInterrupt):
        alone(embedder, told)
    monkeypatch.undo()
    (said,) = said_by("jobs", json.dumps([told]))
    assert said["resumed"] == 7 * PART_ROWS
    expected = tmp_path / "expected.parquet"
    alone(embedder, {**told, "output": str(expected)})
    assert (tmp_path / "out.parquet").read_bytes() == expected.read_bytes()


def test_refusals_and_scaling(tiny_embedder: Path, folder: Path, tmp_path: Path) -> None:
    lines = folder / "in.jsonl"
    jobs = [
        job(tiny_embedder, lines, f"{tmp_path}/a.npy", strict=True),
        job(tiny_embedder, lines, f"{tmp_path}/b.npy", dimensions=7),
        job(tiny_embedder, lines, f"{tmp_path}/c.npy", "classify"),
        job(tiny_embedder, lines, f"{tmp_path}/d.npy", workers="1..3", part_rows=10),
    ]
    strict, size, task, scaled = said_by("jobs", json.dumps(jobs))
    assert strict["error"] == "TextTooLong"
    assert "in.jsonl, line 71" in strict["message"]
    assert (size["error"], task["error"]) == ("InvalidDimensions", "UnsupportedTask")
    assert scaled["rows"] == NUM_ROWS - 3
    assert 2 <= scaled["begun"] <= 3


def test_rows_on_standard_output(
    embedder: Engine, tiny_embedder: Path, folder: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    told = job(tiny_embedder, folder / "pairs.jsonl", "-", "score", kill="worker", part_rows=10)
    out = output_of("jobs", json.dumps([told]))
    assert "a worker was lost" in said_in(out)[0]["events"][0]
    alone(embedder, told)
    expected = capfdbinary.readouterr().out.decode().splitlines()
    assert out.splitlines()[: len(expected)] == expected
