"""Heads as nodes and in NumPy, against the torch heads, at the oldest and a recent opset."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from poolc.compiler.heads import activation_module
from poolc.compiler.heads import pooling as torch_pooling
from poolc.compiler.onnx_source import graph_heads, numpy_heads
from poolc.compiler.onnx_source.graph_heads import Nodes
from poolc.compiler.onnx_source.layers import Layer
from poolc.spec import Activation, LayerKind, LayerSpec, PoolingType

MASK = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]], np.int64)
POOLINGS = [kind for kind in PoolingType if kind is not PoolingType.ALL]


def random(*shape: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).normal(0, 2, shape).astype(np.float32)


def run(
    opset: int, build: Callable[..., ir.Value], *arrays: npt.NDArray[Any]
) -> npt.NDArray[np.float32]:
    """Run the nodes that ``build`` appends to a graph over ``arrays``."""
    inputs = [
        ir.Value(
            name=f"x{i}",
            shape=ir.Shape([f"d{i}{axis}" for axis in range(array.ndim)]),
            type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
        )
        for i, array in enumerate(arrays)
    ]
    graph = ir.Graph(inputs, [], nodes=[], opset_imports={"": opset}, name="heads")
    output = build(Nodes(graph, opset), *inputs)
    output.type, output.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(["rows", "columns"])
    graph.outputs.append(output)
    model = ir.serde.serialize_model(ir.Model(graph, ir_version=8))
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    feeds = {f"x{i}": array for i, array in enumerate(arrays)}
    return np.asarray(session.run(None, feeds)[0], np.float32)


@pytest.mark.parametrize("opset", [11, 18])
@pytest.mark.parametrize("kind", POOLINGS)
def test_pool(kind: PoolingType, opset: int) -> None:
    hidden = random(3, 4, 6)
    wanted = torch_pooling.pool(torch.tensor(hidden), torch.tensor(MASK), kind).numpy()
    found = run(opset, lambda n, h, m: graph_heads.pool(n, h, m, [kind], 6), hidden, MASK)
    assert np.abs(found - wanted).max() < 1e-6
    alone = [
        numpy_heads.pool(rows[: mask.sum()].astype(np.float64), [kind])
        for rows, mask in zip(hidden, MASK, strict=True)
    ]
    assert np.abs(np.array(alone) - wanted).max() < 1e-5


@pytest.mark.parametrize("opset", [11, 18])
@pytest.mark.parametrize("kind", list(Activation))
def test_activate(kind: Activation, opset: int) -> None:
    x = random(3, 6)
    wanted = activation_module(kind)(torch.tensor(x)).numpy()
    found = run(opset, lambda n, v: graph_heads.activate(n, kind, v), x)
    assert np.abs(found - wanted).max() < 1e-6
    assert np.abs(numpy_heads.activate(kind, x.astype(np.float64)) - wanted).max() < 1e-6


@pytest.mark.parametrize("opset", [11, 18])
def test_apply_chain(opset: int) -> None:
    dense = torch.nn.Linear(6, 4)
    shortcut = torch.nn.Linear(6, 4, bias=False)
    norm = torch.nn.LayerNorm(4)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, 1.0, 2.0, -1.0]))
        norm.bias.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]))
    tensors = {
        "linear.weight": dense.weight.detach().numpy(),
        "linear.bias": dense.bias.detach().numpy(),
        "residual.weight": shortcut.weight.detach().numpy(),
    }
    affine = {"norm.weight": norm.weight.detach().numpy(), "norm.bias": norm.bias.detach().numpy()}
    layers = [
        Layer(LayerSpec("2_Dense", 6, 4, True, Activation.TANH, True), tensors),
        Layer(LayerSpec("3_LayerNorm", 4, 4, kind=LayerKind.LAYER_NORM), affine),
        Layer(LayerSpec("4_Normalize", 4, 4, kind=LayerKind.NORMALIZE)),
    ]
    x = random(3, 6)
    with torch.no_grad():
        given = torch.tensor(x)
        wanted = norm(dense(given).tanh() + shortcut(given))
        wanted = torch.nn.functional.normalize(wanted, dim=-1).numpy()
    found = run(opset, lambda n, v: graph_heads.apply(n, layers, v), x)
    assert np.abs(found - wanted).max() < 1e-6
    rows = [numpy_heads.apply(layers, row.astype(np.float64)) for row in x]
    assert np.abs(np.array(rows) - wanted).max() < 1e-5
