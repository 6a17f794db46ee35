"""Attention masks with every row written out: [batch, heads or 1, seq, seq].

TensorRT's fused attention takes masks of that shape, and ONNX Runtime's CPU provider refuses one
row for all queries.
"""

from __future__ import annotations

import onnx_ir as ir

from poolc.compiler.passes.rewrite import Editor, RewritePass, dims
from poolc.spec import INPUT_IDS


class ExpandedMasksPass(RewritePass):
    """Expand what is broadcast over texts or queries, once for all the nodes that read it."""

    name = "expanded_mask"

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[ir.Value, ir.Value] = {}
        self._ids: ir.Value | None = None

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        self._made.clear()
        self._ids = next((v for v in model.graph.inputs if v.name == INPUT_IDS), None)
        return super().call(model)

    def rewrite(self, node: ir.Node, editor: Editor) -> bool:
        mask = node.inputs[3] if node.op_type == "Attention" and len(node.inputs) > 3 else None
        if mask is None or node.domain or self._ids is None or _is_whole(mask):
            return False
        if mask not in self._made:
            length = editor.add(node, "Shape", self._ids, start=1, end=2)
            parts = [editor.add(node, "Shape", self._ids, start=0, end=1), editor.ints(1), length]
            shape = editor.add(node, "Concat", *parts, length, axis=0)
            made = editor.add(node, "Expand", mask, shape)
            made.type = mask.type
            batch, seq = dims(self._ids)
            heads = dims(mask)[1]
            made.shape = ir.Shape([_plain(size) for size in (batch, heads, seq, seq)])
            self._made[mask] = made
        node.replace_input_with(3, self._made[mask])
        return True


def _is_whole(mask: ir.Value) -> bool:
    """Whether no axis but that of the heads is broadcast; a mask of unknown rank is left."""
    sizes = dims(mask)
    return len(sizes) != 4 or 1 not in (sizes[0], sizes[2])


def _plain(size: object) -> int | str | None:
    return size if isinstance(size, int | str) else None
