"""Remove what the exporter notes beside the graph: stack traces, file names, shape comments.

They hold paths of the machine that compiled and differ between runs; an artifact has neither.
"""

from __future__ import annotations

import onnx_ir as ir


class StripMetadataPass(ir.passes.InPlacePass):
    """Clear metadata, documentation and producer fields of the model, its nodes and its values."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        model.metadata_props.clear()
        model.producer_name, model.producer_version = "poolc", None
        model.doc_string = None
        graph = model.graph
        graph.name, graph.doc_string = "main", None
        graph.metadata_props.clear()
        for value in [*graph.inputs, *graph.initializers.values(), *graph.outputs]:
            value.metadata_props.clear()
            value.doc_string = None
        for index, node in enumerate(ir.traversal.RecursiveGraphIterator(graph)):
            node.metadata_props.clear()
            node.doc_string = None
            node.name = f"{node.op_type}_{index}"
            for value in node.outputs:
                value.metadata_props.clear()
                value.doc_string = None
        return ir.passes.PassResult(model, modified=True)
