"""What is read and what is written: every format, by pyarrow's and NumPy's own readers."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet
import pytest

from poolc.errors import InputError, InvalidOption, InvalidText, MissingDependency
from poolc.runtime.bulk import BulkJob, Columns, Settings, inputs, run
from poolc.runtime.bulk.records import read_records
from poolc.runtime.engine import Engine
from poolc.runtime.request import Params
from poolc.spec import Task
from tests.runtime.bulk.conftest import Embed, texts

TEXTS = texts(12)
ROWS = [{"id": i, "text": text, "note": f'a "{i}", b'} for i, text in enumerate(TEXTS)]


def write(folder: Path, name: str) -> Path:
    """Write ROWS in the format of a name, by a library that is not ours."""
    path = folder / name
    table = pyarrow.Table.from_pylist(ROWS)
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    if ".jsonl" in name:
        plain = lines.encode()
    elif ".txt" in name:
        plain = "\n".join(TEXTS).encode()
    elif ".csv" in name or ".tsv" in name:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(ROWS[0]), delimiter="\t" if ".tsv" in name else ",")
        writer.writeheader()
        writer.writerows(ROWS)
        plain = text.getvalue().encode()
    if name.endswith(".parquet"):
        pyarrow.parquet.write_table(table, path, row_group_size=5)
    elif name.endswith(".arrow"):
        with pyarrow.ipc.new_file(path, table.schema) as file:
            file.write_table(table, max_chunksize=7)
    elif name.endswith(".feather"):
        pyarrow.feather.write_feather(table, path)
    elif name.endswith(".gz"):
        path.write_bytes(gzip.compress(plain))
    elif name.endswith(".zst"):
        path.write_bytes(pyarrow.compress(plain, codec="zstd", asbytes=True))
    else:
        path.write_bytes(plain)
    return path


@pytest.mark.parametrize(
    "name",
    [
        *("in.txt", "in.jsonl", "in.csv", "in.tsv", "in.parquet", "in.arrow", "in.feather"),
        *("in.txt.gz", "in.jsonl.zst", "in.csv.gz"),
    ],
)
def test_inputs(embed: Embed, embedder: Engine, tmp_path: Path, name: str) -> None:
    embed(write(tmp_path, name), tmp_path / "out.npy")
    found = np.load(tmp_path / "out.npy")
    np.testing.assert_allclose(found, embedder.embed(TEXTS), atol=1e-6)


def test_globs_folders_and_their_order(embed: Embed, embedder: Engine, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "deep").mkdir(parents=True)
    for name, text in (("b.txt", "b"), ("a.jsonl", "a"), ("deep/c.csv", "c"), ("_x.txt", "x")):
        content = {"txt": text, "jsonl": json.dumps({"text": text}), "csv": f"text\n{text}\n"}
        (data / name).write_text(content[name.rpartition(".")[2]])
    (data / "readme.md").write_text("no input")
    embed(data, tmp_path / "out.jsonl", columns=Columns())
    expected = embedder.embed(["a", "b", "c"])
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    np.testing.assert_allclose([row["embedding"] for row in rows], expected, atol=1e-6)
    embed(f"{data}/**/*.[jc]*", tmp_path / "out.npy")
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected[[0, 2]], atol=1e-6)


@pytest.mark.parametrize("kind", ["text", "jsonl", "csv"])
def test_standard_input(
    embed: Embed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = write(tmp_path, f"in.{'txt' if kind == 'text' else kind}")
    embed(path, tmp_path / "named.npy")
    stdin = io.TextIOWrapper(io.BytesIO(path.read_bytes()))
    monkeypatch.setattr(sys, "stdin", stdin)
    embed("-", tmp_path / "piped.npy", input_format=kind)
    assert (tmp_path / "piped.npy").read_bytes() == (tmp_path / "named.npy").read_bytes()


def test_json_on_standard_input_is_not_taken_for_text(
    embed: Embed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(b'{"text": "bread"}\n'))
    monkeypatch.setattr(sys, "stdin", stdin)
    with pytest.raises(InvalidOption, match="looks like JSON lines: say --input-format"):
        embed("-", tmp_path / "out.npy")


def test_template_over_columns(embed: Embed, embedder: Engine, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"a": "bread", "b": "flour"}\n{"a": "river"}\n')
    result = embed(path, tmp_path / "out.jsonl", columns=Columns("{a}: {b} {{x}}"))
    (row,) = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    expected = embedder.embed("bread: flour {x}")[0]
    np.testing.assert_allclose(row["embedding"], expected, atol=1e-6)
    assert result.num_failed == 1


@pytest.mark.parametrize("template", ["{}", "{a!r}", "{a:>9}", "{a", "{{a}}"])
def test_bad_templates(embed: Embed, tmp_path: Path, template: str) -> None:
    with pytest.raises(InvalidOption, match="the template"):
        embed(write(tmp_path, "in.jsonl"), tmp_path / "out.npy", columns=Columns(template))


@pytest.mark.parametrize(
    ("dtype", "kind", "size"),
    [
        ("float32", pyarrow.float32(), 32),
        ("float16", pyarrow.float16(), 32),
        ("int8", pyarrow.int8(), 32),
        ("uint8", pyarrow.uint8(), 32),
        ("binary", pyarrow.int8(), 4),
        ("ubinary", pyarrow.uint8(), 4),
    ],
)
@pytest.mark.parametrize("name", ["out.parquet", "out.arrow"])
def test_vectors_in_tables(
    embed: Embed, embedder: Engine, tmp_path: Path, dtype: str, kind: Any, size: int, name: str
) -> None:
    path = write(tmp_path, "in.parquet")
    embed(path, tmp_path / name, params=Params(output_dtype=dtype))
    table = read(tmp_path / name)
    assert table.schema.names == ["index", "id", "embedding", "truncated"]
    assert table.schema.field("embedding").type == pyarrow.list_(kind, size)
    found = np.stack(table.column("embedding").to_numpy())
    options: Any = {"output_dtype": dtype}
    expected = embedder.embed(TEXTS, **options)
    np.testing.assert_allclose(found, expected, atol=1 if dtype[-1] == "8" else 1e-3)
    assert table.column("id").to_pylist() == list(range(12))
    meta = json.loads(table.schema.metadata[b"poolc"])
    assert meta["space_id"] == embedder.artifact.space_id
    assert meta["artifact_id"] == embedder.artifact.artifact_id
    assert (meta["dimensions"], meta["precision"], meta["prompt"]) == (32, "fp32", "")
    assert meta["rows"] == 12
    assert not (tmp_path / f"{name}.meta.json").exists()


def read(path: Path) -> Any:
    if path.suffix == ".parquet":
        return pyarrow.parquet.read_table(path)
    with pyarrow.ipc.open_file(path) as file:
        return file.read_all()


def test_parquet_is_compressed_with_zstd_a_row_group_a_part(embed: Embed, tmp_path: Path) -> None:
    embed(write(tmp_path, "in.parquet"), tmp_path / "out.parquet")
    metadata = pyarrow.parquet.ParquetFile(tmp_path / "out.parquet").metadata
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [5, 5, 2]
    assert metadata.row_group(0).column(0).compression == "ZSTD"


@pytest.mark.parametrize("name", ["in.parquet", "in.jsonl", "in.csv"])
@pytest.mark.parametrize("keep", [("all",), ("note",)])
def test_answers_beside_the_columns(
    embed: Embed, tmp_path: Path, name: str, keep: tuple[str, ...]
) -> None:
    path = write(tmp_path, name)
    embed(path, tmp_path / "out.parquet", columns=Columns(keep=keep))
    embed(path, tmp_path / "out.jsonl", columns=Columns(keep=keep))
    table = read(tmp_path / "out.parquet")
    own = ["id", "text", "note"] if keep == ("all",) else ["id", "note"]
    assert table.schema.names == ["index", *own, "embedding", "truncated"]
    wanted = [{k: str(v) if name == "in.csv" else v for k, v in row.items()} for row in ROWS]
    assert table.select(own).to_pylist() == [{k: row[k] for k in own} for row in wanted]
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [{k: line[k] for k in own} for line in lines] == [{k: r[k] for k in own} for r in wanted]


def test_types_of_kept_columns_stay(embed: Embed, tmp_path: Path) -> None:
    fields = {
        "text": pyarrow.large_string(),
        "when": pyarrow.timestamp("us"),
        "n": pyarrow.uint16(),
    }
    rows = [{"text": text, "when": 1_000_000 * i, "n": i} for i, text in enumerate(TEXTS)]
    table = pyarrow.Table.from_pylist(rows, pyarrow.schema(list(fields.items())))
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
    embed(tmp_path / "in.parquet", tmp_path / "out.parquet", columns=Columns(keep=("all",)))
    found = read(tmp_path / "out.parquet")
    assert {name: found.schema.field(name).type for name in fields} == fields
    assert found.select(list(fields)).equals(table)


@pytest.mark.parametrize(
    ("rows", "keep", "message"),
    [
        ([{"text": "a", "n": 1}, {"text": "b", "n": "x"}], ("n",), "several types"),
        ([{"text": "a", "embedding": 1}], ("all",), "has a column 'embedding', as the answers"),
        ([{"text": "a"}] * 5 + [{"text": "a", "new": 1}], ("all",), "'new' is in none of the rows"),
    ],
)
def test_columns_that_cannot_be_kept(
    embed: Embed, tmp_path: Path, rows: list[Any], keep: tuple[str, ...], message: str
) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises((InputError, InvalidOption), match=message):
        embed(path, tmp_path / "out.parquet", columns=Columns(keep=keep))


def test_id_column(embed: Embed, tmp_path: Path) -> None:
    path = write(tmp_path, "in.jsonl")
    embed(path, tmp_path / "out.parquet", columns=Columns(id="note"))
    assert read(tmp_path / "out.parquet").column("id").to_pylist() == [r["note"] for r in ROWS]
    with pytest.raises(InvalidText, match=r"none of the 12 rows .* no column 'uuid'"):
        embed(path, tmp_path / "out.parquet", columns=Columns(id="uuid"))


def test_other_tasks_in_parquet(
    classifier: Engine, cross_encoder: Engine, tagger: Engine, splade: Engine, tmp_path: Path
) -> None:
    path, output = write(tmp_path, "in.parquet"), tmp_path / "out.parquet"
    settings = Settings(part_rows=5)
    run(classifier, BulkJob(Task.CLASSIFY, (path,), str(output), settings=settings))
    table, expected = read(output), classifier.classify(TEXTS)
    assert table.column("label").to_pylist() == expected.labels
    np.testing.assert_allclose(
        np.stack(table.column("probs").to_numpy()), expected.probs, atol=1e-6
    )
    columns = Columns(left="text", right="note")
    run(cross_encoder, BulkJob(Task.SCORE, (path,), str(output), columns, settings=settings))
    notes = [row["note"] for row in ROWS]
    scores = [cross_encoder.score(t, str(n))[0] for t, n in zip(TEXTS, notes, strict=True)]
    np.testing.assert_allclose(read(output).column("score").to_numpy(), scores, atol=1e-6)
    job = BulkJob(Task.CLASSIFY_TOKENS, (path,), str(output), params=Params(aggregation="simple"))
    run(tagger, job)
    spans: Any = tagger.classify_tokens(TEXTS, aggregation="simple")
    found = read(output).column("spans").to_pylist()
    assert [[s["word"] for s in row] for row in found] == [[s.word for s in row] for row in spans]
    run(splade, BulkJob(Task.EMBED_SPARSE, (path,), str(output), settings=settings))
    for row, vector in zip(
        read(output).column("embedding").to_pylist(), splade.embed_sparse(TEXTS), strict=True
    ):
        assert row["indices"] == vector.indices.tolist()
        np.testing.assert_allclose(row["values"], vector.values, rtol=1e-5)


def test_rows_of_tokens(embedder: Engine, token_rewarder: Engine, tmp_path: Path) -> None:
    path, output = write(tmp_path, "in.jsonl"), tmp_path / "out.arrow"
    run(embedder, BulkJob(Task.ENCODE, (path,), str(output), settings=Settings(part_rows=5)))
    for row, states in zip(
        read(output).column("token_embeddings").to_pylist(), embedder.encode(TEXTS), strict=True
    ):
        np.testing.assert_allclose(row, states, atol=1e-5)
    job = BulkJob(Task.REWARD, (path,), str(tmp_path / "out.npy"))
    with pytest.raises(InvalidOption, match="rows of reward differ in length"):
        run(token_rewarder, job)


def test_rows_that_fail_are_blank_in_an_array(embed: Embed, rows_file: Path) -> None:
    output = rows_file.with_name("out.npy")
    result = embed(rows_file, output)
    assert (result.num_rows, result.num_failed) == (21, 2)
    array = np.load(output)
    assert np.flatnonzero(np.isnan(array).any(axis=1)).tolist() == [7, 12]
    errors = [json.loads(line) for line in Path(str(result.errors)).read_text().splitlines()]
    assert [(e["index"], e["id"], e["line"], e["error"]) for e in errors] == [
        (7, "r7", 8, "InvalidText"),
        (12, "r12", 13, "TextTooLong"),
    ]
    assert errors[0]["message"].endswith(
        "line 8: item 7 is empty: pass a text with at least one token"
    ) or ("item 7 is empty" in errors[0]["message"])
    embed(rows_file, output, params=Params(truncate=True, output_dtype="int8"))
    assert not np.load(output)[7].any()


def test_errors_of_an_earlier_run_go(embed: Embed, rows_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    embed(rows_file, output)
    assert (tmp_path / "out.jsonl.errors.jsonl").exists()
    embed(write(tmp_path, "in.csv"), output)
    assert not (tmp_path / "out.jsonl.errors.jsonl").exists()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("in.csv", b"text,n\nbread,1\nriver\n", "row 2: has no field 'n'"),
        ("in.csv", b"text,n\nbread,1\nriver,2,3\n", "row 2: has 1 more fields than the header"),
        ("in.csv", b"text\nbread\n\xff\xfe\n", "row 2: column 'text' is not valid UTF-8"),
    ],
)
def test_bad_rows_of_csv(
    embed: Embed, tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(data)
    result = embed(tmp_path / name, tmp_path / "out.npy")
    assert (result.num_rows, result.num_failed) == (1, 1)
    assert message in Path(str(result.errors)).read_text()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("in.parquet", b"PAR1 not"),
        ("in.arrow", b"no"),
        ("in.txt.gz", gzip.compress("\n".join(texts(99)).encode(), mtime=0)[:60]),
    ],
)
def test_damaged_files(embed: Embed, tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=f"cannot read .*{name}"):
        embed(tmp_path / name, tmp_path / "out.npy")


def test_tables_without_pyarrow(
    embed: Embed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines, table = write(tmp_path, "in.jsonl"), write(tmp_path, "in.parquet")

    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("importlib.import_module", missing)
    embed(lines, tmp_path / "out.jsonl")
    for path, output in ((table, "out.jsonl"), (lines, "out.parquet"), ("s3://b/in", "out.npy")):
        with pytest.raises(MissingDependency, match=r'pip install "poolc\[bulk\]"'):
            embed(path, tmp_path / output)


@pytest.mark.parametrize("name", ["in.txt", "in.jsonl", "in.csv", "in.csv.gz", "in.parquet"])
def test_bytes_of_a_file_are_counted_once(name: str, tmp_path: Path) -> None:
    """By who read its first rows and who goes on behind them: progress adds the two up."""
    file = write(tmp_path, name)
    (source,) = inputs.expand([str(file)])
    whole = list(read_records([source], Columns(), pairs=False))
    later = list(read_records([source], Columns(), pairs=False, start=whole[4].position))
    assert len(later) == len(whole) - 5
    counted = [sum(record.num_bytes for record in part) for part in (whole, whole[:5] + later)]
    assert counted == [file.stat().st_size] * 2
