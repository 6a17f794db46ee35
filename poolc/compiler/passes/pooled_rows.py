"""Models pooled at one token: the last layer computes that token only.

The choice of the token (CLS: Gather; last: GatherElements) moves up from the last hidden states,
through what treats every token by itself, to the queries of the last Attention and the residual
stream beside it. Keys and values still see every token, so what they read is where it stops.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from poolc.compiler.passes.rewrite import (
    Editor,
    RewritePass,
    attribute,
    constant,
    dims,
    made_by,
)

# Treat each token by itself; [batch, 1, ...] of every input that has tokens gives that of theirs.
_ELEMENTWISE = frozenset(
    (
        *("Abs", "Neg", "Sqrt", "Reciprocal", "Erf", "Relu", "Sigmoid", "Tanh", "Gelu", "BiasGelu"),
        *("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Cast", "QuantizeLinear"),
    )
)
# Their first input has tokens, the others are constant; reductions go over the last axis.
_OF_FIRST = frozenset(
    (
        *("LayerNormalization", "RMSNormalization", "ReduceMax", "ReduceMean"),
        *("MatMul", "MatMulIntegerToFloat"),
    )
)
_TOKENS = 1  # the axis of [batch, seq, ...]
_QUERIES = 2  # that of the mask, [batch, 1, seq, seq]

Cut = Callable[[ir.Value, int], ir.Value]  # one token of a value, by the axis of its tokens


class PooledRowsPass(RewritePass):
    """Move the choice of the pooled token above the last attention's queries."""

    name = "pooled"

    def rewrite(self, node: ir.Node, editor: Editor) -> bool:
        chosen = _choice(node, editor)
        if chosen is None or chosen.hidden.is_graph_output():
            return False
        if any(reader is not node for reader, _ in chosen.hidden.uses()):
            return False
        attention = _last_attention(chosen.hidden)
        if attention is None:
            return False
        walk = _Walk(node, chosen.cut, editor, attention)
        row = walk.picked(chosen.hidden)
        if walk.passed:
            editor.replace(node.outputs[0], chosen.finish(row))
        return walk.passed


@dataclass(frozen=True, slots=True)
class _Choice:
    """What chose a token of the last hidden states, and how to choose it elsewhere."""

    hidden: ir.Value
    cut: Cut
    finish: Callable[[ir.Value], ir.Value]  # [batch, 1, hidden] -> what the choice gave


def _choice(node: ir.Node, editor: Editor) -> _Choice | None:
    if node.op_type not in ("Gather", "GatherElements") or attribute(node, "axis", 0) != _TOKENS:
        return None
    hidden, index = node.inputs[0], node.inputs[1]
    if hidden is None or len(dims(hidden)) != 3:
        return None
    if node.op_type == "Gather":
        place = constant(index)
        if place is None or place.shape != () or int(place) != 0:
            return None

        def first(value: ir.Value, axis: int) -> ir.Value:
            return editor.add(node, "Slice", value, *map(editor.ints, (0, 1, axis, 1)))

        return _Choice(
            hidden, first, lambda row: editor.add(node, "Squeeze", row, editor.ints(_TOKENS))
        )
    expand = made_by(index, "Expand")
    places = expand.inputs[0] if expand else None
    if places is None or dims(places)[1:] != (1, 1):  # one place a text
        return None
    return _Choice(hidden, lambda value, axis: _at(places, value, axis, node, editor), lambda r: r)


def _at(places: ir.Value, value: ir.Value, axis: int, before: ir.Node, editor: Editor) -> ir.Value:
    """Return each text's token at ``places``, [batch, 1, 1]."""
    sizes, text = dims(value), editor.ints(-1, *[1] * (len(dims(value)) - 1))
    index = editor.add(before, "Reshape", places, text)
    rest = editor.add(before, "Shape", value, start=axis + 1)
    ones = editor.ints(*[1] * (axis + 1))
    shape = editor.add(before, "Concat", ones, rest, axis=0) if axis + 1 < len(sizes) else ones
    whole = editor.add(before, "Expand", index, shape)
    return editor.add(before, "GatherElements", value, whole, axis=axis)


def _last_attention(hidden: ir.Value) -> ir.Node | None:
    """Return the first Attention that is met on the way up."""
    seen: set[ir.Value] = set()
    open_values: list[ir.Value | None] = [hidden]
    while open_values:
        value = open_values.pop(0)
        node = None if value is None else value.producer()
        if node is None or value is None or value in seen:
            continue
        seen.add(value)
        if node.op_type == "Attention" and not node.domain:
            heads = attribute(node, "q_num_heads")
            return node if heads and not attribute(node, "is_causal", 0) else None
        open_values.extend(node.inputs)
    return None


