"""Masks with every row: the same numbers, and the shape that fused attention takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from poolc.compiler.passes.expanded_masks import ExpandedMasksPass
from poolc.compiler.passes.int32_inputs import Int32InputsPass


def graph_of(mask_shape: list[Any], layers: int = 2) -> onnx.ModelProto:
    """Attention over looked-up rows, layer after layer, with one mask of a shape."""
    table = np.random.default_rng(0).normal(size=(9, 8)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["looked_up"]),
        helper.make_node("Unsqueeze", ["looked_up", "one"], ["x0"]),
    ]
    nodes += [
        helper.make_node("Attention", [f"x{i}"] * 3 + ["mask"], [f"x{i + 1}"])
        for i in range(layers)
    ]
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "seq"])
    mask = helper.make_tensor_value_info("mask", TensorProto.BOOL, mask_shape)
    out = helper.make_tensor_value_info(f"x{layers}", TensorProto.FLOAT, ["batch", 1, "seq", 8])
    constants = [
        helper.make_tensor("table", TensorProto.FLOAT, table.shape, table.ravel()),
        helper.make_tensor("one", TensorProto.INT64, [1], [1]),
    ]
    graph = helper.make_graph(nodes, "attention", [ids, mask], [out], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)


def run(model: ir.Model, feeds: dict[str, Any]) -> Any:
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    return session.run(None, feeds)[0]


@pytest.mark.parametrize("shape", [["batch", 1, 1, "seq"], [1, 1, "seq", "seq"]])
def test_a_broadcast_mask_is_expanded_once(shape: list[Any]) -> None:
    model = ir.from_proto(graph_of(shape))
    assert ExpandedMasksPass()(model).modified
    assert [node.op_type for node in model.graph].count("Expand") == 1
    masks = {node.inputs[3] for node in model.graph if node.op_type == "Attention"}
    assert len(masks) == 1
    ids = np.array([[1, 2, 3], [4, 5, 6]])
    sizes = {"batch": 2, "seq": 3}
    small = np.ones([sizes.get(n, n) for n in shape], np.bool_)
    small[..., -1] = False
    whole = ir.from_proto(graph_of(["batch", 1, "seq", "seq"]))
    mask = np.broadcast_to(small, (2, 1, 3, 3))
    if shape[2] != 1:  # then queries see their own keys too
        mask = mask | np.eye(3, dtype=np.bool_)
    wanted = run(whole, {"input_ids": ids, "mask": mask.copy()})
    np.testing.assert_array_equal(run(model, {"input_ids": ids, "mask": small}), wanted)


def test_every_query_sees_its_own_key() -> None:
    """Padding may see no other: where masked is minus infinity, a softmax would be no number."""
    model = ir.from_proto(graph_of(["batch", 1, "seq", "seq"]))
    assert ExpandedMasksPass()(model).modified
    masks = {node.inputs[3] for node in model.graph if node.op_type == "Attention"}
    (mask,) = masks
    model.graph.outputs.append(mask)
    mask.type, mask.shape = ir.TensorType(ir.DataType.BOOL), ir.Shape(["batch", 1, "seq", "seq"])
    given = np.zeros((2, 1, 3, 3), np.bool_)
    given[0, 0] = [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    feeds = {"input_ids": np.array([[1, 2, 3], [4, 5, 6]]), "mask": given}
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    vectors, seen = session.run(None, feeds)
    np.testing.assert_array_equal(seen, given | np.eye(3, dtype=np.bool_))
    before = run(ir.from_proto(graph_of(["batch", 1, "seq", "seq"])), feeds)
    np.testing.assert_array_equal(vectors[0, :, :2], before[0, :, :2])


def test_a_whole_mask_of_numbers_stays() -> None:
    proto = graph_of(["batch", 1, "seq", "seq"])
    proto.graph.input[1].type.tensor_type.elem_type = TensorProto.FLOAT
    assert not ExpandedMasksPass()(ir.from_proto(proto)).modified


def test_inputs_become_int32_and_look_ups_read_them() -> None:
    model = ir.from_proto(graph_of(["batch", 1, "seq", "seq"]))
    assert Int32InputsPass()(model).modified
    ids, mask = model.graph.inputs
    assert (ids.dtype, mask.dtype) == (ir.DataType.INT32, ir.DataType.BOOL)
    assert "Cast" not in {node.op_type for node in model.graph}
    assert not Int32InputsPass()(model).modified


def test_what_needs_int64_reads_a_cast() -> None:
    proto = graph_of(["batch", 1, "seq", "seq"])
    proto.graph.node.insert(0, helper.make_node("Add", ["input_ids", "one"], ["next"]))
    proto.graph.node[1].input[1] = "next"
    before = run(ir.from_proto(proto), feeds := {"input_ids": np.array([[1, 2]]), "mask": MASK})
    model = ir.from_proto(proto)
    assert Int32InputsPass()(model).modified
    feeds["input_ids"] = feeds["input_ids"].astype(np.int32)
    np.testing.assert_array_equal(run(model, feeds), before)


MASK = np.ones((1, 1, 2, 2), np.bool_)
