"""Keep some outputs of a graph and drop whatever only the others needed.

ONNX Runtime computes every output of a graph whatever is fetched, so that each output set is a
graph of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass


class SelectOutputsPass(ir.passes.InPlacePass):
    """Keep the outputs called ``names``, in this order."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        outputs = {value.name: value for value in model.graph.outputs}
        modified = tuple(outputs) != self.names
        model.graph.outputs.clear()
        model.graph.outputs.extend(outputs[name] for name in self.names)
        removed = RemoveUnusedNodesPass()(model)
        return ir.passes.PassResult(removed.model, modified or removed.modified)
