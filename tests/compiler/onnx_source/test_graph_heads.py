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
from sentence_transformers.sparse_encoder.modules import SpladePooling

from poolc.compiler.heads import activation_module
from poolc.compiler.heads import pooling as torch_pooling
from poolc.compiler.onnx_source import graph_heads, graph_pooling, numpy_heads
from poolc.compiler.onnx_source.graph_pooling import Tokens
from poolc.compiler.onnx_source.layers import Layer
from poolc.compiler.onnx_source.nodes import Nodes
from poolc.spec import Activation, LayerKind, LayerSpec, PoolingType, SparseSpec

MASK = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]], np.int64)
POOLINGS = [kind for kind in PoolingType if kind is not PoolingType.ALL]


def random(*shape: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).normal(0, 2, shape).astype(np.float32)


def run(
    opset: int, build: Callable[..., ir.Value], *arrays: npt.NDArray[Any], rank: int = 2
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
    output.type, output.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([None] * rank)
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
    found = run(opset, lambda n, h, m: graph_pooling.pool(n, Tokens(h, m, 6), [kind]), hidden, MASK)
    assert np.abs(found - wanted).max() < 1e-6
    alone = [
        numpy_heads.pool(rows[: mask.sum()].astype(np.float64), [kind])
        for rows, mask in zip(hidden, MASK, strict=True)
    ]
    assert np.abs(np.array(alone) - wanted).max() < 1e-5


@pytest.mark.parametrize("opset", [11, 18])
@pytest.mark.parametrize("kind", POOLINGS)
def test_pool_of_tokens_that_count(kind: PoolingType, opset: int) -> None:
    """The first tokens, a prompt's, do not."""
    hidden, skipped = random(3, 4, 6), [2, 1, 0]
    counted = MASK * (np.arange(4) >= np.array(skipped)[:, None])
    given = [torch.tensor(array) for array in (hidden, MASK, counted)]
    wanted = torch_pooling.pool(given[0], given[1], kind, given[2]).numpy()
    found = run(
        opset,
        lambda n, h, m, c: graph_pooling.pool(n, Tokens(h, m, 6, c), [kind]),
        *(hidden, MASK, counted),
    )
    assert np.abs(found - wanted).max() < 1e-6
    alone = [
        numpy_heads.pool(rows[: mask.sum()].astype(np.float64), [kind], first)
        for rows, mask, first in zip(hidden, MASK, skipped, strict=True)
    ]
    assert np.abs(np.array(alone) - wanted).max() < 1e-5


@pytest.mark.parametrize("opset", [11, 18])
@pytest.mark.parametrize(
    ("pooling", "activation", "spec"),
    [
        ("max", "relu", SparseSpec()),
        ("max", "log1p_relu", SparseSpec(log1p=2)),
        ("sum", "relu", SparseSpec(pooling="sum")),
    ],
)
def test_pool_sparse(pooling: Any, activation: Any, spec: SparseSpec, opset: int) -> None:
    logits = random(3, 4, 6)
    features = {"token_embeddings": torch.tensor(logits), "attention_mask": torch.tensor(MASK)}
    wanted = SpladePooling(pooling, activation)(features)["sentence_embedding"].numpy()
    found = run(
        opset, lambda n, x, m: graph_pooling.pool_sparse(n, Tokens(x, m, 6), spec), logits, MASK
    )
    assert np.abs(found - wanted).max() < 1e-6
    alone = [
        numpy_heads.pool_sparse(rows[: mask.sum()].astype(np.float64), spec)
        for rows, mask in zip(logits, MASK, strict=True)
    ]
    assert np.abs(np.array(alone) - wanted).max() < 1e-6


@pytest.mark.parametrize("opset", [11, 18])
@pytest.mark.parametrize("kind", list(Activation))
def test_activate(kind: Activation, opset: int) -> None:
    x = random(3, 5, 6)
    wanted = activation_module(kind)(torch.tensor(x)).numpy()
    found = run(opset, lambda n, v: graph_heads.activate(n, kind, v), x, rank=3)
    assert np.abs(found - wanted).max() < 1e-6
    assert np.abs(numpy_heads.activate(kind, x.astype(np.float64)) - wanted).max() < 1e-6


@pytest.mark.parametrize("opset", [11, 18])
@pytest.mark.parametrize("shape", [(3, 6), (3, 5, 6)], ids=["texts", "tokens"])
def test_apply_chain(shape: tuple[int, ...], opset: int) -> None:
    torch.manual_seed(4)
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
    x = random(*shape)
    with torch.no_grad():
        given = torch.tensor(x)
        wanted = norm(dense(given).tanh() + shortcut(given))
        wanted = torch.nn.functional.normalize(wanted, dim=-1).numpy()
    found = run(opset, lambda n, v: graph_heads.apply(n, layers, v), x, rank=x.ndim)
    # The norm over four numbers enlarges rounding where they are nearly equal.
    assert np.abs(found - wanted).max() < 5e-6
    rows = [numpy_heads.apply(layers, row.astype(np.float64)) for row in x]
    assert np.abs(np.array(rows) - wanted).max() < 1e-5
