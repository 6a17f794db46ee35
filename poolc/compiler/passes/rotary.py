"""Rotary position embeddings as RotaryEmbedding.

    Add (Mul (x, cos), Mul (Concat (Neg (x's second half), x's first half), sin))

The operator reads one half of cos and sin: both halves have to be the same, as they are where they
come from Concat (f, f).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from poolc.compiler.passes.rewrite import Editor, RewritePass, attribute, constant, dims, made_by

_SCALED = ("Mul", "Cast", "Unsqueeze", "Cos", "Sin")  # what keeps equal halves equal


class RotaryPass(RewritePass):
    """Fuse the rotation of [batch, heads, seq, size] by tables of [1 or batch, 1, seq, size]."""

    name = "rotary"

    def __init__(self) -> None:
        super().__init__()
        self._tables: dict[ir.Value, ir.Value] = {}

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        self._tables.clear()
        return super().call(model)

    def rewrite(self, node: ir.Node, editor: Editor) -> bool:
        if node.op_type != "Add" or node.domain:
            return False
        for straight, turned in (node.inputs, reversed(node.inputs)):
            found = _rotation(straight, turned)
            if found is not None:
                x, cos, sin = found
                tables = [self._table(value, x, node, editor) for value in (cos, sin)]
                editor.replace(node.outputs[0], editor.add(node, "RotaryEmbedding", x, *tables))
                return True
        return False

    def _table(self, value: ir.Value, x: ir.Value, before: ir.Node, editor: Editor) -> ir.Value:
        """Return the first half of a table, [batch, seq, size / 2]."""
        if value not in self._tables:
            half = dims(x)[3] // 2
            first = editor.add(before, "Slice", value, *map(editor.ints, (0, half, 3, 1)))
            flat = editor.add(before, "Squeeze", first, editor.ints(1))
            batch = editor.add(before, "Shape", x, start=0, end=1)
            ones = editor.add(before, "Concat", batch, editor.ints(1, 1), axis=0)
            table = editor.add(before, "Expand", flat, ones)
            sizes = x.shape.dims if x.shape is not None else ()
            table.shape, table.type = ir.Shape([*sizes[:1], *sizes[2:3], half]), value.type
            self._tables[value] = table
        return self._tables[value]


def _rotation(
    straight: ir.Value | None, turned: ir.Value | None
) -> tuple[ir.Value, ir.Value, ir.Value] | None:
    """Return x, cos and sin of ``straight + turned``."""
    left, right = made_by(straight, "Mul"), made_by(turned, "Mul")
    if left is None or right is None:
        return None
    for x, cos in (left.inputs, reversed(left.inputs)):
        for half_turn, sin in (right.inputs, reversed(right.inputs)):
            if x is None or cos is None or sin is None or not _is_half_turn(half_turn, x):
                continue
            if _is_table(cos, x) and _is_table(sin, x):
                return x, cos, sin
    return None


def _is_half_turn(value: ir.Value | None, x: ir.Value) -> bool:
    """Whether ``value`` is Concat (-x[half:], x[:half]) over the last of four axes."""
    concat, shape = made_by(value, "Concat"), dims(x)
    if concat is None or len(concat.inputs) != 2 or len(shape) != 4:
        return False
    size = shape[3]
    if not isinstance(size, int) or size % 2 or attribute(concat, "axis") not in (-1, 3):
        return False
    negative = made_by(concat.inputs[0], "Neg")
    second = _sliced(negative.inputs[0] if negative else None, x)
    first = _sliced(concat.inputs[1], x)
    if first is None or second is None or first[0] != 0 or second[1] < size:
        return False
    return first[1] == second[0] == size // 2


def _sliced(value: ir.Value | None, x: ir.Value) -> tuple[int, int] | None:
    """Return start and end of a slice of x's last axis."""
    node = made_by(value, "Slice")
    if node is None or node.inputs[0] is not x or len(node.inputs) < 4:
        return None
    numbers = [constant(one) for one in node.inputs[1:]]
    if any(one is None or one.size != 1 for one in numbers):
        return None
    start, end, axis, *step = (int(np.asarray(one).reshape(())) for one in numbers)
    return (start, end) if axis in (-1, 3) and step in ([], [1]) else None


def _is_table(value: ir.Value, x: ir.Value) -> bool:
    shape, size = dims(value), dims(x)
    if len(shape) != 4 or shape[1] != 1 or shape[2:] != size[2:] or shape[0] not in (1, size[0]):
        return False
    return _has_equal_halves(value)


def _has_equal_halves(value: ir.Value | None) -> bool:
    node = None if value is None else value.producer()
    if node is None or value is None:
        return False
    if node.op_type == "Concat":
        both = len(node.inputs) == 2 and node.inputs[0] is node.inputs[1]
        return both and attribute(node, "axis") in (-1, len(dims(value)) - 1)
    if node.op_type not in _SCALED:
        return False
    if node.op_type == "Mul":
        numbers = [constant(one) for one in node.inputs]
        scalars = [one is not None and one.size == 1 for one in numbers]
        if sum(scalars) != 1:
            return False
        return _has_equal_halves(node.inputs[0 if scalars[1] else 1])
    axes = constant(node.inputs[1]) if node.op_type == "Unsqueeze" else None
    last = axes is not None and any(int(axis) in (-1, len(dims(value)) - 1) for axis in axes)
    return not last and _has_equal_halves(node.inputs[0])
