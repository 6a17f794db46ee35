"""Adding rows to an output: never of another space, never twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.ipc
import pyarrow.parquet
import pytest

from poolc.errors import InputError, InvalidOption
from poolc.runtime.bulk import Columns
from poolc.runtime.engine import Engine
from poolc.runtime.request import Params
from poolc.spec import Precision
from tests.runtime.bulk.conftest import Embed, texts


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Two files of texts, seven and six."""
    first, second = tmp_path / "first.txt", tmp_path / "second.txt"
    first.write_text("\n".join(texts(7)))
    second.write_text("\n".join(texts(13)[7:]))
    return first, second


def indexes(output: str) -> list[int]:
    path = Path(output)
    if path.is_dir():
        parts = sorted(path.glob("part-*"))
        return [i for p in parts for i in pyarrow.parquet.read_table(p).column("index").to_pylist()]
    if path.suffix == ".parquet":
        return list(pyarrow.parquet.read_table(path).column("index").to_pylist())
    if path.suffix == ".arrow":
        with pyarrow.ipc.open_file(path) as file:
            return list(file.read_all().column("index").to_pylist())
    if path.suffix == ".npy":
        return list(range(len(np.load(path))))
    return [json.loads(line)["index"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("name", ["out.jsonl", "out.npy", "out.parquet", "out.arrow", "out/"])
def test_append(embed: Embed, files: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    output = f"{tmp_path}/{name}"
    embed(files[0], output, append=True)  # to nothing
    result = embed(files[1], output, append=True)
    assert indexes(output) == list(range(13))
    assert result.meta["rows"] == 13
    assert result.meta["inputs"] == [str(path) for path in files]


def test_the_same_rows_are_not_appended_twice(
    embed: Embed, files: tuple[Path, Path], tmp_path: Path
) -> None:
    output = str(tmp_path / "out.jsonl")
    for path in (*files, files[1]):
        embed(path, output, append=True)
    assert indexes(output) == list(range(13))
    embed(files[1], output, append=True, restart=True)  # unless that is asked for
    assert indexes(output) == list(range(19))
    files[1].write_text(files[1].read_text()[::-1])  # other rows of the same size
    embed(files[1], output, append=True)
    assert len(indexes(output)) > 19


def test_a_folder_is_filled_once(embed: Embed, files: tuple[Path, Path], tmp_path: Path) -> None:
    output = f"{tmp_path}/out/"
    embed(files[0], output)
    assert embed(files[0], output).num_rows == 7
    with pytest.raises(InputError, match="holds an output already: append to it"):
        embed(files[1], output)


def altered(engine: Engine, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    manifest = replace(engine.artifact.manifest, **changes)
    changed = replace(engine.artifact, manifest=manifest, artifact_id=manifest.artifact_id)
    monkeypatch.setattr(engine, "artifact", changed)


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet", "out/"])
def test_vectors_of_another_space_are_refused(
    embed: Embed,
    embedder: Engine,
    files: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    output = f"{tmp_path}/{name}"
    embed(files[0], output)
    altered(embedder, monkeypatch, space_id="0" * 64)
    with pytest.raises(InputError, match=r"vectors of the space .* they cannot be compared"):
        embed(files[1], output, append=True)
    assert indexes(output) == list(range(7))


def test_another_class_of_precision_needs_permission(
    embed: Embed,
    embedder: Engine,
    files: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = str(tmp_path / "out.parquet")
    first = embedder.artifact.artifact_id
    embed(files[0], output)
    altered(embedder, monkeypatch, precision=Precision.INT8)
    with pytest.raises(InputError, match="computed in fp32, this artifact computes in int8"):
        embed(files[1], output, append=True)
    result = embed(files[1], output, append=True, allow_precision_mix=True)
    assert indexes(output) == list(range(13))
    assert result.meta["earlier_artifacts"] == [first]


@pytest.mark.parametrize("name", ["out.npy", "out.parquet", "out.jsonl"])
def test_other_rows_are_refused(
    embed: Embed, files: tuple[Path, Path], tmp_path: Path, name: str
) -> None:
    output = str(tmp_path / name)
    embed(files[0], output)
    before = Path(output).read_bytes()
    for params in (Params(dimensions=8), Params(output_dtype="float16")):
        with pytest.raises(InputError, match=r"write another file|another type"):
            embed(files[1], output, append=True, params=params, restart=True)
        assert Path(output).read_bytes() == before


def test_output_of_another_program_is_refused(
    embed: Embed, files: tuple[Path, Path], tmp_path: Path
) -> None:
    output = tmp_path / "out.jsonl"
    output.write_text('{"embedding": [1]}\n')
    with pytest.raises(InputError, match="only what poolc wrote is appended to"):
        embed(files[0], output, append=True)
    with pytest.raises(InvalidOption, match="nothing can be appended to standard output"):
        embed(files[0], "-", append=True)


def test_output_that_changes_meanwhile(
    embed: Embed, files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from poolc.runtime.bulk.commit import Commit

    output = tmp_path / "out.jsonl"
    embed(files[0], output)
    add: Callable[..., Any] = Commit.add

    def add_and_touch(self: Commit, answered: Any) -> Any:
        output.write_text("of somebody else\n")
        return add(self, answered)

    monkeypatch.setattr(Commit, "add", add_and_touch)
    with pytest.raises(InputError, match="was changed since this job began to append"):
        embed(files[1], output, append=True, columns=Columns())
    assert output.read_text() == "of somebody else\n"
