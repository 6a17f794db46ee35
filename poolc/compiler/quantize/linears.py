"""Which matrix products of a graph can be quantised: those of the trunk, with constant weights.

Heads run in fp32 whatever the trunk's precision (design section 3), so the trunk ends at the last
hidden states. Products that read the same activations form a group: they share one quantised input.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from poolc.spec import TOKEN_EMBEDDINGS

# Smaller ones are rotary frequencies and the like, and cost nothing.
_MIN_SIDE = 16


@dataclass(frozen=True, slots=True)
class Linear:
    """``x @ weight (+ bias)``: a Gemm, or a MatMul with the Add of a bias that alone reads it."""

    node: ir.Node  # the product
    weight: ir.Value  # [K, N] f32, constant; the other way round with ``transposed``
    bias: ir.Value | None  # [N] f32, constant
    output: ir.Value  # of the Add, else of the product
    transposed: bool = False

    @property
    def matrix(self) -> npt.NDArray[np.float32]:
        """The weight, [K, N] f32."""
        matrix = _constant(self.weight)
        return np.ascontiguousarray(matrix.T) if self.transposed else matrix

    @property
    def offsets(self) -> npt.NDArray[np.float32] | None:
        """The bias, [N] f32."""
        return None if self.bias is None else _constant(self.bias)


@dataclass(frozen=True, slots=True)
class Group:
    """The products that read the same activations; ``name`` is that of these in the graph."""

    name: str
    linears: tuple[Linear, ...]

    @property
    def x(self) -> ir.Value:
        """The activations, [..., K] f32: what the products read now, whatever was rewritten."""
        value = self.linears[0].node.inputs[0]
        if value is None:
            raise ValueError(f"{self.name} is read by no product; this is a bug in poolc")
        return value

    @property
    def matrix(self) -> npt.NDArray[np.float32]:
        """The weights side by side, [K, N of all] f32."""
        return np.concatenate([linear.matrix for linear in self.linears], axis=1)

    @property
    def num_weights(self) -> int:
        """Weights in all: multiplications for each token."""
        return sum(linear.matrix.size for linear in self.linears)


def find_groups(graph: ir.Graph) -> list[Group]:
    """Return the groups of the trunk, in the order in which the graph runs them."""
    trunk = _trunk(graph)
    by_input: dict[ir.Value | None, list[Linear]] = {}
    for node in graph:
        if node in trunk:
            linear = _linear(node)
            if linear is not None:
                by_input.setdefault(linear.node.inputs[0], []).append(linear)
    return [Group(str(x.name), tuple(linears)) for x, linears in by_input.items() if x is not None]


def _trunk(graph: ir.Graph) -> set[ir.Node]:
    """Return what the last hidden states depend on; everything where they are no output."""
    hidden = [value for value in graph.outputs if value.name == TOKEN_EMBEDDINGS]
    if not hidden:
        return set(graph)
    found: set[ir.Node] = set()
    open_values: list[ir.Value | None] = [*hidden]
    while open_values:
        value = open_values.pop()
        node = None if value is None else value.producer()
        if node is not None and node not in found:
            found.add(node)
            open_values.extend(node.inputs)
    return found


def _linear(node: ir.Node) -> Linear | None:
    if node.op_type not in ("MatMul", "Gemm") or len(node.inputs) < 2:
        return None
    weight, product = node.inputs[1], node.outputs[0]
    constant = None if weight is None else weight.const_value
    if weight is None or constant is None or constant.dtype != ir.DataType.FLOAT:
        return None
    shape = constant.shape.numpy()
    if len(shape) != 2 or min(shape) < _MIN_SIDE:
        return None
    if node.op_type == "Gemm":
        return _gemm(node, weight)
    for add, bias in _bias_adds(product):
        if bias.const_value is not None and tuple(bias.const_value.shape.numpy()) == (shape[1],):
            return Linear(node, weight, bias, add.outputs[0])
    return Linear(node, weight, None, product)


def _gemm(node: ir.Node, weight: ir.Value) -> Linear | None:
    settings = {name: node.attributes[name].value for name in node.attributes}
    factors = (settings.get("alpha", 1.0), settings.get("beta", 1.0))
    if settings.get("transA", 0) or factors != (1, 1):
        return None
    transposed = bool(settings.get("transB", 0))
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        width = weight.const_value.shape.numpy()[0 if transposed else 1]
        if bias.const_value is None or tuple(bias.const_value.shape.numpy()) != (width,):
            return None
    return Linear(node, weight, bias, node.outputs[0], transposed)


def _bias_adds(product: ir.Value) -> Iterator[tuple[ir.Node, ir.Value]]:
    readers = [node for node, _ in product.uses()]
    if len(readers) == 1 and readers[0].op_type == "Add" and not product.is_graph_output():
        others = [value for value in readers[0].inputs if value is not product]
        if len(others) == 1 and others[0] is not None:
            yield readers[0], others[0]


def _constant(value: ir.Value) -> npt.NDArray[np.float32]:
    if value.const_value is None:
        raise ValueError(f"{value.name} is not constant; this is a bug in poolc")
    array: npt.NDArray[np.float32] = value.const_value.numpy()
    return array
