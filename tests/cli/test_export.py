"""``poolc export``: the command line of both exports."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Cli


def test_triton(cli: Cli, tiny_embedder: Path, tmp_path: Path) -> None:
    ran = cli("export", "triton", tiny_embedder, "-o", tmp_path / "out", "--name", "embedder")
    assert ran.code == 0, ran.err
    assert "tritonserver --model-repository" in ran.out
    assert (tmp_path / "out" / "embedder" / "config.pbtxt").is_file()
    again = cli("export", "triton", tiny_embedder, "-o", tmp_path / "out")
    assert (again.code, "--force" in again.err) == (7, True)
    ran = cli("export", "triton", tiny_embedder, "-o", tmp_path / "out", "--force")
    assert ran.code == 0, ran.err


def test_a_model_is_compiled_or_looked_up(
    cli: Cli, tiny_embedder: Path, tiny_embedder_source: Path, tmp_path: Path
) -> None:
    ran = cli("export", "triton", tiny_embedder_source, "-o", tmp_path / "out")
    assert ran.code == 0, ran.err
    assert (tmp_path / "out" / "tiny_embedder_model" / "1" / "model.onnx").is_file()


def test_sentence_transformers(cli: Cli, tiny_embedder: Path, tmp_path: Path) -> None:
    ran = cli("export", "sentence-transformers", tiny_embedder, "-o", tmp_path / "out")
    assert ran.code == 0, ran.err
    assert (tmp_path / "out" / "onnx" / "model.onnx").is_file()


def test_refused(cli: Cli, tiny_embedder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = cli("export", "triton", tiny_embedder, "-o", out, "--precision", "int8")
    assert ran.code == 2
    assert "precision cannot change a compiled artifact" in ran.err
    overrides = '{"matryoshka_dimensions": [8]}'
    ran = cli("export", "triton", tiny_embedder, "-o", out, "--hf-overrides", overrides)
    assert (ran.code, "compile the model again" in ran.err) == (2, True)


@pytest.mark.parametrize("home", ["triton", "sentence-transformers"])
def test_help_has_examples(cli: Cli, home: str) -> None:
    assert f"poolc export {home} minilm -o" in cli("export", "--help").out
    assert f"poolc export {home} minilm -o" in cli("export", home, "--help").out
