"""Boolean attention masks as numbers to add, made once instead of by every Attention."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from poolc.compiler.passes.rewrite import Editor, RewritePass


class FloatMaskPass(RewritePass):
    """Give each Attention 0 where the mask is true and the lowest number elsewhere."""

    name = "float_mask"

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[ir.Value, ir.Value] = {}

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        self._made.clear()
        return super().call(model)

    def rewrite(self, node: ir.Node, editor: Editor) -> bool:
        mask = node.inputs[3] if node.op_type == "Attention" and len(node.inputs) > 3 else None
        if mask is None or node.domain or mask.dtype != ir.DataType.BOOL:
            return False
        queries = node.inputs[0]
        if queries is None or queries.dtype != ir.DataType.FLOAT:
            return False
        if mask not in self._made:
            numbers = (np.float32(0), np.finfo(np.float32).min)
            made = editor.add(node, "Where", mask, *map(editor.constant, numbers))
            made.shape, made.dtype = mask.shape, ir.DataType.FLOAT
            self._made[mask] = made
        node.replace_input_with(3, self._made[mask])
        return True
