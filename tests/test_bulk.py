"""``poolc.bulk``: keywords become a job, on a loaded engine or on a model by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

import poolc
from poolc.errors import InputError, InvalidOption
from poolc.runtime.engine import Engine


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text('{"a": "bread", "b": "flour", "n": 1}\n{"a": "river", "b": "town", "n": 2}\n')
    return path


def test_embed(embedder: Engine, tiny_embedder: Path, rows: Path, tmp_path: Path) -> None:
    seen: list[poolc.bulk.BulkProgress] = []
    options: dict[str, Any] = {"text_column": "{a} {b}", "dimensions": 8, "keep": ["n"]}
    for model in (embedder, tiny_embedder):
        result = poolc.bulk.embed(
            model, rows, tmp_path / "out.jsonl", on_progress=seen.append, **options
        )
        assert (result.num_rows, result.num_failed) == (2, 0)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["n"] for line in lines] == [1, 2]
    expected = embedder.embed(["bread flour", "river town"], dimensions=8)
    np.testing.assert_allclose([line["embedding"] for line in lines], expected, atol=1e-6)
    assert seen[-1].num_rows == 2


def test_score_and_classify(
    cross_encoder: Engine, classifier: Engine, rows: Path, tmp_path: Path
) -> None:
    columns = {"left_column": "a", "right_column": "b"}
    poolc.bulk.score(cross_encoder, [rows], tmp_path / "out.npy", **columns)
    expected = cross_encoder.score(["bread", "river"], ["flour", "town"])
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-6)
    poolc.bulk.classify(classifier, [rows], tmp_path / "out.npy", text_column="a")
    probs = classifier.classify(["bread", "river"]).probs
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), probs, atol=1e-6)


def test_unknown_option(embedder: Engine, rows: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="no option 'trunctate'; did you mean truncate"):
        poolc.bulk.embed(embedder, rows, tmp_path / "out.npy", trunctate=True)
    with pytest.raises(InvalidOption, match="device cannot change a model that is loaded"):
        poolc.bulk.embed(embedder, rows, tmp_path / "out.npy", device="cpu")


@pytest.mark.parametrize("name", ["out.parquet", "out.arrow", "out.jsonl", "out.npy", "out/"])
def test_meta_is_that_of_the_job(embedder: Engine, rows: Path, tmp_path: Path, name: str) -> None:
    output = f"{tmp_path}/{name}"
    result = poolc.bulk.embed(embedder, rows, output, text_column="a", dimensions=8)
    found = poolc.bulk.meta(output)
    assert found == result.meta
    assert (found["space_id"], found["dimensions"]) == (embedder.artifact.space_id, 8)


def test_meta_of_another_writer(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), tmp_path / "other.parquet")
    (tmp_path / "other.npy").touch()
    for name in ("other.parquet", "other.npy", "nowhere/"):
        with pytest.raises(InputError, match="does not say how its rows were made"):
            poolc.bulk.meta(f"{tmp_path}/{name}")
    with pytest.raises(InputError, match="nowhere"):
        poolc.bulk.meta(tmp_path / "nowhere.parquet")
