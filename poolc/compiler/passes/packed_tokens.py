"""Encoders without padding: the trunk computes the real tokens of all texts as one list.

    [batch, seq, hidden] -> Gather of the real tokens -> [tokens, hidden] -> layers
                         -> Gather of each text's tokens -> [batch, seq, hidden] -> head

Every operator between treats a token by itself, but for attention, which
``com.microsoft.PackedMultiHeadAttention`` computes text by text. The host says where the tokens
are, by four more inputs (``runtime/packing.py``). A graph is left as it is where anything else
mixes tokens, where attention is causal, windowed or biased by position, or its heads share keys.

Formulas of the biases: softmax over keys does not change when all of a query's logits do, so that
a bias of the keys has no effect; weights of values sum to 1, so that a bias of the values is one
of the output's, through its matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from poolc.compiler.passes.mask_kinds import Evaluate, MaskKind, mask_kind
from poolc.compiler.passes.rewrite import (
    VENDOR,
    Editor,
    attribute,
    constant,
    dims,
    made_by,
    only_reader,
)
from poolc.spec import (
    CU_SEQLENS,
    RESTORE_INDICES,
    TOKEN_EMBEDDINGS,
    TOKEN_INDICES,
    TOKEN_OFFSET,
)

# Treat each number, or each token's vector, by itself.
_ELEMENTWISE = frozenset(
    (
        *("Abs", "Neg", "Sqrt", "Reciprocal", "Erf", "Relu", "Sigmoid", "Tanh", "Gelu", "Cast"),
        *("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Clip", "Identity", "Softplus"),
    )
)
_OF_VECTORS = frozenset(("LayerNormalization", "RMSNormalization"))
# How many of its first inputs have tokens to be packed; of others all do.
_NUM_STREAMS = {"Attention": 3, "RotaryEmbedding": 1}
_TOKENS = "tokens"  # the symbolic dimension of the packed list


class PackedTokensPass(ir.passes.InPlacePass):
    """Pack the trunk of a model of texts of up to ``max_length`` tokens.

    ``evaluate`` computes masks, to look at them. ``why_not`` says, after a call that changed
    nothing, what was in the way.
    """

    def __init__(self, max_length: int, evaluate: Evaluate) -> None:
        super().__init__()
        self._max_length, self._evaluate = max_length, evaluate
        self.why_not: str | None = None

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        try:
            region = _region(model.graph)
            for mask in {node.inputs[3] for node in region.attentions if len(node.inputs) > 3}:
                kind = mask_kind(model, mask, self._max_length, self._evaluate) if mask else None
                if mask is not None and kind is not MaskKind.KEYS:
                    raise _NotPackable("attention is causal, windowed or biased by position")
            projections = [_projections(node) for node in region.attentions]
        except _NotPackable as error:
            self.why_not = str(error)
            return ir.passes.PassResult(model, False)
        _pack(model.graph, region, projections)
        RemoveUnusedNodesPass()(model)
        return ir.passes.PassResult(model, True)


class _NotPackable(Exception):
    """The message says what mixes tokens."""


@dataclass(frozen=True, slots=True)
class _Region:
    """What is packed: from ``start`` [batch, seq, hidden] to ``end``, the last hidden states."""

    start: ir.Value
    end: ir.Value
    nodes: frozenset[ir.Node]
    attentions: tuple[ir.Node, ...]


@dataclass(frozen=True, slots=True)
class _Projections:
    """The inputs of one attention without the biases that are moved, and where one goes."""

    node: ir.Node
    key: ir.Value
    value: ir.Value
    value_bias: npt.NDArray[np.float32] | None
    output: ir.Node | None  # the Add of the output's bias, where a value's bias goes
    matrix: npt.NDArray[np.float32] | None  # of the output


def _region(graph: ir.Graph) -> _Region:
    """Walk up from the last hidden states as far as every operator treats a token by itself.

    Raises _NotPackable where an attention stays outside.
    """
    order = list(graph)
    end = next((v for n in order for v in n.outputs if v.name == TOKEN_EMBEDDINGS), None)
    if end is None:
        raise _NotPackable("the graph does not name its last hidden states")
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
        if len(frontier) == 1:
            (only,) = frontier
            if len(dims(only)) == 3 and not only.is_graph_input():
                start, kept = only, len(passed)
    nodes = frozenset(passed[:kept])
    attentions = tuple(node for node in order if node.op_type == "Attention")
    if start is None or not attentions:
        raise _NotPackable("it has no attention")
    if any(node not in nodes for node in attentions):
        raise _NotPackable("other operators than attention mix tokens")
    for value in (v for node in nodes for v in node.outputs if v is not end):
        outside = [reader for reader, _ in value.uses() if reader not in nodes]
        if any(not _is_of_sizes(reader) for reader in outside) or value.is_graph_output():
            raise _NotPackable("inner activations are read by its head")
    return _Region(start, end, nodes, attentions)


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
        return len(node.inputs) <= 4 and all(len(dims(value)) == 3 for value in node.inputs[:3])
    if node.op_type == "RotaryEmbedding":
        angles = [dims(value) for value in node.inputs[1:]]
        # By position of each text: [batch, seq, size / 2].
        return len(angles) == 2 and all(
            len(a) == 3 and not any(isinstance(n, int) for n in a[:2]) for a in angles
        )
    if node.op_type in _OF_VECTORS:
        return attribute(node, "axis", -1) in (-1, 2) and len(node.outputs) == 1
    if node.op_type == "MatMul":
        matrix = constant(node.inputs[1])
        return matrix is not None and matrix.ndim == 2
    if node.op_type not in _ELEMENTWISE:
        return False
    known = [constant(value) for value in node.inputs if value is not None]
    # A constant of two axes or more would be one a position.
    return all(array is None or array.ndim <= 1 or array.size == 1 for array in known)


def _projections(node: ir.Node) -> _Projections:
    """Take the biases of keys and values off. Raises _NotPackable."""
    heads = attribute(node, "q_num_heads")
    if heads is None or attribute(node, "kv_num_heads") != heads:
        raise _NotPackable("heads share keys")
    if attribute(node, "is_causal", 0) or attribute(node, "softcap", 0.0):
        raise _NotPackable("attention is causal or capped")
    _, key, value = node.inputs[:3]
    if key is None or value is None:
        raise _NotPackable("attention lacks an input")
    key, _ = _without_bias(key)
    bare, bias = _without_bias(value)
    matmul = only_reader(node.outputs[0])
    matrix = None if matmul is None or matmul.op_type != "MatMul" else constant(matmul.inputs[1])
    add = None if matmul is None or matrix is None else only_reader(matmul.outputs[0])
    if bias is None or matrix is None or add is None or add.op_type != "Add":
        return _Projections(node, key, value, None, None, None)
    if not any(_is_vector(constant(operand)) for operand in add.inputs):
        return _Projections(node, key, value, None, None, None)
    return _Projections(node, key, bare, bias, add, matrix)


def _without_bias(value: ir.Value) -> tuple[ir.Value, npt.NDArray[np.float32] | None]:
    add = made_by(value, "Add")
    if add is None or len(list(value.uses())) != 1:
        return value, None
    for operand, other in (add.inputs, tuple(reversed(add.inputs))):
        bias = constant(other)
        if operand is not None and bias is not None and _is_vector(bias):
            return operand, bias
    return value, None


def _is_vector(array: npt.NDArray[np.generic] | None) -> bool:
    return array is not None and array.ndim == 1 and array.size > 1


def _pack(graph: ir.Graph, region: _Region, projections: list[_Projections]) -> None:
    editor = Editor(graph, "packed")
    inputs = {
        TOKEN_INDICES: [_TOKENS],
        TOKEN_OFFSET: ["batch", "seq"],
        CU_SEQLENS: ["batch_plus_1"],
        RESTORE_INDICES: ["batch", "seq"],
    }
    fed = {}
    for name, shape in inputs.items():
        fed[name] = ir.Value(
            name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.INT32)
        )
        graph.inputs.append(fed[name])
    first = min(region.nodes, key=list(graph).index)
    width = dims(region.start)[2]
    flat = editor.add(first, "Reshape", region.start, editor.ints(-1, width))
    packed = editor.add(first, "Gather", flat, fed[TOKEN_INDICES], axis=0)
    packed.shape, packed.dtype = ir.Shape([_TOKENS, width]), region.start.dtype
    flat.shape, flat.dtype = ir.Shape([None, width]), region.start.dtype
    for node, place in list(region.start.uses()):
        if node in region.nodes:
            node.replace_input_with(place, packed)
    for value in [v for node in region.nodes for v in node.outputs if v is not region.end]:
        for node, place in list(value.uses()):
            if node not in region.nodes:  # it asks for sizes, which are those before packing
                node.replace_input_with(place, region.start)
    angles: dict[ir.Value, ir.Value] = {}
    for node in [n for n in graph if n in region.nodes and n.op_type == "RotaryEmbedding"]:
        _rotate(editor, node, fed[TOKEN_INDICES], angles)
    for found in projections:
        _attend(editor, found, fed)
    for node in list(region.nodes):
        if node.op_type != "RotaryEmbedding":
            _flatten(node)
    end, readers = region.end, list(region.end.uses())
    name, hidden = end.name, end.producer()
    restored = ir.node("Gather", [end, fed[RESTORE_INDICES]], {"axis": 0})
    if hidden is None:
        raise ValueError("the last hidden states are an input; this is a bug in poolc")
    last = _producer_of(graph, end)
    graph.insert_after(last, restored)
    value = restored.outputs[0]
    value.dtype, value.shape = end.dtype, ir.Shape(["batch", "seq", dims(end)[-1]])
    end.name, value.name = f"{name}.packed", name
    for node, place in readers:
        node.replace_input_with(place, value)
    for place, output in enumerate(graph.outputs):
        if output is end:
            graph.outputs[place] = value


def _rotate(
    editor: Editor, node: ir.Node, indices: ir.Value, packed: dict[ir.Value, ir.Value]
) -> None:
    """Give a RotaryEmbedding the list of tokens as one text, and the angles of each of them."""
    x, old = node.inputs[0], node.outputs[0]
    one = editor.ints(0)
    for place in (1, 2):
        value = node.inputs[place]
        if value is None:
            raise ValueError("a rotation without angles; this is a bug in poolc")
        if value not in packed:
            size = dims(value)[2]
            flat = editor.add(node, "Reshape", value, editor.ints(-1, size))
            taken = editor.add(node, "Gather", flat, indices, axis=0)
            packed[value] = editor.add(node, "Unsqueeze", taken, one)
            for made, shape in ((flat, [None, size]), (taken, [_TOKENS, size])):
                made.shape, made.dtype = ir.Shape(shape), value.dtype
            packed[value].shape = ir.Shape([1, _TOKENS, size])
            packed[value].dtype = value.dtype
        node.replace_input_with(place, packed[value])
    row = editor.add(node, "Unsqueeze", x, one)
    row.dtype, row.shape = old.dtype, ir.Shape([1, _TOKENS, dims(old)[-1]])
    node.replace_input_with(0, row)
    turned = ir.node("Squeeze", [old, one])
    editor.graph.insert_after(node, turned)
    new = turned.outputs[0]
    readers = [(reader, place) for reader, place in old.uses() if reader is not turned]
    new.name, new.dtype = f"{old.name}.packed", old.dtype
    new.shape = ir.Shape([_TOKENS, dims(old)[-1]])
    for reader, place in readers:
        reader.replace_input_with(place, new)


def _producer_of(graph: ir.Graph, value: ir.Value) -> ir.Node:
    node = value.producer()
    if node is None:
        raise ValueError(f"{value.name} has no producer; this is a bug in poolc")
    return node


def _attend(editor: Editor, found: _Projections, fed: dict[str, ir.Value]) -> None:
    """Put the packed attention in the place of one over [batch, seq, hidden]."""
    node = found.node
    attributes = {"num_heads": attribute(node, "q_num_heads")}
    scale = attribute(node, "scale")
    if scale is not None:
        attributes["scale"] = scale
    if found.value_bias is not None and found.output is not None and found.matrix is not None:
        _add_to_bias(editor, found.output, found.value_bias @ found.matrix)
    # Rotated ones are what the rotation was replaced by.
    key = node.inputs[1] if made_by(found.key, "RotaryEmbedding") else found.key
    made = editor.add(
        node,
        "PackedMultiHeadAttention",
        *(node.inputs[0], key, found.value, None, fed[TOKEN_OFFSET], fed[CU_SEQLENS]),
        domain=VENDOR,
        **attributes,
    )
    old = node.outputs[0]
    width = dims(old)[-1]
    editor.replace(old, made)
    made.shape = ir.Shape([_TOKENS, width])


def _add_to_bias(editor: Editor, add: ir.Node, more: npt.NDArray[np.float32]) -> None:
    for place, operand in enumerate(add.inputs):
        bias = constant(operand)
        if bias is not None and _is_vector(bias):
            add.replace_input_with(place, editor.constant((bias + more).astype(np.float32)))
            return


def _flatten(node: ir.Node) -> None:
    """Say that a node's outputs are a list of tokens now."""
    if node.op_type in _OF_VECTORS:
        node.attributes["axis"] = ir.AttrInt64("axis", -1)
    for value in node.outputs:
        if value.shape is not None and len(value.shape) == 3:
            value.shape = ir.Shape([_TOKENS, *value.shape.dims[2:]])
