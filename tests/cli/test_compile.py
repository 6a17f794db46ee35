"""``poolc compile``: stages on standard error, the result on standard output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from poolc.api import CompileResult
from poolc.cli.compile import evidence, parity_line
from poolc.errors import ParityError
from poolc.model_cache.artifact import open_artifact
from tests.cli.conftest import Cli

PARITY = {
    "reference": "sentence-transformers",
    "texts": 35,
    "longest_tokens": 256,
    "bound": 1e-5,
    "max_relative_error": 1.4e-6,
    "worst_cosine": 0.99999994,
}


def test_parity_line() -> None:
    assert parity_line(PARITY) == (
        "max error 1.4e-06 (bound 1e-05) on 35 texts of up to 256 tokens against "
        "sentence-transformers, worst cosine 0.9999999"
    )
    assert "cosine" not in parity_line({**PARITY, "worst_cosine": None})
    assert parity_line({}) == "not recorded"


def test_evidence_of_int8() -> None:
    parity = {**PARITY, "worst_cosine": 0.98986, "mean_cosine": 0.9966}
    route = {"mean_cosine": 0.9975, "worst_cosine": 0.9928, "schemes": {"static": 23, "fp32": 1}}
    report = {
        "parity": {**parity, "cosine_bounds": [0.995, 0.98]},
        "int8": {"kernels": "avx512_vnni", "routes": {"main": route}},
        "quality": {"file": "pairs.jsonl", "spearman_x_100": {"fp32": 82.031, "int8": 81.97}},
    }
    assert list(evidence(report)) == [
        (
            "parity",
            "cosine to sentence-transformers on 35 texts of up to 256 tokens: mean 0.9966 "
            "(bound 0.995), worst 0.9899 (bound 0.98)",
        ),
        (
            "int8",
            "cosine to fp32 0.9975, worst 0.9928 on texts that calibration did not see; "
            "23 static, 1 fp32; avx512_vnni",
        ),
        ("quality", "spearman x 100 on pairs.jsonl: fp32 82.03, int8 81.97"),
    ]


def test_compile_to_a_folder(cli: Cli, tiny_classifier_source: Path, tmp_path: Path) -> None:
    ran = cli("compile", tiny_classifier_source, "--output", tmp_path / "artifact")
    assert ran.code == 0, ran.err
    artifact = open_artifact(tmp_path / "artifact")
    lines = dict(line.split(maxsplit=1) for line in ran.out.splitlines())
    assert lines["artifact"] == str(tmp_path / "artifact")
    assert lines["id"] == artifact.artifact_id
    assert lines["space"] == artifact.space_id
    assert lines["parity"].startswith("max error ")
    stages = [line.split()[0] for line in ran.err.splitlines() if line.endswith(" s")]
    assert "fetch" in stages
    assert stages[-1] == "publish"


def test_compiled_before(cli: Cli, tiny_embedder: Path, tiny_embedder_source: Path) -> None:
    ran = cli("compile", tiny_embedder_source)
    assert f"artifact  {tiny_embedder}\n" in ran.out
    assert ran.err == "already compiled with these options\n"


def test_json(cli: Cli, tiny_embedder: Path, tiny_embedder_source: Path) -> None:
    ran = cli("compile", tiny_embedder_source, "--json")
    result = json.loads(ran.out)
    assert result["path"] == str(tiny_embedder)
    assert result["reused"] is True
    assert result["parity"]["texts"] >= 32


def test_options_reach_the_compiler(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def compile_model(model: str, **options: Any) -> CompileResult:
        given.update(options, model=model)
        return CompileResult(Path("there"), "a" * 64, "b" * 64, {})

    monkeypatch.setattr("poolc.api.compile", compile_model)
    ran = cli(
        *("compile", "someone/model", "-o", "out", "--target", "cpu", "--precision", "fp32"),
        *("--runner", "pooling", "--convert", "classify", "--max-length", "128"),
        *("--pooler-config", '{"pooling_type": "CLS"}', "--hf-overrides", '{"num_labels": 2}'),
        *("--revision", "main", "--defaults", "vllm", "--tokenizer", "other/model"),
        *("--trust-remote-code", "--allow-pickle", "--keep-canonical", "--refresh"),
        *("--calibrate", "texts.txt", "--quality", "pairs.jsonl", "--tune", "full"),
    )
    assert ran.code == 0, ran.err
    del given["on_event"]
    assert given == {
        "model": "someone/model",
        "output": Path("out"),
        "quality": Path("pairs.jsonl"),
        "calibrate": "texts.txt",
        "tune": "full",
        "target": "cpu",
        "precision": "fp32",
        "runner": "pooling",
        "convert": "classify",
        "max_length": 128,
        "pooler_config": {"pooling_type": "CLS"},
        "hf_overrides": {"num_labels": 2},
        "revision": "main",
        "defaults": "vllm",
        "tokenizer": "other/model",
        "trust_remote_code": True,
        "allow_pickle": True,
        "keep_canonical": True,
        "refresh": True,
    }


def test_parity_failure(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_model(model: str, **options: Any) -> CompileResult:
        options["on_event"]({"event": "stage", "name": "verify", "status": "start"})
        raise ParityError("pooled of 'a text' differs by 0.1")

    monkeypatch.setattr("poolc.api.compile", compile_model)
    ran = cli("compile", "someone/model")
    assert ran.code == 6
    assert ran.out == ""
    assert ran.err.endswith("\nerror: pooled of 'a text' differs by 0.1\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--precision", "fp12"), "precision is 'fp12'; allowed: fp32"),
        (("--target", "tpu"), "target is 'tpu'; allowed: cpu"),
        (("--tune", "hard"), "tune is 'hard'; allowed: quick, full, off, an artifact"),
        (("--runner", "draft"), "runner is 'draft'; allowed: auto"),
        (("--pooler-config", "nope"), "--pooler-config is not JSON at position 0"),
    ],
)
def test_options_refused(cli: Cli, options: tuple[str, ...], message: str) -> None:
    ran = cli("compile", "someone/model", *options)
    assert ran.code == 2
    assert message in ran.err
