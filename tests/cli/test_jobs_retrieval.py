"""poolc embed on models that embed to something else than one dense vector."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from poolc.runtime.engine import Engine
from tests.cli.conftest import Cli

TEXTS = ["the quick brown fox", "a river runs", "bread needs flour"]


def embeddings(path: Path) -> list[Any]:
    return [json.loads(line)["embedding"] for line in path.read_text().splitlines()]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def test_embed_sparse_rows(
    cli: Cli, artifact: Callable[[str], Path], splade: Engine, text_file: Path, output: Path
) -> None:
    options = ("--side", "query", "--top-k", "3")
    ran = cli("embed", artifact("tiny_splade"), text_file, "-o", output, *options)
    assert ran.code == 0, ran.err
    for row, expected in zip(
        embeddings(output), splade.embed_sparse(TEXTS, side="query", top_k=3), strict=True
    ):
        assert row["indices"] == expected.indices.tolist()
        assert row["tokens"] == expected.tokens()
        np.testing.assert_allclose(row["values"], expected.values, rtol=1e-6)
    meta = json.loads(output.with_name("out.jsonl.meta.json").read_text())
    assert (meta["task"], meta["prompt"], meta["row_shape"]) == ("embed_sparse", "query: ", [None])


def test_embed_token_vectors(
    cli: Cli, artifact: Callable[[str], Path], colbert: Engine, text_file: Path, output: Path
) -> None:
    options = ("--side", "document", "--dimensions", "8")
    assert cli("embed", artifact("tiny_colbert"), text_file, "-o", output, *options).code == 0
    expected = colbert.embed_tokens(TEXTS, side="document", dimensions=8)
    for row, vectors in zip(embeddings(output), expected, strict=True):
        np.testing.assert_allclose(row, vectors, rtol=1e-6)


@pytest.mark.parametrize("flag", [None, "--sparse", "--tokens"])
def test_embed_with_one_of_several_heads(
    flag: str | None,
    cli: Cli,
    artifact: Callable[[str], Path],
    bge_m3: Engine,
    text_file: Path,
    output: Path,
) -> None:
    flags = [flag] if flag else []
    assert cli("embed", artifact("tiny_bge_m3"), text_file, "-o", output, *flags).code == 0
    found = embeddings(output)[0]
    together = bge_m3.embed_hybrid(TEXTS)
    if flag == "--sparse":
        assert found["indices"] == together.sparse[0].indices.tolist()
    else:
        expected = together.dense[0] if flag is None else together.tokens[0]
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("tiny_splade", ("-o", "out.npy"), "rows of embed_sparse differ in length: write JSON"),
        ("tiny_bge_m3", ("-o", "out.npy", "--tokens"), "rows of embed_tokens differ in length"),
        ("tiny_bge_m3", ("-o", "-", "--tokens", "--sparse"), "are two outputs: give one"),
        ("tiny_colbert", ("-o", "-", "--sparse"), "does not support embed_sparse"),
        ("tiny_splade", ("-o", "-", "--no-normalize"), "normalize does not apply to sparse"),
        ("tiny_splade", ("-o", "-", "--output-dtype", "int8"), "output_dtype does not apply"),
        ("tiny_colbert", ("-o", "-", "--top-k", "3"), "top_k applies to sparse embeddings"),
        ("tiny_embedder", ("-o", "-", "--side", "doc"), "side is 'doc'; allowed: query"),
    ],
)
def test_embed_refused(
    model: str,
    options: tuple[str, ...],
    message: str,
    cli: Cli,
    artifact: Callable[[str], Path],
    text_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(text_file.parent)
    ran = cli("embed", artifact(model), text_file, *options)
    assert ran.code != 0
    assert message in " ".join(ran.err.split())


def test_embed_dense_model_for_a_side(
    cli: Cli, tiny_embedder: Path, embedder: Engine, text_file: Path, output: Path
) -> None:
    assert cli("embed", tiny_embedder, text_file, "-o", output, "--side", "query").code == 0
    np.testing.assert_allclose(embeddings(output), embedder.embed_query(TEXTS), atol=1e-6)
