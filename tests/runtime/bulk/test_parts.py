"""Where parts end and what runs together: functions of the input, never of the machine."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poolc.runtime.bulk import BulkJob, Settings, run
from poolc.runtime.bulk.columns import Columns
from poolc.runtime.bulk.commit import Commit
from poolc.runtime.bulk.compute import Answered, Asked, Running, tokenise
from poolc.runtime.bulk.inputs import expand
from poolc.runtime.bulk.parts import PART_ROWS, Cut, Part, cut, cut_for
from poolc.runtime.bulk.records import Place, Position, Record, read_records
from poolc.runtime.engine import Engine
from poolc.runtime.request import Params
from poolc.spec import Task
from tests.runtime.bulk.conftest import Embed, content, texts


def records(items: list[str]) -> list[Record]:
    return [Record(t, None, Place("f", i + 1), Position(0, i + 1), 1) for i, t in enumerate(items)]


@given(st.lists(st.text(max_size=9), max_size=60), st.integers(1, 9), st.integers(1, 40))
def test_parts_hold_every_row_once_in_order(items: list[str], rows: int, chars: int) -> None:
    parts = list(cut(records(items), Cut(rows, chars)))
    assert [record.item for part in parts for record in part.records] == items
    assert [part.number for part in parts] == list(range(len(parts)))
    assert all(a.first_row + len(a.records) == b.first_row for a, b in pairwise(parts))
    for part in parts[:-1]:
        sizes = [len(record.item) for record in part.records]
        assert len(sizes) == rows or sum(sizes) >= chars > sum(sizes[:-1])


@given(st.integers(0, 5))
def test_parts_behind_a_position_are_those_of_the_whole(num_done: int) -> None:
    all_records, where = records(texts(31)), Cut(5, 120)
    parts = list(cut(all_records, where))
    done = parts[:num_done]
    first = sum(len(part.records) for part in done)
    rest = list(cut(all_records[first:], where, number=len(done), first_row=first))
    assert [p.digest() for p in rest] == [p.digest() for p in parts[num_done:]]


def test_parts_are_large(embedder: Engine) -> None:
    assert PART_ROWS >= 32_768
    where = cut_for(embedder.spec, Task.EMBED, PART_ROWS, None)
    assert where.rows == PART_ROWS
    assert where.chars / PART_ROWS > 1000  # of a text, before its length ends a part
    limited = cut_for(embedder.spec, Task.EMBED, PART_ROWS, 512 << 20)
    assert limited.chars == 32 << 20


def test_what_runs_together_does_not_depend_on_streams(
    embedder: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = [len(text) for text in texts(50)]
    plans = []
    for streams in (1, 2, 64):
        monkeypatch.setattr(embedder._backend, "spread", streams)
        plans.append(embedder.plan(lengths, streams=1))
    assert plans[0] == plans[1] == plans[2]
    assert len(embedder.plan(lengths)) > len(plans[0])


def test_padding_of_a_part_is_low(embedder: Engine) -> None:
    rng = np.random.default_rng(3)
    lengths = np.clip(rng.lognormal(3.6, 0.8, PART_ROWS).astype(int), 3, 512).tolist()
    batches = embedder.plan(lengths, streams=1)
    assert 1 - sum(lengths) / sum(batch.num_tokens for batch in batches) < 0.05


def part_of(items: list[str]) -> Part:
    return Part(0, 0, records(items))


def test_equal_texts_are_computed_once(embedder: Engine) -> None:
    items = ["bread", "river", "bread", "", "river", "bread flour"]
    for dedupe, computed in ((False, 5), (True, 3)):
        found = tokenise(embedder, Asked(Task.EMBED, Params(), dedupe), part_of(items))
        assert sum(len(piece.sequences) for piece in found.pieces) == computed
        asked = Asked(Task.EMBED, Params(), dedupe)
        answered = Running(embedder, asked, found).finish(lambda tokens, padded: None)
        assert answered.rows == [0, 1, 2, 4, 5]
        assert list(answered.failures) == [3]
        values = answered.columns[0].values
        expected = embedder.embed([items[row] for row in answered.rows])
        np.testing.assert_allclose(np.asarray(values), expected, atol=1e-6)


def test_every_bad_row_is_named(embedder: Engine) -> None:
    items = ["bread", "", "river", "bread " * 99, "flour", "", "town"]
    part = Part(3, 100, records(items))
    found = tokenise(embedder, Asked(Task.EMBED, Params(), dedupe=True), part)
    assert found.rows == [0, 2, 4, 6]
    assert {row: error.index for row, error in found.failures.items()} == {1: 101, 3: 103, 5: 105}
    assert str(found.failures[3]).startswith("f, line 4: item 103 has 101 tokens")
    assert str(found.failures[5]).startswith("f, line 6: item 105 is empty")


@pytest.mark.parametrize("name", ["out.npy", "out.parquet", "out.jsonl", "out/"])
def test_equal_texts_of_all_parts_are_computed_once(
    embed: Embed, embedder: Engine, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["bread", "river", "bread", "", "a town", "bread " * 99]
    lines += ["river", "town", "bread", "town", "fox", "a town", "", "fox", "bread", *["river"] * 5]
    path, output = tmp_path / "in.txt", f"{tmp_path}/{name}"
    path.write_text("\n".join(lines))
    distinct = ["bread", "river", "a town", "bread " * 99, "town", "fox"]
    params = Params(truncate=True)
    result = embed(path, output, dedupe=True, params=params)
    short = [len(embedder.tokenize(text)) for text in distinct if len(text) < 99]
    assert result.num_tokens == sum(short) + embedder.max_length
    assert (result.num_failed, result.num_truncated) == (2, 1)
    whole = content(tmp_path)
    good = [i for i, line in enumerate(lines) if line]
    found = vectors(output)
    expected = embedder.embed([lines[i] for i in good], truncate=True)
    np.testing.assert_allclose(found[good] if name == "out.npy" else found, expected, atol=1e-6)
    for other in tmp_path.iterdir():
        if other != path:
            shutil.rmtree(other) if other.is_dir() else other.unlink()
    add = Commit.add

    def stop(self: Commit, answered: Answered) -> object:
        if answered.part.number == 2:
            raise KeyboardInterrupt
        return add(self, answered)

    monkeypatch.setattr(Commit, "add", stop)
    with pytest.raises(KeyboardInterrupt):
        embed(path, output, dedupe=True, params=params)
    monkeypatch.undo()
    embed(path, output, dedupe=True, params=params)
    assert content(tmp_path) == whole


def vectors(output: str) -> Any:
    path = Path(output)
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        return np.array([row["embedding"] for row in rows], np.float32)
    table = pyarrow.parquet.read_table(path)
    return np.stack(table.column("embedding").to_numpy())


def test_equal_texts_of_parts_are_classified_once(classifier: Engine, tmp_path: Path) -> None:
    lines = ["bread", "river", "bread", "town", "bread", "river"]
    path, output = tmp_path / "in.txt", tmp_path / "out.jsonl"
    path.write_text("\n".join(lines))
    settings = Settings(part_rows=2, dedupe=True)
    run(classifier, BulkJob(Task.CLASSIFY, (path,), str(output), settings=settings))
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    expected = classifier.classify(lines)
    assert [row["label"] for row in rows] == expected.labels
    found = [[*row["probs"].values()] for row in rows]
    np.testing.assert_allclose(found, expected.probs, atol=1e-6)


def test_reading_goes_on_at_any_row(rows_file: Path) -> None:
    sources = expand([rows_file, rows_file])
    whole = list(read_records(sources, Columns(), pairs=False))
    for at in (0, 5, 22, 23, 40, 45):
        rest = read_records(sources, Columns(), pairs=False, start=whole[at].position)
        assert [r.position for r in rest] == [r.position for r in whole[at + 1 :]]
