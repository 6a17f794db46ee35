"""``poolc inspect``: everything about an artifact, each choice with its origin."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from poolc.cli.inspect import choices_of, tuning_lines
from poolc.model_cache.artifact import Artifact, open_artifact
from poolc.spec import PoolingType, RouterSpec
from tests.cli.conftest import Cli


@pytest.mark.parametrize("name", ["tiny_embedder", "tiny_classifier", "tiny_cross_encoder"])
def test_every_origin_is_printed(cli: Cli, request: pytest.FixtureRequest, name: str) -> None:
    path = request.getfixturevalue(name)
    ran = cli("inspect", path)
    assert ran.code == 0, ran.err
    rows = [line.split("  ") for line in ran.out.splitlines()]
    origins = open_artifact(path).manifest.spec.origins
    assert origins
    for choice, origin in origins.items():
        assert any(choice in row and row[-1].strip() == origin for row in rows), choice


def test_defaults_have_rows(cli: Cli, tiny_classifier: Path) -> None:
    lines = [" ".join(line.split()) for line in cli("inspect", tiny_classifier).out.splitlines()]
    assert "use_activation yes default of classifiers: probabilities" in lines
    assert "truncation_side right default of transformers: right" in lines


def test_fields_of_a_choice_have_rows(cli: Cli, artifact: Callable[[str], Path]) -> None:
    printed = cli("inspect", artifact("tiny_colbert")).out
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    file = "config_sentence_transformers.json"
    assert f"multi_vector.query.max_length 12 {file}: query_length" in lines
    assert f"multi_vector.document.max_length 40 {file}: document_length" in lines
    assert "multi_vector modules.json" in lines


def test_routes_have_rows(tiny_embedder: Path) -> None:
    spec = open_artifact(tiny_embedder).manifest.spec
    origins = {"pooling": "a/config.json", "router": "router_config.json: route a"}
    other = replace(spec, origins={"pooling": "b/config.json"}, pooling=(PoolingType.CLS,))
    router = RouterSpec("a", {"query": "a", "document": "b"}, False, {"b": other})
    whole = replace(spec, origins=origins, router=router)
    lines = [" ".join(line.split()) for line in choices_of(whole)]
    assert "router query: a, document: b; a side must be named router_config.json: route a" in lines
    assert lines[-2:] == ["choices of route b", "pooling cls b/config.json"]


def test_ids_tasks_graphs_parity_and_sizes(cli: Cli, tiny_embedder: Path) -> None:
    artifact: Artifact = open_artifact(tiny_embedder)
    printed = cli("inspect", tiny_embedder).out
    for expected in (
        str(tiny_embedder),
        artifact.artifact_id,
        artifact.space_id,
        "embed, score, encode",
        "cpu, fp32",
        "sentence_embedding float32 [batch, 32]",
        "parity        max error ",
        *artifact.manifest.files,
    ):
        assert expected in printed


def test_tuning(cli: Cli, tiny_embedder: Path) -> None:
    lines = cli("inspect", tiny_embedder, "--tuning").out.splitlines()
    assert lines[0].startswith("rewrites      attention_mask, attention_layout")
    assert lines[1] == "micro-batch   256 tokens"
    assert lines[2] == "lone request  up to 4 threads"
    assert lines[3] == "chosen        timed on the machine that compiled (quick)"
    assert lines[4].startswith("not timed     ")


def test_tuning_that_was_timed() -> None:
    tried = {
        "gemm": {"speedup": 1.0312, "rounds": 9, "kept": True},
        "bias_gelu": {"speedup": 0.99, "rounds": 5, "kept": False},
        "float_mask": {"not_timed": "the time was up"},
    }
    report = {"mode": "full", "seconds": 3.2, "rewrites": tried, "us_per_token": {"256": 40.125}}
    report["lone_text_ms"] = {"1": 5.5, "2": 2.6}
    tuning = {"rewrites": ["gemm"], "budget_tokens": 256, "lone_threads": 8}
    lines = tuning_lines(tuning, {"tuning": report})
    assert [" ".join(line.split()) for line in lines] == [
        "rewrites gemm",
        "micro-batch 256 tokens",
        "lone request up to 8 threads",
        "chosen timed on the machine that compiled (full), 3.2 s",
        "gemm 1.031x kept",
        "bias_gelu 0.990x left out",
        "float_mask the time was up",
        "256 tokens 40.12 us each",
        "1 threads 5.50 ms a short text",
        "2 threads 2.60 ms a short text",
    ]


def test_artifacts_without_a_record() -> None:
    lines = list(tuning_lines({"budget_tokens": 256}, {}))
    assert lines == [
        "rewrites      none",
        "micro-batch   256 tokens",
        "chosen        not recorded",
    ]


def test_model_that_was_compiled(cli: Cli, tiny_embedder: Path, tiny_embedder_source: Path) -> None:
    assert cli("inspect", tiny_embedder_source).out == cli("inspect", tiny_embedder).out


def test_json(cli: Cli, tiny_embedder: Path) -> None:
    shown = json.loads(cli("inspect", tiny_embedder, "--json").out)
    artifact = open_artifact(tiny_embedder)
    assert shown["artifact_id"] == artifact.artifact_id
    assert shown["manifest"]["spec"]["origins"] == dict(artifact.manifest.spec.origins)
    assert shown["report"] == artifact.report()
    assert shown["sizes"]["model.onnx"] == (tiny_embedder / "model.onnx").stat().st_size


def test_model_that_was_not_compiled(cli: Cli, tiny_embedder_source: Path) -> None:
    ran = cli("inspect", tiny_embedder_source, "--max-length", "7")
    assert ran.code == 7
    assert f"run `poolc compile {tiny_embedder_source}`" in ran.err


def test_nothing_there(cli: Cli, tmp_path: Path) -> None:
    ran = cli("inspect", tmp_path / "missing")
    assert ran.code == 4
    assert f"no folder {tmp_path / 'missing'}" in ran.err


def test_damaged_artifact(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    ran = cli("inspect", tmp_path)
    assert ran.code == 7
    assert "manifest.json.sha256 is missing" in ran.err


def test_tuning_of_an_artifact_for_cuda() -> None:
    tuning = {
        "rewrites": [],
        "budget_tokens": 16384,
        "layout": {"main": "padded: heads share keys"},
    }
    assert list(tuning_lines(tuning, {"tuning": {"mode": "fixed"}})) == [
        "rewrites      none",
        "micro-batch   16384 tokens",
        "tokens        main: padded: heads share keys",
        "chosen        the target's own, which has one way to be lowered",
    ]
