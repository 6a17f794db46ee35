"""The place of the largest whole number, searched among floating-point numbers.

ONNX Runtime's CUDA provider has no ArgMax of integers: it would run on the CPU, without a word, and
a graph with it cannot be recorded. transformers finds a text's last token so, among positions,
which fp32 holds exactly up to 2^24.
"""

from __future__ import annotations

import onnx_ir as ir

from poolc.compiler.passes.rewrite import Editor, RewritePass

_INTEGERS = frozenset({ir.DataType.INT64, ir.DataType.INT32})


class FloatArgMaxPass(RewritePass):
    """Cast what ArgMax and ArgMin read to fp32."""

    name = "float_argmax"

    def rewrite(self, node: ir.Node, editor: Editor) -> bool:
        read = node.inputs[0] if node.op_type in ("ArgMax", "ArgMin") and not node.domain else None
        if read is None or read.dtype not in _INTEGERS:
            return False
        cast = editor.add(node, "Cast", read, to=ir.DataType.FLOAT)
        cast.type, cast.shape = ir.TensorType(ir.DataType.FLOAT), read.shape
        node.replace_input_with(0, cast)
        return True
