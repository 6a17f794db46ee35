"""Which part of a graph treats every token by itself, but for plain attention within a text.

That part can compute the real tokens of all texts as one list (``packed_tokens.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from poolc.compiler.passes.rewrite import attribute, constant, dims, made_by, only_reader
from poolc.spec import TOKEN_EMBEDDINGS

# Treat each number, or each token's vector, by itself.
_ELEMENTWISE = frozenset(
    (
        *("Abs", "Neg", "Sqrt", "Reciprocal", "Erf", "Relu", "Sigmoid", "Tanh", "Gelu", "Cast"),
        *("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Clip", "Identity", "Softplus"),
    )
)
OF_VECTORS = frozenset(("LayerNormalization", "RMSNormalization"))
# How many of its first inputs have tokens to be packed; of others all do.
_NUM_STREAMS = {"Attention": 3, "RotaryEmbedding": 1}
_MASKED = 4  # q, k, v, mask; more are a cache


class NotPackableError(Exception):
    """The message says what mixes tokens."""


@dataclass(frozen=True, slots=True)
class Projections:
    """The inputs of one attention without the biases that are moved, and where one goes.

    ``value_bias`` [hidden] goes through ``matrix`` into the bias that ``output`` adds.
    """

    node: ir.Node
    key: ir.Value
    value: ir.Value
    value_bias: npt.NDArray[np.float32] | None = None
    output: ir.Node | None = None
    matrix: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Region:
    """What is packed: from ``start`` [batch, seq, hidden] to ``end``, the last hidden states."""

    start: ir.Value
    end: ir.Value
    nodes: tuple[ir.Node, ...]  # in the order of the graph
    attentions: tuple[Projections, ...]

    def masks(self) -> set[ir.Value]:
        """Return the masks of the attentions."""
        inputs = [one.node.inputs for one in self.attentions]
        return {found[3] for found in inputs if len(found) == _MASKED and found[3] is not None}


def find_region(graph: ir.Graph) -> Region:
    """Return what can be packed, whatever the masks say. Raises NotPackableError."""
    order = list(graph)
    end = next((v for node in order for v in node.outputs if v.name == TOKEN_EMBEDDINGS), None)
    if end is None:
        raise NotPackableError("the graph does not name its last hidden states")
    attentions = [node for node in order if node.op_type == "Attention"]
    if not attentions:
        raise NotPackableError("its attention is written out")
    start, inside = _walk(order, end)
    if start is None or not inside.issuperset(attentions):
        raise NotPackableError("other operators than attention mix tokens")
    _check_closed(inside, end)
    nodes = tuple(node for node in order if node in inside)
    return Region(start, end, nodes, tuple(_projections(node) for node in attentions))


def _walk(order: list[ir.Node], end: ir.Value) -> tuple[ir.Value | None, set[ir.Node]]:
    """Go up from the last hidden states as far as every operator treats a token by itself.

    Return the value that all of it depends on, and the nodes below that.
    """
    frontier, passed = {end}, list[ir.Node]()
    start: ir.Value | None = None
    kept = 0
    for node in reversed(order):
        if not frontier.intersection(node.outputs):
            continue
        if not _is_of_tokens(node):
            break
        passed.append(node)
        frontier -= set(node.outputs)
        frontier.update(_streams(node))
        (only, *others) = frontier
        if not others and len(dims(only)) == 3 and not only.is_graph_input():
            start, kept = only, len(passed)
    return start, set(passed[:kept])


def _check_closed(inside: set[ir.Node], end: ir.Value) -> None:
    """Raise NotPackableError where something else reads what is inside."""
    for value in (v for node in inside for v in node.outputs if v is not end):
        outside = [reader for reader, _ in value.uses() if reader not in inside]
        if value.is_graph_output() or any(not _is_of_sizes(reader) for reader in outside):
            raise NotPackableError("inner activations are read by its head")


def _is_of_sizes(node: ir.Node) -> bool:
    """Whether a node reads how many texts and tokens there are, and no more."""
    if node.op_type != "Shape" or node.domain:
        return False
    end = attribute(node, "end")
    return attribute(node, "start", 0) >= 0 and end is not None and 0 < end <= 2


def _streams(node: ir.Node) -> list[ir.Value]:
    """Return the inputs of a node that have tokens."""
    inputs = node.inputs[: _NUM_STREAMS.get(node.op_type)]
    return [value for value in inputs if value is not None and constant(value) is None]


def _is_of_tokens(node: ir.Node) -> bool:
    if node.domain:
        return False
    if node.op_type == "Attention":
        flat = all(len(dims(value)) == 3 for value in node.inputs[:3])
        return flat and len(node.inputs) <= _MASKED
    if node.op_type == "RotaryEmbedding":
        return len(node.inputs) == 3 and all(_is_of_positions(v) for v in node.inputs[1:])
    if node.op_type in OF_VECTORS:
        return attribute(node, "axis", -1) in (-1, 2) and len(node.outputs) == 1
    if node.op_type == "MatMul":
        matrix = constant(node.inputs[1])
        return matrix is not None and matrix.ndim == 2
    if node.op_type not in _ELEMENTWISE:
        return False
    known = [constant(value) for value in node.inputs if value is not None]
    # A constant of two axes or more would be one a position.
    return all(array is None or array.ndim <= 1 or array.size == 1 for array in known)


def _is_of_positions(value: ir.Value | None) -> bool:
    """Whether a value is [batch, seq, size]: one row a token of each text."""
    sizes = dims(value)
    return len(sizes) == 3 and not any(isinstance(size, int) for size in sizes[:2])


def _projections(node: ir.Node) -> Projections:
    """Take the biases of keys and values off. Raises NotPackableError."""
    heads = attribute(node, "q_num_heads")
    if heads is None or attribute(node, "kv_num_heads") != heads:
        raise NotPackableError("heads share keys")
    if attribute(node, "is_causal", 0) or attribute(node, "softcap", 0.0):
        raise NotPackableError("attention is causal or capped")
    _, key, value = node.inputs[:3]
    if key is None or value is None:
        raise NotPackableError("attention lacks an input")
    key, _ = _without_bias(key)
    bare, bias = _without_bias(value)
    matmul = only_reader(node.outputs[0])
    matrix = None if matmul is None or matmul.op_type != "MatMul" else constant(matmul.inputs[1])
    add = None if matmul is None or matrix is None else only_reader(matmul.outputs[0])
    if bias is None or matrix is None or add is None or add.op_type != "Add":
        return Projections(node, key, value)
    if not any(is_vector(constant(operand)) for operand in add.inputs):
        return Projections(node, key, value)
    return Projections(node, key, bare, bias, add, matrix)


def _without_bias(value: ir.Value) -> tuple[ir.Value, npt.NDArray[np.float32] | None]:
    add = made_by(value, "Add")
    if add is None or len(list(value.uses())) != 1:
        return value, None
    for operand, other in (add.inputs, tuple(reversed(add.inputs))):
        bias = constant(other)
        if operand is not None and bias is not None and is_vector(bias):
            return operand, bias
    return value, None


def is_vector(array: npt.NDArray[Any] | None) -> bool:
    """Whether a constant is a vector, as a bias is."""
    return array is not None and array.ndim == 1 and array.size > 1
