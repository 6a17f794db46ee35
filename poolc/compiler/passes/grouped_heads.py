"""Grouped-query attention by Attention itself, without copies of the keys and values.

k -> Unsqueeze -> Expand -> Reshape -> Attention
k -> Attention, which reads each of fewer heads several times
"""

from __future__ import annotations

import onnx_ir as ir

from poolc.compiler.passes.rewrite import Editor, RewritePass, constant, dims, made_by


class GroupedHeadsPass(RewritePass):
    """Let Attention read keys and values as they were before their heads were repeated."""

    name = "grouped_heads"

    def rewrite(self, node: ir.Node, editor: Editor) -> bool:
        if node.op_type != "Attention" or node.domain or len(node.inputs) < 3:
            return False
        keys, values = _before_repeating(node.inputs[1]), _before_repeating(node.inputs[2])
        if keys is None or values is None or dims(keys)[1] != dims(values)[1]:
            return False
        node.replace_input_with(1, keys)
        node.replace_input_with(2, values)
        return True


def _before_repeating(value: ir.Value | None) -> ir.Value | None:
    """Return [batch, heads, seq, size] where ``value`` repeats each head in place."""
    reshape = made_by(value, "Reshape")
    expand = made_by(reshape.inputs[0] if reshape else None, "Expand")
    unsqueeze = made_by(expand.inputs[0] if expand else None, "Unsqueeze")
    if unsqueeze is None or expand is None:
        return None
    axes, few, repeated = constant(unsqueeze.inputs[1]), dims(unsqueeze.inputs[0]), dims(value)
    many = dims(expand.outputs[0])
    if axes is None or axes.tolist() != [2] or len(few) != 4 or len(many) != 5:
        return None
    times, heads = many[2], few[1]
    if not isinstance(times, int) or not isinstance(heads, int):
        return None
    expected = (few[0], heads, times, *few[2:])
    same = many == expected and repeated == (few[0], heads * times, *few[2:])
    return unsqueeze.inputs[0] if same else None
