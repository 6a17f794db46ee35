"""The bias before an exact GELU, added by it (``com.microsoft.BiasGelu``)."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from poolc.compiler.passes.rewrite import VENDOR, Editor, RewritePass, attribute, constant, made_by


class BiasGeluPass(RewritePass):
    """Fuse Add of a constant vector and Gelu."""

    name = "bias_gelu"

    def rewrite(self, node: ir.Node, editor: Editor) -> bool:
        if node.op_type != "Gelu" or node.domain:
            return False
        if attribute(node, "approximate", "none") != "none":
            return False
        add = made_by(node.inputs[0], "Add")
        if add is None or len(list(add.outputs[0].uses())) != 1:
            return False
        for x, bias in (add.inputs, reversed(add.inputs)):
            numbers = constant(bias)
            if numbers is None or constant(x) is not None:
                continue
            if numbers.ndim == 1 and numbers.dtype == np.float32:
                fused = editor.add(node, "BiasGelu", x, bias, domain=VENDOR)
                editor.replace(node.outputs[0], fused)
                return True
        return False
