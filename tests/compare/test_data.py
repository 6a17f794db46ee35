"""What of a file two models are compared on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from poolc.compare.data import Data, read
from poolc.errors import InputError, InvalidOption, InvalidText
from poolc.runtime.bulk import Columns

PAIR = {"sentence1": "a", "sentence2": "b", "score": 2.5}


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_texts_of_lines(text_file: Path) -> None:
    found = read(text_file, limit=2)
    assert found == Data("in.txt", ["the quick brown fox", "a river runs"], [], None)


def test_labelled_texts(tmp_path: Path) -> None:
    rows = {"text": "a", "label": "x"}, {"text": "b", "label": 1}
    found = read(lines(tmp_path / "in.jsonl", *rows))
    assert (found.texts, found.labels, found.num_rows) == (["a", "b"], ["x", 1], 2)


@pytest.mark.parametrize(
    "names", [("sentence1", "sentence2"), ("query", "document"), ("text_1", "text_2"), ("s1", "s2")]
)
def test_pairs_by_their_columns(names: tuple[str, str], tmp_path: Path) -> None:
    row = {names[0]: "a", names[1]: "b", "score": 2.5}
    found = read(lines(tmp_path / "in.jsonl", row))
    assert (found.pairs, found.labels, found.texts) == ([("a", "b")], [2.5], [])


def test_named_columns(tmp_path: Path) -> None:
    file = lines(tmp_path / "in.jsonl", {**PAIR, "title": "t", "body": "u"})
    assert read(file, Columns(text="{title}: {body}")).texts == ["t: u"]
    assert read(file, Columns(left="title", right="body")).pairs == [("t", "u")]


def test_tables(tmp_path: Path) -> None:
    file = tmp_path / "in.parquet"
    columns = {"query": ["a", "c"], "document": ["b", "d"], "score": [1, 2], "other": [0, 0]}
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
    found = read(file)
    assert (found.pairs, found.labels) == ([("a", "b"), ("c", "d")], [1, 2])


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([], InvalidOption, "holds no text"),
        ([{"title": "a"}], InvalidText, "line 1: no column 'text'"),
        ([{"text": "a", "label": 1}, {"text": "b"}], InvalidText, "line 2: no column 'label'"),
        ([{"text": ""}], InvalidText, "line 1: a text is empty"),
        ([{**PAIR, "sentence2": ""}], InvalidText, "line 1: a text is empty"),
    ],
)
def test_refused(rows: list[Any], error: type[InputError], message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        read(lines(tmp_path / "in.jsonl", *rows))


def test_standard_input_is_refused() -> None:
    with pytest.raises(InvalidOption, match="give a file"):
        read("-")
