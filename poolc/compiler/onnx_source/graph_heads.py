"""Modules behind a trunk as ONNX nodes of its opset: primitive operators only.

Formulas are those of ``heads/`` (torch). Knows nothing about where the vectors come from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import onnx_ir as ir

from poolc.compiler.onnx_source.layers import LAYER_NORM_EPSILON, Layer
from poolc.compiler.onnx_source.nodes import Nodes
from poolc.compiler.onnx_source.numpy_heads import RRELU_SLOPE
from poolc.spec import Activation, LayerKind


def apply(nodes: Nodes, layers: Sequence[Layer], x: ir.Value) -> ir.Value:
    """Append a chain of modules to vectors of texts or of tokens, (..., features)."""
    for layer in layers:
        x = _LAYERS[layer.spec.kind](nodes, layer, x)
    return x


def normalize(nodes: Nodes, x: ir.Value) -> ir.Value:
    """Append x / max(norm, 1e-12) over the features."""
    square = nodes.reduce("ReduceSum", nodes.add("Mul", x, x), -1, keep=True)
    norm = nodes.add("Max", nodes.add("Sqrt", square), nodes.constant(1e-12))
    return nodes.add("Div", x, norm)


def activate(nodes: Nodes, kind: Activation, x: ir.Value) -> ir.Value:
    """Append an activation; softmax is over the features."""
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
    mean = nodes.add("Div", nodes.reduce("ReduceSum", x, -1, keep=True), size)
    centred = nodes.add("Sub", x, mean)
    squares = nodes.reduce("ReduceSum", nodes.add("Mul", centred, centred), -1, keep=True)
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
    Activation.SOFTMAX: lambda nodes, x: nodes.add("Softmax", x, axis=-1),
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
