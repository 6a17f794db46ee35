"""Attention masks with every row written out: [batch, heads or 1, seq, seq].

TensorRT's fused attention takes masks of that shape, and ONNX Runtime's CPU provider refuses one
row for all queries.

Where what is seen depends on the query, as in windows, padding can be so far from the text that it
sees nothing: a softmax over nothing is no number, in libraries that mask with infinity. There every
query sees its own key too. Those of texts do so already, and nothing reads what padding gets.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from poolc.compiler.passes.rewrite import Editor, RewritePass, dims
from poolc.spec import INPUT_IDS


class ExpandedMasksPass(RewritePass):
    """Write out what is broadcast over texts or queries, once for all the nodes that read it."""

    name = "expanded_mask"

    def __init__(self) -> None:
        super().__init__()
        self._done: set[ir.Value] = set()
        self._itself: ir.Value | None = None  # [seq, seq]: which key is the query's own
        self._ids: ir.Value | None = None

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        self._done.clear()
        self._itself = None
        self._ids = next((v for v in model.graph.inputs if v.name == INPUT_IDS), None)
        return super().call(model)

    def rewrite(self, node: ir.Node, editor: Editor) -> bool:
        mask = node.inputs[3] if node.op_type == "Attention" and len(node.inputs) > 3 else None
        if mask is None or node.domain or self._ids is None or mask in self._done:
            return False
        made = self._expanded(self._seeing_itself(mask, node, editor), node, editor)
        if made is mask:
            return False
        self._done.add(made)
        for reader, index in tuple(mask.uses()):
            if reader.op_type == "Attention" and not reader.domain and index == 3:
                reader.replace_input_with(3, made)
        return True

    def _seeing_itself(self, mask: ir.Value, node: ir.Node, editor: Editor) -> ir.Value:
        sizes = dims(mask)
        if len(sizes) != 4 or sizes[2] == 1 or mask.dtype != ir.DataType.BOOL:
            return mask
        if self._itself is None:
            zero, one = (editor.constant(np.array(number, np.int64)) for number in (0, 1))
            length = editor.add(node, "Shape", self._ids, start=1, end=2)
            count = editor.add(node, "Squeeze", length, editor.ints(0))
            places = editor.add(node, "Range", zero, count, one)
            queries = editor.add(node, "Unsqueeze", places, editor.ints(1))
            self._itself = editor.add(node, "Equal", queries, places)
        made = editor.add(node, "Or", mask, self._itself)
        made.type, made.shape = mask.type, mask.shape
        return made

    def _expanded(self, mask: ir.Value, node: ir.Node, editor: Editor) -> ir.Value:
        if _is_whole(mask):
            return mask
        length = editor.add(node, "Shape", self._ids, start=1, end=2)
        parts = [editor.add(node, "Shape", self._ids, start=0, end=1), editor.ints(1), length]
        shape = editor.add(node, "Concat", *parts, length, axis=0)
        made = editor.add(node, "Expand", mask, shape)
        made.type = mask.type
        batch, seq = dims(self._ids)
        heads = dims(mask)[1]
        made.shape = ir.Shape([_plain(size) for size in (batch, heads, seq, seq)])
        return made


def _is_whole(mask: ir.Value) -> bool:
    """Whether no axis but that of the heads is broadcast; a mask of unknown rank is left."""
    sizes = dims(mask)
    return len(sizes) != 4 or 1 not in (sizes[0], sizes[2])


def _plain(size: object) -> int | str | None:
    return size if isinstance(size, int | str) else None
