"""Products on E4M3 numbers against PyTorch's float8, run by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from poolc.compiler.passes.float8_linears import Float8LinearsPass
from poolc.compiler.quantize.calibration import open_session
from poolc.compiler.quantize.float8 import scales_of
from poolc.compiler.quantize.schemes import Choice, Scheme
from poolc.errors import CompileError

WIDTH, OUT = 32, 24
RANDOM = np.random.default_rng(5)
TEXT = """<ir_version: 10, opset_import: ["": {opset}]>
g (float[rows, 32] x) => (float[rows, 24] y, float[rows, 24] z, float[rows, 24] token_embeddings)
{{
    n = Tanh (x)
    y = MatMul (n, w1)
    z = Gemm <transB = 1> (n, w2, b2)
    token_embeddings = Add (y, z)
}}"""
ARRAYS = {
    "w1": RANDOM.normal(size=(WIDTH, OUT)) * np.geomspace(1e-3, 10, OUT),
    "w2": RANDOM.normal(size=(OUT, WIDTH)),
    "b2": RANDOM.normal(size=OUT),
}


def model(opset: int = 23) -> ir.Model:
    graph = ir.from_onnx_text(TEXT.format(opset=opset))
    for name, array in ARRAYS.items():
        value = next(v for node in graph.graph for v in node.inputs if v and v.name == name)
        value.const_value = ir.tensor(array.astype(np.float32), name=name)
        value.shape, value.dtype = ir.Shape(array.shape), ir.DataType.FLOAT
        graph.graph.initializers[name] = value
    return graph


def run(graph: ir.Model, x: Any, folder: Path) -> list[Any]:
    found: list[Any] = open_session(graph, folder).run(["y", "z"], {"x": x})
    return found


def e4m3(values: Any, scale: Any) -> Any:
    """What PyTorch keeps of values that are divided by a scale."""
    scaled = torch.from_numpy(np.asarray(values, np.float32) / scale).clamp(-448, 448)
    return scaled.to(torch.float8_e4m3fn).float().numpy() * scale


def test_products_are_those_of_rounded_numbers(tmp_path: Path) -> None:
    x = RANDOM.normal(size=(7, WIDTH)).astype(np.float32)
    scale = float(scales_of(1.0))
    graph = Float8LinearsPass({"n": Choice(Scheme.STATIC, 0.0, scale=scale)})(model()).model
    inputs = e4m3(np.tanh(x), np.float32(scale))
    first = e4m3(ARRAYS["w1"], scales_of(np.abs(ARRAYS["w1"]).max()))
    second = e4m3(ARRAYS["w2"], scales_of(np.abs(ARRAYS["w2"]).max()))
    y, z = run(graph, x, tmp_path)
    np.testing.assert_allclose(y, inputs @ first, atol=2e-5, rtol=1e-4)
    np.testing.assert_allclose(z, inputs @ second.T + ARRAYS["b2"], atol=2e-5, rtol=1e-4)
    steps = [node for node in graph.graph if node.op_type == "QuantizeLinear"]
    assert len(steps) == 1  # both products read one rounded input
    assert not {"w1", "w2"} & graph.graph.initializers.keys()


def test_what_is_left_is_exact(tmp_path: Path) -> None:
    x = RANDOM.normal(size=(7, WIDTH)).astype(np.float32)
    left = Float8LinearsPass({"n": Choice(Scheme.FP32, 0.0)})(model())
    assert not left.modified
    for found, wanted in zip(run(left.model, x, tmp_path), run(model(), x, tmp_path), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_a_graph_of_an_older_opset_is_refused() -> None:
    with pytest.raises(CompileError, match="the graph has opset 18 and fp8 needs 19"):
        Float8LinearsPass({"n": Choice(Scheme.STATIC, 0.0, scale=0.1)})(model(18))
