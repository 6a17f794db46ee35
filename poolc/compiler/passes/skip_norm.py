"""A residual sum, the bias before it and the norm behind it as one operator of ONNX Runtime.

    norm(x + b + skip) -> SkipLayerNormalization(x, skip, scale, shift, b)

A sum that others read too (pre-norm layers) is the operator's fourth output. For CUDA: on a CPU the
fused kernel is the slower one (docs/decisions/003-cpu-fusions.md).
"""

from __future__ import annotations

import onnx_ir as ir

from poolc.compiler.passes.rewrite import (
    VENDOR,
    Editor,
    RewritePass,
    attribute,
    constant,
    dims,
    made_by,
)

_FUSED = {
    "LayerNormalization": "SkipLayerNormalization",
    "RMSNormalization": "SkipSimplifiedLayerNormalization",
}
_SUM = 3  # the output that is the sum


class SkipNormPass(RewritePass):
    """Fuse the Add before a LayerNormalization or RMSNormalization, and a bias in it."""

    name = "skip_norm"

    def rewrite(self, node: ir.Node, editor: Editor) -> bool:
        if node.op_type not in _FUSED or node.domain or len(node.outputs) != 1:
            return False
        x, scale = node.inputs[0], node.inputs[1]
        add = made_by(x, "Add")
        if x is None or add is None or attribute(node, "axis", -1) not in (-1, len(dims(x)) - 1):
            return False
        left, right = add.inputs
        if left is None or right is None or constant(left) is not None:
            return False
        if (
            constant(right) is not None
            or dims(left) != dims(right)
            or len(dims(left)) not in (2, 3)
        ):
            return False
        stream, skip, bias = _bias_off(left, right)
        shift = node.inputs[2] if len(node.inputs) > 2 else None
        inputs = [stream, skip, scale]
        if node.op_type == "LayerNormalization":
            inputs.append(shift)
        inputs.append(bias)
        is_read = any(reader is not node for reader, _ in x.uses()) or x.is_graph_output()
        while inputs[-1] is None:
            inputs.pop()
        fused = editor.add(
            node,
            _FUSED[node.op_type],
            *inputs,
            domain=VENDOR,
            outputs=_SUM + 1 if is_read else 1,
            epsilon=attribute(node, "epsilon", 1e-5),
        )
        if is_read:
            outputs = fused.producer().outputs
            for unused in outputs[1:_SUM]:
                unused.name = ""
            editor.replace(x, outputs[_SUM])
        editor.replace(node.outputs[0], fused)
        return True


def _bias_off(left: ir.Value, right: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value | None]:
    """Return what is added up, and the bias that one of the two had on it."""
    for stream, skip in ((left, right), (right, left)):
        add = made_by(stream, "Add")
        if add is None or len(list(stream.uses())) != 1:
            continue
        for x, bias in (add.inputs, tuple(reversed(add.inputs))):
            numbers = constant(bias)
            if x is not None and numbers is not None and numbers.ndim == 1 and numbers.size > 1:
                return x, skip, bias
    return left, right, None
