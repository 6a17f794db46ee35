"""Products with a bias as Gemm, which adds the bias while it writes.

Gemm takes matrices: the activations are seen as [tokens, size] before and as before afterwards.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from poolc.compiler.passes.rewrite import Editor, RewritePass, constant, dims, only_reader


class GemmPass(RewritePass):
    """Replace MatMul with a constant matrix, and the Add of a constant bias, by Gemm."""

    name = "gemm"

    def rewrite(self, node: ir.Node, editor: Editor) -> bool:
        if node.op_type != "MatMul" or node.domain:
            return False
        x, weight, product = node.inputs[0], node.inputs[1], node.outputs[0]
        matrix, add = constant(weight), only_reader(product)
        if matrix is None or matrix.ndim != 2 or add is None or add.op_type != "Add":
            return False
        bias = next(value for value in add.inputs if value is not product)
        offsets, rank = constant(bias), len(dims(x))
        if matrix.dtype != np.float32 or rank not in (2, 3):
            return False
        if offsets is None or offsets.shape != matrix.shape[1:]:
            return False
        inner, width = matrix.shape
        if rank == 2:
            editor.replace(add.outputs[0], editor.add(add, "Gemm", x, weight, bias))
            return True
        flat = editor.add(node, "Reshape", x, editor.ints(-1, inner))
        result = editor.add(node, "Gemm", flat, weight, bias)
        sizes = editor.add(node, "Shape", x, start=0, end=2)
        shape = editor.add(node, "Concat", sizes, editor.ints(width), axis=0)
        editor.replace(add.outputs[0], editor.add(node, "Reshape", result, shape))
        return True
