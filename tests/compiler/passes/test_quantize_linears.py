"""Integer products against what they stand for, run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from poolc.compiler.passes.quantize_linears import QuantizeLinearsPass
from poolc.compiler.quantize.calibration import open_session
from poolc.compiler.quantize.linears import find_groups
from poolc.compiler.quantize.schemes import Activations, Choice, Scheme, choose

WIDTH, OUT = 32, 24
RANDOM = np.random.default_rng(5)
TEXT = """<ir_version: 10, opset_import: ["": 23]>
g (float[batch, seq, 32] x) => (float[batch, seq, 24] y, float[batch, seq, 24] token_embeddings)
{{
    n = LayerNormalization <axis = -1> (x, gain, shift)
    {left} = MatMul (n, w1)
    y = Add ({left}, b1)
    m = MatMul (n, w2)
    token_embeddings = Relu (m)
    {more}
}}"""


def model(more: str = "") -> ir.Model:
    graph = ir.from_onnx_text(TEXT.format(left="p", more=more))
    arrays = {
        "gain": 1 + 0.1 * RANDOM.normal(size=WIDTH),
        "shift": RANDOM.normal(size=WIDTH),
        "w1": RANDOM.normal(size=(WIDTH, OUT)),
        "b1": RANDOM.normal(size=OUT),
        "w2": RANDOM.normal(size=(WIDTH, OUT)),
    }
    for name, array in arrays.items():
        tensor = ir.tensor(array.astype(np.float32), name=name)
        for node in graph.graph:
            for value in node.inputs:
                if value is not None and value.name == name:
                    value.const_value, value.shape = tensor, ir.Shape(array.shape)
                    value.dtype = ir.DataType.FLOAT
                    graph.graph.initializers[name] = value
    return graph


def run(graph: ir.Model, x: Any, folder: Path) -> dict[str, Any]:
    names = [value.name for value in graph.graph.outputs]
    return dict(zip(names, open_session(graph, folder).run(names, {"x": x}), strict=True))


def inputs() -> Any:
    x = RANDOM.normal(size=(3, 9, WIDTH)).astype(np.float32)
    x[..., 3] *= 20
    return x


def normalised(graph: ir.Model, x: Any) -> Any:
    gain, shift = (graph.graph.initializers[n].const_value.numpy() for n in ("gain", "shift"))
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(centred.var(-1, keepdims=True) + 1e-5) * gain + shift


def chosen(graph: ir.Model, x: Any, *schemes: Scheme) -> Mapping[str, Choice]:
    (group,) = find_groups(graph.graph)
    sample = normalised(graph, x).reshape(-1, WIDTH).astype(np.float32)
    seen = Activations(sample.min(0), sample.max(0), sample)
    return {group.name: choose(seen, group.matrix, 127, schemes)}


@pytest.mark.parametrize("scheme", [Scheme.STATIC, Scheme.ROW])
def test_quantized_products_are_close(scheme: Scheme, tmp_path: Path) -> None:
    graph, x = model(), inputs()
    # y is behind the trunk's end here, so its product is found only where nothing ends the trunk.
    graph.graph.outputs[1].name = "states"
    choices = chosen(graph, x, scheme)
    assert next(iter(choices.values())).smooth is not None
    exact = run(graph, x, tmp_path)
    done = QuantizeLinearsPass(choices, 127)(graph.clone())
    operators = [node.op_type for node in done.model.graph]
    assert done.modified
    assert operators.count("MatMulIntegerToFloat") == 2
    assert operators.count("QuantizeLinear") == 1  # both products read it
    found = run(done.model, x, tmp_path)
    for name, values in exact.items():
        assert np.linalg.norm(found[name] - values) < 0.01 * np.linalg.norm(values)


def test_quantized_products_ignore_the_batch(tmp_path: Path) -> None:
    graph, x = model(), inputs()
    done = QuantizeLinearsPass(chosen(graph, x, Scheme.STATIC), 127)(graph.clone()).model
    together = run(done, x, tmp_path)["token_embeddings"]
    for i in range(len(x)):
        np.testing.assert_array_equal(
            run(done, x[i : i + 1], tmp_path)["token_embeddings"][0], together[i]
        )


def test_smoothing_goes_into_the_norm_that_only_products_read(tmp_path: Path) -> None:
    graph, x = model(), inputs()
    graph.graph.outputs[1].name = "states"
    choices = chosen(graph, x, Scheme.STATIC)
    folded = QuantizeLinearsPass(choices, 127)(graph.clone()).model
    assert "Mul" not in [node.op_type for node in folded.graph]
    shared = model("z = Exp (n)")
    shared.graph.outputs[1].name = "states"
    shared.graph.outputs.append(next(n for n in shared.graph if n.op_type == "Exp").outputs[0])
    kept = QuantizeLinearsPass(chosen(shared, x, Scheme.STATIC), 127)(shared.clone()).model
    assert "Mul" in [node.op_type for node in kept.graph]
    exact = run(shared, x, tmp_path)
    np.testing.assert_array_equal(run(kept, x, tmp_path)["z"], exact["z"])


def test_products_behind_the_trunk_stay() -> None:
    graph = model()
    (group,) = find_groups(graph.graph)
    assert [linear.weight.name for linear in group.linears] == ["w2"]


def test_nothing_chosen_changes_nothing() -> None:
    graph = model()
    assert not QuantizeLinearsPass({"n": Choice(Scheme.FP32, 0.0)}, 127)(graph).modified
