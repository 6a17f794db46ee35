"""Matrix products on E4M3 numbers, as ``quantize/float8.py`` chose.

    x -> QuantizeLinear -> DequantizeLinear -> product <- DequantizeLinear <- weights in E4M3

The form that TensorRT takes for a product in fp8 (explicit quantisation). One scale a tensor: with
one a column, which is hardly more exact in E4M3, its product is followed by a pass over the output.
What only knows the standard computes the same numbers in the type of the scales.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from poolc.compiler.passes.rewrite import Editor
from poolc.compiler.quantize.float8 import E4M3, scales_of, to_e4m3
from poolc.compiler.quantize.linears import Group, Linear, find_groups
from poolc.compiler.quantize.schemes import Choice, Scheme
from poolc.errors import CompileError

_OPSET = 19  # QuantizeLinear makes E4M3 from here on


class Float8LinearsPass(ir.passes.InPlacePass):
    """Quantise the groups that ``choices`` names; those of scheme fp32 stay as they are.

    Raises CompileError for a graph of an opset without E4M3.
    """

    def __init__(self, choices: Mapping[str, Choice]) -> None:
        super().__init__()
        self.choices = dict(choices)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        opset = model.graph.opset_imports.get("", 0)
        if self.choices and opset < _OPSET:
            raise CompileError(
                f"the graph has opset {opset} and fp8 needs {_OPSET}: compile the model's weights, "
                "or in fp16"
            )
        wanted = {n for n, choice in self.choices.items() if choice.scheme is not Scheme.FP32}
        groups = [group for group in find_groups(model.graph) if group.name in wanted]
        editor = Editor(model.graph, "fp8")
        for group in groups:
            _quantize(group, self.choices[group.name].scale, editor)
        if groups:  # weights in fp32 that nothing reads any more
            model = RemoveUnusedNodesPass()(model).model
        return ir.passes.PassResult(model, bool(groups))


def _quantize(group: Group, scale: float, editor: Editor) -> None:
    x, first = group.x, group.linears[0].node
    step = editor.constant(np.float32(scale))
    packed = editor.add(first, "QuantizeLinear", x, step, editor.constant(np.zeros((), E4M3)))
    packed.shape, packed.dtype = x.shape, ir.DataType.FLOAT8E4M3FN
    rounded = editor.add(first, "DequantizeLinear", packed, step)
    rounded.shape, rounded.dtype = x.shape, ir.DataType.FLOAT
    for linear in group.linears:
        weights = _weights(linear, editor)
        linear.node.replace_input_with(0, rounded)
        linear.node.replace_input_with(1, weights)


def _weights(linear: Linear, editor: Editor) -> ir.Value:
    """Return the weight as it lies in the graph, rounded."""
    matrix = linear.matrix.T if linear.transposed else linear.matrix
    scale = scales_of(np.abs(matrix).max())
    constant = editor.constant(np.ascontiguousarray(to_e4m3(matrix, scale)))
    made = editor.add(linear.node, "DequantizeLinear", constant, editor.constant(scale))
    made.shape, made.dtype = ir.Shape(matrix.shape), ir.DataType.FLOAT
    return made
