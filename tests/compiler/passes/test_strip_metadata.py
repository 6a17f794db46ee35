"""A stripped graph holds the computation and nothing of where it was traced."""

from __future__ import annotations

import onnx_ir as ir

from poolc.compiler.passes.strip_metadata import StripMetadataPass
from tests.compiler.graphs import two_outputs


def test_strip_metadata() -> None:
    before = two_outputs()
    assert b"/home/me" in ir.to_proto(before).SerializeToString()
    after = ir.to_proto(StripMetadataPass()(before).model)
    assert b"/home/me" not in after.SerializeToString()
    assert (after.producer_name, after.graph.name) == ("poolc", "main")
    assert [node.op_type for node in after.graph.node] == [
        *("MatMul", "Relu", "MatMul", "Add", "Sigmoid")
    ]
    assert [node.name for node in after.graph.node][:2] == ["MatMul_0", "Relu_1"]
    assert {tensor.name for tensor in after.graph.initializer} == {"w", "copy", "b"}
