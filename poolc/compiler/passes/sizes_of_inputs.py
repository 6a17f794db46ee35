"""The number of texts and of tokens, read from the inputs instead of from activations.

The exporter asks whichever tensor is at hand for its sizes. Asking the inputs leaves activations to
those who compute with them.
"""

from __future__ import annotations

import onnx_ir as ir

from poolc.compiler.passes.rewrite import Editor, RewritePass, attribute, dims
from poolc.spec import INPUT_IDS


class SizesOfInputsPass(RewritePass):
    """Let every Shape of one symbolic size that the inputs have read it there."""

    name = "sizes"

    def __init__(self) -> None:
        super().__init__()
        self._axes: dict[object, int] = {}
        self._ids: ir.Value | None = None

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        self._ids = next((v for v in model.graph.inputs if v.name == INPUT_IDS), None)
        self._axes = {}
        if self._ids is not None:
            # Look-ups have the names that the exporter gave to the sizes of the inputs.
            for node, _ in self._ids.uses():
                sizes = dims(node.outputs[0])
                if node.op_type == "Gather" and len(sizes) == 3:
                    self._axes |= {name: axis for axis, name in enumerate(sizes[:2])}
        return super().call(model)

    def rewrite(self, node: ir.Node, editor: Editor) -> bool:
        if node.op_type != "Shape" or node.domain or self._ids is None:
            return False
        value, start, end = node.inputs[0], attribute(node, "start", 0), attribute(node, "end")
        sizes = dims(value)
        if value is self._ids or start < 0 or end is None or end - start != 1:
            return False
        axis = self._axes.get(sizes[start]) if start < len(sizes) else None
        if axis is None or not isinstance(sizes[start], str):
            return False
        made = editor.add(node, "Shape", self._ids, start=axis, end=axis + 1)
        editor.replace(node.outputs[0], made)
        return True
