"""fp16 graphs in fp32: the weights stay as they were rounded, the arithmetic is this target's.

On a CPU, ONNX Runtime computes fp16 graphs in fp32 anyway and rounds between some operators, where
padding and fusions change the last bits.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from poolc.compiler.onnx_source.tensors import graphs, replace

_HALF, _SINGLE = ir.DataType.FLOAT16, ir.DataType.FLOAT
# Attributes that name the type of an operator's result.
_TYPE_ATTRIBUTES = ("to", "dtype")


def widen(model: ir.Model) -> bool:
    """Turn every fp16 tensor, value and cast of ``model`` into fp32; say whether there was any."""
    found = replace(model, _single)
    for graph in graphs(model):
        for node in graph:
            found |= _widen_types(node)
        weights = graph.initializers.values() if isinstance(graph, ir.Graph) else ()
        made = (value for node in graph for value in node.outputs)
        for value in (*graph.inputs, *weights, *made):
            if value.dtype is _HALF:
                value.dtype = _SINGLE
                found = True
    return found


def _single(tensor: ir.TensorProtocol) -> ir.TensorProtocol | None:
    if tensor.dtype is not _HALF:
        return None
    return ir.tensor(tensor.numpy().astype(np.float32), name=tensor.name)


def _widen_types(node: ir.Node) -> bool:
    found = False
    for name in _TYPE_ATTRIBUTES:
        attribute = node.attributes.get(name)
        if (
            attribute is not None
            and attribute.type is ir.AttributeType.INT
            and attribute.as_int() == _HALF
        ):
            node.attributes[name] = ir.AttrInt64(name, int(_SINGLE))
            found = True
    return found
