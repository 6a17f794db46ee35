"""Heads as ONNX nodes of the opset that a shipped graph has, 11 or later: primitive operators only.

Formulas are those of ``heads/`` (torch). Knows nothing about where the token vectors come from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from poolc.compiler.onnx_source.layers import LAYER_NORM_EPSILON, Layer
from poolc.compiler.onnx_source.numpy_heads import RRELU_SLOPE
from poolc.spec import Activation, LayerKind, PoolingType

# From which opset on these take their axes as an input.
_AXES_INPUT = {"ReduceSum": 13, "ReduceMax": 18}


class Nodes:
    """Appends nodes and constants to a graph."""

    def __init__(self, graph: ir.Graph, opset: int) -> None:
        self._graph = graph
        self._opset = opset
        self._count = 0

    def add(self, op: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        """Append a node with one output and return that."""
        node = ir.node(op, list(inputs), attributes or None)
        node.outputs[0].name = self._name()
        self._graph.append(node)
        return node.outputs[0]

    def constant(self, value: npt.ArrayLike, dtype: type = np.float32) -> ir.Value:
        """Add an initializer."""
        name = self._name()
        array: npt.NDArray[Any] = np.asarray(value, dtype)
        tensor = ir.tensor(array, name=name)
        constant = ir.Value(
            name=name,
            shape=ir.Shape(array.shape),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
        self._graph.register_initializer(constant)
        return constant

    def reduce(self, op: str, x: ir.Value, axis: int, *, keep: bool = False) -> ir.Value:
        """Append ReduceSum or ReduceMax over one axis."""
        if self._opset >= _AXES_INPUT[op]:
            return self.add(op, x, self.constant([axis], np.int64), keepdims=int(keep))
        return self.add(op, x, axes=[axis], keepdims=int(keep))

    def as_float(self, x: ir.Value) -> ir.Value:
        """Append a cast to fp32."""
        return self.add("Cast", x, to=int(ir.DataType.FLOAT))

    def _name(self) -> str:
        self._count += 1
        return f"poolc_{self._count}"


def pool(
    nodes: Nodes, hidden: ir.Value, mask: ir.Value, kinds: Sequence[PoolingType], width: int
) -> ir.Value:
    """Pool (batch, seq, width) where the int64 mask is 1 -> (batch, width * len(kinds))."""
    pooled = [_pool(nodes, hidden, mask, kind, width) for kind in kinds]
    return pooled[0] if len(pooled) == 1 else nodes.add("Concat", *pooled, axis=1)


def _pool(
    nodes: Nodes, hidden: ir.Value, mask: ir.Value, kind: PoolingType, width: int
) -> ir.Value:
    if kind is PoolingType.CLS:
        return nodes.add("Gather", hidden, nodes.constant(0, np.int64), axis=1)
    if kind is PoolingType.LAST:
        count = nodes.reduce("ReduceSum", mask, 1)
        last = nodes.add("Sub", count, nodes.constant(1, np.int64))  # (batch,)
        last = nodes.add("Reshape", last, nodes.constant([-1, 1, 1], np.int64))
        index = nodes.add("Expand", last, nodes.constant([1, 1, width], np.int64))
        chosen = nodes.add("GatherElements", hidden, index, axis=1)
        return nodes.add("Reshape", chosen, nodes.constant([-1, width], np.int64))
    counted = nodes.as_float(mask)
    column = nodes.constant([0, 0, 1], np.int64)
    if kind is PoolingType.MAX:
        padded = nodes.add("Reshape", nodes.add("Equal", mask, nodes.constant(0, np.int64)), column)
        lowest = nodes.constant(-math.inf)
        return nodes.reduce("ReduceMax", nodes.add("Where", padded, lowest, hidden), 1)
    if kind is PoolingType.WEIGHTED_MEAN:  # position p, counted from 1, has weight p
        positions = nodes.add("CumSum", counted, nodes.constant(1, np.int64))
        counted = nodes.add("Mul", counted, positions)
    weights = nodes.add("Reshape", counted, column)  # (batch, seq, 1)
    total = nodes.reduce("ReduceSum", nodes.add("Mul", hidden, weights), 1)
    count = nodes.add("Max", nodes.reduce("ReduceSum", weights, 1), nodes.constant(1e-9))
    if kind is PoolingType.MEAN_SQRT_LEN:
        count = nodes.add("Sqrt", count)
    return nodes.add("Div", total, count)


def apply(nodes: Nodes, layers: Sequence[Layer], x: ir.Value) -> ir.Value:
    """Append a chain of modules to (batch, features)."""
    for layer in layers:
        x = _LAYERS[layer.spec.kind](nodes, layer, x)
    return x


def normalize(nodes: Nodes, x: ir.Value) -> ir.Value:
    """Append x / max(norm, 1e-12) over the features."""
    square = nodes.reduce("ReduceSum", nodes.add("Mul", x, x), 1, keep=True)
    norm = nodes.add("Max", nodes.add("Sqrt", square), nodes.constant(1e-12))
    return nodes.add("Div", x, norm)


def activate(nodes: Nodes, kind: Activation, x: ir.Value) -> ir.Value:
    """Append an activation of (batch, features)."""
    return _ACTIVATIONS[kind](nodes, x)


def _dense(nodes: Nodes, layer: Layer, x: ir.Value) -> ir.Value:
    spec, tensors = layer.spec, layer.tensors
    y = nodes.add("MatMul", x, nodes.constant(tensors["linear.weight"].T))
    if spec.bias:
        y = nodes.add("Add", y, nodes.constant(tensors["linear.bias"]))
    y = activate(nodes, spec.activation, y)
    if not spec.residual:
        return y
    if "residual.weight" in tensors:
        x = nodes.add("MatMul", x, nodes.constant(tensors["residual.weight"].T))
    return nodes.add("Add", y, x)


def _layer_norm(nodes: Nodes, layer: Layer, x: ir.Value) -> ir.Value:
    size = nodes.constant(layer.spec.out_features)
    mean = nodes.add("Div", nodes.reduce("ReduceSum", x, 1, keep=True), size)
    centred = nodes.add("Sub", x, mean)
    squares = nodes.reduce("ReduceSum", nodes.add("Mul", centred, centred), 1, keep=True)
    variance = nodes.add("Add", nodes.add("Div", squares, size), nodes.constant(LAYER_NORM_EPSILON))
    unit = nodes.add("Div", centred, nodes.add("Sqrt", variance))
    gained = nodes.add("Mul", unit, nodes.constant(layer.tensors["norm.weight"]))
    return nodes.add("Add", gained, nodes.constant(layer.tensors["norm.bias"]))


_LAYERS: Mapping[LayerKind, Callable[[Nodes, Layer, ir.Value], ir.Value]] = {
    LayerKind.DENSE: _dense,
    LayerKind.LAYER_NORM: _layer_norm,
    LayerKind.NORMALIZE: lambda nodes, _, x: normalize(nodes, x),
}


def _gelu(nodes: Nodes, x: ir.Value) -> ir.Value:
    erf = nodes.add("Erf", nodes.add("Mul", x, nodes.constant(math.sqrt(0.5))))
    half = nodes.add("Mul", x, nodes.constant(0.5))
    return nodes.add("Mul", half, nodes.add("Add", erf, nodes.constant(1.0)))


def _clip(nodes: Nodes, x: ir.Value, low: float, high: float) -> ir.Value:
    return nodes.add("Clip", x, nodes.constant(low), nodes.constant(high))


def _hard_sigmoid(nodes: Nodes, x: ir.Value) -> ir.Value:
    return nodes.add("HardSigmoid", x, alpha=1 / 6, beta=0.5)


_ACTIVATIONS: Mapping[Activation, Callable[[Nodes, ir.Value], ir.Value]] = {
    Activation.IDENTITY: lambda nodes, x: nodes.add("Identity", x),
    Activation.SIGMOID: lambda nodes, x: nodes.add("Sigmoid", x),
    Activation.SOFTMAX: lambda nodes, x: nodes.add("Softmax", x, axis=1),
    Activation.TANH: lambda nodes, x: nodes.add("Tanh", x),
    Activation.RELU: lambda nodes, x: nodes.add("Relu", x),
    Activation.GELU: _gelu,
    Activation.SILU: lambda nodes, x: nodes.add("Mul", x, nodes.add("Sigmoid", x)),
    Activation.ELU: lambda nodes, x: nodes.add("Elu", x),
    Activation.LEAKY_RELU: lambda nodes, x: nodes.add("LeakyRelu", x),
    Activation.MISH: lambda nodes, x: nodes.add(
        "Mul", x, nodes.add("Tanh", nodes.add("Softplus", x))
    ),
    Activation.SOFTPLUS: lambda nodes, x: nodes.add("Softplus", x),
    Activation.CELU: lambda nodes, x: nodes.add("Elu", x, alpha=1.0),
    Activation.SELU: lambda nodes, x: nodes.add("Selu", x),
    Activation.RELU6: lambda nodes, x: _clip(nodes, x, 0.0, 6.0),
    Activation.RRELU: lambda nodes, x: nodes.add("LeakyRelu", x, alpha=RRELU_SLOPE),
    Activation.HARDSIGMOID: lambda nodes, x: _hard_sigmoid(nodes, x),
    Activation.HARDSWISH: lambda nodes, x: nodes.add("Mul", x, _hard_sigmoid(nodes, x)),
    Activation.HARDTANH: lambda nodes, x: _clip(nodes, x, -1.0, 1.0),
    Activation.HARDSHRINK: lambda nodes, x: nodes.add("Shrink", x, lambd=0.5, bias=0.0),
    Activation.SOFTSHRINK: lambda nodes, x: nodes.add("Shrink", x, lambd=0.5, bias=0.5),
    Activation.SOFTSIGN: lambda nodes, x: nodes.add("Softsign", x),
    Activation.TANHSHRINK: lambda nodes, x: nodes.add("Sub", x, nodes.add("Tanh", x)),
    Activation.LOGSIGMOID: lambda nodes, x: nodes.add(
        "Neg", nodes.add("Softplus", nodes.add("Neg", x))
    ),
}
