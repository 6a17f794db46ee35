"""A worker, in this process and without Ray: what it computes and stores counts as any part."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pytest

from poolc.cluster.worker import Computed, Delivered, Introduction, Model, Order, Worker
from poolc.errors import ArtifactNotFound, InvalidDimensions, PoolcError
from poolc.runtime import cores
from poolc.runtime.bulk import BulkJob, Columns, Settings, check
from poolc.runtime.bulk.parts import Part, portable
from poolc.runtime.bulk.progress import Meter
from poolc.runtime.bulk.run import Sink, run, run_elsewhere
from poolc.runtime.engine import Engine
from poolc.runtime.request import Params
from poolc.spec import Task
from tests.runtime.bulk.conftest import content, texts


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    monkeypatch.setenv("RAYON_NUM_THREADS", "2")  # put back at the end
    monkeypatch.setattr(cores, "_most_cores", None)
    yield Worker(2)
    cores.allowed_cores.cache_clear()


def model_of(engine: Engine) -> Model:
    return Model(str(engine.artifact.path), engine.artifact.artifact_id, {})


def sent(value: Any) -> Any:
    """Return what arrives in another process."""
    return pickle.loads(pickle.dumps(value))


@pytest.mark.parametrize("lets_in", [True, False])
@pytest.mark.parametrize("name", ["out.parquet", "out/"])
def test_same_bytes_as_alone(
    worker: Worker, embedder: Engine, tmp_path: Path, name: str, lets_in: bool
) -> None:
    table = {"text": [*texts(20), ""], "year": [None, *range(20)]}
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "in.parquet")
    output = f"{tmp_path}/out/{name}"
    (tmp_path / "out").mkdir()
    columns, settings = Columns(keep=("all",)), Settings(part_rows=6)
    job = BulkJob(Task.EMBED, (tmp_path / "in.parquet",), output, columns, Params(), settings)
    introduced = sent(worker.begin(model_of(embedder), sent(job)))
    assert isinstance(introduced, Introduction)

    def compute(parts: Iterator[Part], sink: Sink, meter: Meter) -> None:
        order = Order(sink.storing, output, sink.admit() if lets_in else None)
        for part in parts:
            assert isinstance(worker.compute(sent(portable(part)), None, strict=False), Computed)
            delivered = sent(worker.store(part.number, sent(order), sent(sink.schema)))
            assert isinstance(delivered, Delivered)
            assert bool(delivered.files) is not lets_in
            sink.enter(delivered.done, delivered.files)
            if sink.schema is None:
                sink.schema = delivered.schema

    result = run_elsewhere(compute, introduced.subject, introduced.job, check(job))
    assert (result.num_rows, result.num_failed) == (20, 1)
    found = content(tmp_path / "out")
    for path in sorted((tmp_path / "out").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    run(embedder, job)
    assert content(tmp_path / "out") == found


def test_refusals_are_values(worker: Worker, embedder: Engine, tmp_path: Path) -> None:
    job = BulkJob(Task.EMBED, ("in.txt",), "out.npy", params=Params(dimensions=7))
    assert isinstance(worker.begin(model_of(embedder), job), InvalidDimensions)
    gone = worker.begin(Model(str(tmp_path), "0" * 64, {}), job)
    assert isinstance(gone, ArtifactNotFound)
    assert "on a folder that all machines share" in str(gone)


def test_strict_part_is_not_computed(worker: Worker, embedder: Engine, tmp_path: Path) -> None:
    from poolc.runtime.bulk.records import Place, Position, Record

    job = BulkJob(Task.EMBED, ("in.txt",), "out.npy")
    assert not isinstance(worker.begin(model_of(embedder), job), PoolcError)
    record = Record("", None, Place("in.txt", 4), Position(0, 4), 1)
    found = worker.compute(Part(0, 3, [record]), None, strict=True)
    assert isinstance(found, Computed)
    assert "in.txt, line 4" in str(found.failure)
