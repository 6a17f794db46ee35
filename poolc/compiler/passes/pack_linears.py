"""Matrix products that read the same activations as one product, whose output is split.

Queries, keys and values of an attention; the two sides of a gated feed-forward layer.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from poolc.compiler.passes.rewrite import Editor
from poolc.compiler.quantize.linears import Group, Linear, find_groups

_OPSET = 13  # Split takes its sizes as an input from here on


class PackLinearsPass(ir.passes.InPlacePass):
    """Pack groups of two and more; their columns stay in order."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        if model.graph.opset_imports.get("", 0) < _OPSET:
            return ir.passes.PassResult(model, False)
        editor = Editor(model.graph, "pack")
        groups = [group for group in find_groups(model.graph) if _can_be_packed(group)]
        for group in groups:
            _pack(group, editor)
        if groups:
            model = RemoveUnusedNodesPass()(model).model
        return ir.passes.PassResult(model, bool(groups))


def _can_be_packed(group: Group) -> bool:
    products = all(linear.node.op_type == "MatMul" for linear in group.linears)
    return len(group.linears) > 1 and products


def _pack(group: Group, editor: Editor) -> None:
    first: ir.Node = group.linears[0].node
    product = editor.add(first, "MatMul", group.x, editor.constant(group.matrix))
    widths = [linear.matrix.shape[1] for linear in group.linears]
    _describe(product, group.linears[0].output, sum(widths))
    if any(linear.bias is not None for linear in group.linears):
        offsets = np.concatenate([_offsets(linear) for linear in group.linears])
        product = editor.add(first, "Add", product, editor.constant(offsets))
        _describe(product, group.linears[0].output, sum(widths))
    split = editor.add(
        first, "Split", product, editor.ints(*widths), axis=-1, outputs=len(widths)
    ).producer()
    if split is None:
        raise ValueError("a new node made nothing; this is a bug in poolc")
    for linear, part in zip(group.linears, split.outputs, strict=True):
        editor.replace(linear.output, part)


def _offsets(linear: Linear) -> npt.NDArray[np.float32]:
    if linear.offsets is not None:
        return linear.offsets
    return np.zeros(linear.matrix.shape[1], np.float32)


def _describe(value: ir.Value, like: ir.Value, width: int) -> None:
    value.type = like.type
    if like.shape is not None:
        value.shape = ir.Shape([*like.shape.dims[:-1], width])
