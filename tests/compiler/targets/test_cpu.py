"""Lowering for ONNX Runtime's CPU provider."""

from __future__ import annotations

from pathlib import Path

import pytest

from poolc.compiler.targets.cpu import CpuCompiler
from poolc.errors import InvalidOption
from poolc.model_cache.artifact import open_artifact
from poolc.spec import CompileOptions, Precision
from tests.compiler.conftest import CompileHere


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.BF16, Precision.FP8])
def test_check_precision(precision: Precision) -> None:
    CpuCompiler().check(CompileOptions())
    CpuCompiler().check(CompileOptions(precision=Precision.INT8))
    with pytest.raises(
        InvalidOption, match=f"precision is {precision}; target cpu has: fp32, int8"
    ):
        CpuCompiler().check(CompileOptions(precision=precision))


def test_check_calibration_of_fp32() -> None:
    with pytest.raises(InvalidOption, match=r"calibrate is for .*; precision is fp32"):
        CpuCompiler().check(CompileOptions(calibrate="texts.txt"))


@pytest.mark.parametrize(
    ("fixture", "outputs"),
    [
        ("tiny_embedder", ["pooled", "sentence_embedding"]),
        ("tiny_classifier", ["logits", "probs"]),
    ],
)
def test_lower_one_graph_an_output_set(
    fixture: str, outputs: list[str], request: pytest.FixtureRequest
) -> None:
    manifest = open_artifact(request.getfixturevalue(fixture)).manifest
    main, tokens = manifest.graphs["main"], manifest.graphs["tokens"]
    assert (main.file, tokens.file) == ("model.onnx", "model.tokens.onnx")
    assert [value.name for value in main.outputs] == outputs
    assert [value.name for value in tokens.outputs] == ["token_embeddings"]
    assert [value.name for value in main.inputs] == list(manifest.spec.inputs)
    for value in main.inputs:
        assert (value.dtype, value.shape) == ("int64", ("batch", "seq"))
    assert tokens.outputs[0].shape == ("batch", "seq", manifest.spec.hidden_size)
    assert {"model.onnx", "model.tokens.onnx", "model.onnx.data"} < manifest.files.keys()
    assert manifest.requires.onnxruntime == ">=1.24"
    assert manifest.tuning["budget_tokens"] == 256
    assert {"attention_mask", "attention_layout"} <= {*manifest.tuning["rewrites"]}


def test_lower_a_model_of_token_outputs_only(plain_bert: Path, compile_here: CompileHere) -> None:
    manifest = compile_here(plain_bert, convert="reward").manifest
    assert manifest.graphs["main"] == manifest.graphs["tokens"]
    assert "model.tokens.onnx" not in manifest.files
    assert [value.name for value in manifest.graphs["main"].outputs] == ["token_embeddings"]
