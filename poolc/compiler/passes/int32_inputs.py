"""Token ids and masks as int32, half of what int64 takes on the way to a device.

Look-ups and casts read them as they are; everything else reads a cast to int64, since sizes and
positions stay what the exporter made of them.
"""

from __future__ import annotations

import onnx_ir as ir

from poolc.compiler.passes.rewrite import Editor

_EITHER = {"Gather": 1, "Cast": 0, "Shape": 0}  # which input of an operator may be of either type


class Int32InputsPass(ir.passes.InPlacePass):
    """Let a graph take int32 where it took int64."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph, modified = model.graph, False
        editor = Editor(graph, "int32")
        for value in graph.inputs:
            if value.dtype != ir.DataType.INT64:
                continue
            readers = [use for use in value.uses() if _EITHER.get(use[0].op_type) != use[1]]
            value.type = ir.TensorType(ir.DataType.INT32)
            modified = True
            if not readers:
                continue
            wide = editor.add(graph[0], "Cast", value, to=int(ir.DataType.INT64))
            wide.shape, wide.dtype = value.shape, ir.DataType.INT64
            for node, place in readers:
                node.replace_input_with(place, wide)
        return ir.passes.PassResult(model, modified)
