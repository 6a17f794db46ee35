"""The mask of bidirectional attention, without looking each of its places up.

The exporter gathers ``mask[b, k]`` for every (b, k) of two ranges; that is the mask itself.
"""

from __future__ import annotations

import onnx_ir as ir

from poolc.compiler.passes.rewrite import Editor, RewritePass, attribute, constant, dims, made_by


class AttentionMaskPass(RewritePass):
    """Replace GatherND over all rows and columns of [batch, seq] by Unsqueeze."""

    name = "attention_mask"

    def rewrite(self, node: ir.Node, editor: Editor) -> bool:
        if node.op_type != "GatherND" or node.domain or attribute(node, "batch_dims", 0):
            return False
        mask, concat = node.inputs[0], made_by(node.inputs[1], "Concat")
        rows_columns = _sizes(mask)
        if mask is None or concat is None or len(concat.inputs) != 2 or len(rows_columns) != 2:
            return False
        rows, columns = (_counted(value) for value in concat.inputs)
        if rows is None or columns is None or (rows[1], columns[1]) != (0, 3):
            return False
        if (rows[0], columns[0]) != rows_columns:
            return False
        editor.replace(node.outputs[0], editor.add(node, "Unsqueeze", mask, editor.ints(1, 2)))
        return True


def _counted(value: ir.Value | None) -> tuple[object, int] | None:
    """Return how far, and along which axis of [b, 1, 1, k], places are counted from 0."""
    last = made_by(value, "Unsqueeze")  # to [b, 1, 1, k, 1]
    expand = made_by(last.inputs[0] if last else None, "Expand")
    value = expand.inputs[0] if expand else None
    shape = dims(value)
    if len(shape) != 4:
        return None
    node = made_by(value, "Unsqueeze")
    while node is not None:
        value = node.inputs[0]
        node = made_by(value, "Unsqueeze")
    counting = made_by(value, "Range")
    if counting is None:
        return None
    start, step = constant(counting.inputs[0]), constant(counting.inputs[2])
    if start is None or step is None or (int(start), int(step)) != (0, 1):
        return None
    places = [axis for axis, length in enumerate(shape) if length == dims(value)[0]]
    ones = [axis for axis, length in enumerate(shape) if length == 1]
    if len(places) != 1 or len(ones) != 3:
        return None
    return _limit(counting.inputs[1]), places[0]


def _sizes(value: ir.Value | None) -> tuple[object, ...]:
    """Return a shape; of an input that was only cast, the input's, whose names the inputs share."""
    cast = made_by(value, "Cast")
    return dims(cast.inputs[0] if cast else value)


def _limit(value: ir.Value | None) -> object:
    """Return the size that a range goes up to; unknown unless it is one of a value's shape."""
    squeeze = made_by(value, "Squeeze")
    shape = made_by(squeeze.inputs[0] if squeeze else value, "Shape")
    start = attribute(shape, "start", 0) if shape else 0
    sizes = dims(shape.inputs[0]) if shape else ()
    alone = shape is not None and attribute(shape, "end", len(sizes)) == start + 1
    return sizes[start] if alone and start < len(sizes) else object()
