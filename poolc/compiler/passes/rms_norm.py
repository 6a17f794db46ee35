"""A root-mean-square norm in parts as one RMSNormalization.

Mul (w, Mul (x, Reciprocal (Sqrt (Add (ReduceMean (Pow (x, 2)), eps)))))
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from poolc.compiler.passes.rewrite import Editor, RewritePass, attribute, constant, dims, made_by


class RmsNormPass(RewritePass):
    """Fuse norms over the last axis whose weight is constant."""

    name = "rms_norm"

    def rewrite(self, node: ir.Node, editor: Editor) -> bool:
        if node.op_type != "Mul" or node.domain:
            return False
        for weight, scaled in (node.inputs, reversed(node.inputs)):
            numbers, product = constant(weight), made_by(scaled, "Mul")
            if numbers is None or numbers.dtype != np.float32 or product is None:
                continue
            for x, factor in (product.inputs, reversed(product.inputs)):
                epsilon = _epsilon(x, factor)
                if epsilon is not None and numbers.shape == dims(x)[-1:]:
                    fused = editor.add(
                        node, "RMSNormalization", x, weight, axis=-1, epsilon=epsilon
                    )
                    editor.replace(node.outputs[0], fused)
                    return True
        return False


def _epsilon(x: ir.Value | None, factor: ir.Value | None) -> float | None:
    """Return what is added to the mean square of x in 1 / sqrt(...); None for another formula."""
    reciprocal = made_by(factor, "Reciprocal")
    root = made_by(reciprocal.inputs[0] if reciprocal else None, "Sqrt")
    total = made_by(root.inputs[0] if root else None, "Add")
    if x is None or total is None:
        return None
    for mean, epsilon in (total.inputs, reversed(total.inputs)):
        number, reduce = constant(epsilon), made_by(mean, "ReduceMean")
        if number is None or number.size != 1 or reduce is None:
            continue
        axes = constant(reduce.inputs[1]) if len(reduce.inputs) > 1 else None
        last = axes is not None and axes.tolist() in ([-1], [len(dims(x)) - 1])
        if last and attribute(reduce, "keepdims", 1) and _is_square(reduce.inputs[0], x):
            return float(number.reshape(()))
    return None


def _is_square(value: ir.Value | None, x: ir.Value) -> bool:
    product = made_by(value, "Mul")
    if product is not None:
        return all(factor is x for factor in product.inputs)
    power = made_by(value, "Pow")
    if power is None or power.inputs[0] is not x:
        return False
    exponent = constant(power.inputs[1])
    return exponent is not None and exponent.size == 1 and float(exponent.reshape(())) == 2