def _above(values: list[ir.Value | None]) -> set[ir.Value]:
    """Return everything that ``values`` depend on, and themselves."""
    found: set[ir.Value] = set()
    while values:
        value = values.pop()
        if value is not None and value not in found:
            found.add(value)
            node = value.producer()
            values.extend(node.inputs if node is not None else ())
    return found


class _Walk:
    """Computes one token of a value from one token of what it is made from."""

    def __init__(self, end: ir.Node, cut: Cut, editor: Editor, attention: ir.Node) -> None:
        self._end, self._cut, self._editor, self._attention = end, cut, editor, attention
        self._whole = _above(list(attention.inputs[1:3]))  # computed for every token anyway
        self._done: dict[ir.Value, ir.Value] = {}
        self.passed = False

    def picked(self, value: ir.Value) -> ir.Value:
        """Return [batch, 1, ...] of [batch, seq, ...]."""
        if value not in self._done:
            node, row = value.producer(), None
            if node is not None and value not in self._whole and len(node.outputs) == 1:
                row = self._again(node)
            row = self._cut(value, _TOKENS) if row is None else row
            row.type = value.type
            if value.shape is not None:
                row.shape = ir.Shape([value.shape.dims[0], 1, *value.shape.dims[2:]])
            self._done[value] = row
        return self._done[value]

    def _again(self, node: ir.Node) -> ir.Value | None:
        """Return the node's output for one token; None where it cannot be had so."""
        inputs = list(node.inputs)
        if node is self._attention:
            mask = inputs[3] if len(inputs) > 3 else None
            if mask is not None and (len(dims(mask)) != 4 or dims(mask)[0] == 1):
                return None  # one mask for all texts has no token of each
            if mask is not None:
                inputs[3] = self._cut(mask, _QUERIES)
            self.passed = True
            return self._copy(node, [self._first(inputs), *inputs[1:]])
        if node.op_type == "RotaryEmbedding" and len(inputs) == 3:
            tables = [self._cut(table, _TOKENS) for table in inputs[1:] if table is not None]
            return self._copy(node, [self._first(inputs), *tables])
        if node.op_type == "Reshape":
            shape = constant(inputs[1])
            kept = shape is not None and len(shape) > 2 and shape[:2].tolist() == [0, 0]
            kept = kept and not attribute(node, "allowzero", 0)
            return self._copy(node, [self._first(inputs), inputs[1]]) if kept else None
        if node.op_type in _OF_FIRST:
            return self._of_first(node, inputs)
        return self._elementwise(node, inputs) if node.op_type in _ELEMENTWISE else None

    def _of_first(self, node: ir.Node, inputs: list[ir.Value | None]) -> ir.Value | None:
        if any(value is not None and constant(value) is None for value in inputs[1:]):
            return None
        if node.op_type.startswith("Reduce"):
            axes = constant(inputs[1]) if len(inputs) > 1 else None
            if axes is None or axes.tolist() != [-1] or not attribute(node, "keepdims", 1):
                return None
        elif node.op_type.endswith("Normalization") and attribute(node, "axis", -1) != -1:
            return None
        return self._copy(node, [self._first(inputs), *inputs[1:]])

    def _elementwise(self, node: ir.Node, inputs: list[ir.Value | None]) -> ir.Value | None:
        rows: list[ir.Value | None] = []
        rank = max(len(dims(value)) for value in inputs)
        for value in inputs:
            shape = dims(value)
            if value is None or (constant(value) is None and len(shape) != rank):
                return None
            if constant(value) is not None and len(shape) < rank - _TOKENS:
                rows.append(value)  # smaller than a token
            elif len(shape) == rank and shape[_TOKENS] != 1 and constant(value) is None:
                rows.append(self.picked(value))
            else:
                return None
        return self._copy(node, rows)

    def _first(self, inputs: list[ir.Value | None]) -> ir.Value:
        if inputs[0] is None:
            raise ValueError("a node has no first input; this is a bug in poolc")
        return self.picked(inputs[0])

    def _copy(self, node: ir.Node, inputs: list[ir.Value | None]) -> ir.Value:
        kept = {name: node.attributes[name].value for name in node.attributes}
        return self._editor.add(self._end, node.op_type, *inputs, domain=node.domain, **kept)
