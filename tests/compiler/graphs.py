"""A graph small enough to see whole, with what an exporter leaves in it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

WEIGHT = np.linspace(-1, 1, 64 * 64, dtype=np.float32).reshape(64, 64)


def two_outputs() -> ir.Model:
    """y = relu(x @ w) and z = sigmoid(x @ w + b); w and its copy are large, b is small."""
    vector = helper.make_tensor_value_info
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["xw"], name="first", doc_string="/home/me/a.py:3"),
        helper.make_node("Relu", ["xw"], ["y"]),
        helper.make_node("MatMul", ["x", "copy"], ["xc"]),
        helper.make_node("Add", ["xc", "b"], ["xcb"]),
        helper.make_node("Sigmoid", ["xcb"], ["z"]),
    ]
    nodes[0].metadata_props.add(key="pkg.torch.onnx.stack_trace", value="/home/me/a.py")
    graph = helper.make_graph(
        nodes,
        "traced",
        [vector("x", TensorProto.FLOAT, ["batch", 64])],
        [vector(name, TensorProto.FLOAT, ["batch", 64]) for name in ("y", "z")],
        [
            numpy_helper.from_array(WEIGHT, "w"),
            numpy_helper.from_array(WEIGHT.copy(), "copy"),
            numpy_helper.from_array(np.ones(4, np.float32).repeat(16), "b"),
        ],
        doc_string="traced in /home/me",
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 23)], producer_name="pytorch"
    )
    model.metadata_props.add(key="path", value="/home/me")
    return ir.from_proto(model)
