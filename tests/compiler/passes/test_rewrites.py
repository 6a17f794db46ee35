"""Each rewrite on a graph of its own: what it replaces, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from poolc.compiler.passes.attention_layout import AttentionLayoutPass
from poolc.compiler.passes.attention_mask import AttentionMaskPass
from poolc.compiler.passes.bias_gelu import BiasGeluPass
from poolc.compiler.passes.float_mask import FloatMaskPass
from poolc.compiler.passes.gemm import GemmPass
from poolc.compiler.passes.pack_linears import PackLinearsPass
from poolc.compiler.passes.rms_norm import RmsNormPass
from tests.compiler.passes.rewriting import RANDOM, graph, operators, same

WIDTH = 32
X = {"x": RANDOM.normal(size=(3, 7, WIDTH)).astype(np.float32)}


def array(*shape: int) -> Any:
    return RANDOM.normal(size=shape).astype(np.float32)


def changed(rewrite: ir.passes.InPlacePass, model: ir.Model, feeds: Any, folder: Path) -> list[str]:
    """Rewrite a copy, compare, and return its operators."""
    done = rewrite(model.clone())
    assert done.modified
    assert not rewrite(done.model.clone()).modified or isinstance(rewrite, GemmPass)
    same(model, done.model, feeds, folder)
    return operators(done.model)


def linear(width: int = 24) -> ir.Model:
    text = (
        f"g (float[batch, seq, {WIDTH}] x) => (float[batch, seq, {width}] y) "
        "{ p = MatMul (x, w) s = Add (p, b) y = Gelu (s) }"
    )
    return graph(text, {"w": array(WIDTH, width), "b": array(width)})


def test_bias_gelu(tmp_path: Path) -> None:
    assert changed(BiasGeluPass(), linear(), X, tmp_path) == ["MatMul", "BiasGelu"]


def test_gemm(tmp_path: Path) -> None:
    found = changed(GemmPass(), linear(), X, tmp_path)
    assert "Gemm" in found
    assert "MatMul" not in found


def norm(square: str = "Mul (x, x)", epsilon: str = "{1e-6}") -> ir.Model:
    text = f"""g (float[batch, seq, {WIDTH}] x) => (float[batch, seq, {WIDTH}] y)
    <float two = {{2.0}}, float eps = {epsilon}, int64[1] last = {{-1}}> {{
        q = {square}
        m = ReduceMean <keepdims = 1> (q, last)
        t = Add (m, eps)
        r = Sqrt (t)
        i = Reciprocal (r)
        n = Mul (x, i)
        y = Mul (w, n)
    }}"""
    return graph(text, {"w": array(WIDTH)})


@pytest.mark.parametrize("square", ["Mul (x, x)", "Pow (x, two)"])
def test_rms_norm(square: str, tmp_path: Path) -> None:
    assert changed(RmsNormPass(), norm(square), X, tmp_path) == ["RMSNormalization"]


def test_rms_norm_of_another_formula() -> None:
    assert not RmsNormPass()(norm("Mul (x, w)")).modified


def packed(bias: bool) -> ir.Model:
    second = "r = Add (q, c)" if bias else "r = Identity (q)"
    text = (
        f"g (float[batch, seq, {WIDTH}] x) => (float[batch, seq, 16] s, float[batch, seq, 20] r) "
        "{ p = MatMul (x, v) q = MatMul (x, w) s = Add (p, b) " + second + " }"
    )
    arrays = {"v": array(WIDTH, 16), "w": array(WIDTH, 20), "b": array(16), "c": array(20)}
    return graph(text, arrays if bias else {name: arrays[name] for name in "vwb"})


@pytest.mark.parametrize("bias", [True, False])
def test_pack_linears(bias: bool, tmp_path: Path) -> None:
    found = changed(PackLinearsPass(), packed(bias), X, tmp_path)
    assert found[:3] == ["MatMul", "Add", "Split"]


def attention(mask: str = "m", size: int = 8, opset: int = 23) -> ir.Model:
    text = f"""g (float[batch, seq, {WIDTH}] x, bool[batch, 1, seq, seq] m)
        => (float[batch, seq, {WIDTH}] y)
    <int64[4] split = {{0, 0, 4, {size}}}, int64[3] join = {{0, 0, {WIDTH}}}> {{
        h = Reshape (x, split)
        q = Transpose <perm = [0, 2, 1, 3]> (h)
        a = Attention (q, q, q, {mask})
        t = Transpose <perm = [0, 2, 1, 3]> (a)
        y = Reshape (t, join)
    }}"""
    model = graph(text)
    model.graph.opset_imports[""] = opset
    return model


def feeds() -> dict[str, Any]:
    mask = np.tril(np.ones((7, 7), bool))[None, None].repeat(3, 0)
    mask[1, :, :, 5:] = False
    return {**X, "m": mask}


def test_attention_layout(tmp_path: Path) -> None:
    assert changed(AttentionLayoutPass(), attention(), feeds(), tmp_path)[-1] == "Attention"


def test_attention_layout_of_an_output_that_stays(tmp_path: Path) -> None:
    model = attention()
    inner = next(node.outputs[0] for node in model.graph if node.op_type == "Attention")
    model.graph.outputs.append(inner)
    found = changed(AttentionLayoutPass(), model, feeds(), tmp_path)
    assert found.count("Attention") == 1


def test_attention_layout_needs_the_operators_opset() -> None:
    assert not AttentionLayoutPass()(attention(opset=22)).modified


def test_float_mask(tmp_path: Path) -> None:
    assert "Where" in changed(FloatMaskPass(), attention(), feeds(), tmp_path)


def mask(rows: str = "zero", columns: str = "zero") -> ir.Model:
    """As the exporter looks the mask of bidirectional attention up."""
    text = f"""g (int64[batch, seq] x) => (bool[batch, 1, 1, seq] y)
    <int64 zero = {{0}}, int64 one = {{1}}, int64[3] after = {{1, 2, 3}}, int64[3] before =
     {{0, 1, 2}}, int64[1] last = {{-1}}, int64[1] first = {{0}}> {{
        m = Cast <to = 9> (x)
        b = Shape <start = 0, end = 1> (x)
        s = Shape <start = 1, end = 2> (x)
        bs = Squeeze (b)
        ss = Squeeze (s)
        rows = Range ({rows}, bs, one)
        cols = Range ({columns}, ss, one)
        r = Unsqueeze (rows, after)
        c = Unsqueeze (cols, before)
        both = Max (r, c)
        shape = Shape (both)
        re = Expand (r, shape)
        ce = Expand (c, shape)
        ru = Unsqueeze (re, last)
        cu = Unsqueeze (ce, last)
        places = Concat <axis = -1> (ru, cu)
        y = GatherND (m, places)
    }}"""
    return graph(text)


def test_attention_mask(tmp_path: Path) -> None:
    ones = {"x": np.array([[1, 1, 0], [1, 0, 0]])}
    assert changed(AttentionMaskPass(), mask(), ones, tmp_path) == ["Cast", "Unsqueeze"]


def test_attention_mask_of_other_places() -> None:
    assert not AttentionMaskPass()(mask(columns="one")).modified
