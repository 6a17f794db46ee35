"""A shipped graph -> the canonical one: heads attached, inputs and outputs named and shaped."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes.common import (
    InlinePass,
    LiftConstantsToInitializersPass,
    RemoveInitializersFromInputsPass,
)

from poolc.compiler.canonical import BATCH, IR_VERSION, SEQ
from poolc.compiler.onnx_source.attach import Trunk, attach
from poolc.compiler.onnx_source.checks import opset_of
from poolc.compiler.onnx_source.nodes import Nodes
from poolc.compiler.onnx_source.shipped import Shipped
from poolc.spec import INPUT_IDS, POOLING_MASK, ModelSpec


def attach_heads(shipped: Shipped, spec: ModelSpec, folder: Path) -> ir.Model:
    """Return the graph with the outputs of ``spec``'s kind; ``shipped`` stays as it is.

    Raises CorruptWeights for the weights of a module behind pooling.
    """
    model = shipped.model.clone()
    passes = (
        InlinePass(),
        RemoveInitializersFromInputsPass(),
        # Large constants become weights that the artifact's graphs share.
        LiftConstantsToInitializersPass(),
    )
    for change in passes:
        model = change(model).model
    model.ir_version = IR_VERSION
    graph = model.graph
    outputs = {str(value.name): value for value in graph.outputs}
    _free_names(graph)
    nodes = Nodes(graph, opset_of(model))
    inputs = _name_inputs(graph, spec)
    made = attach(Trunk(nodes, shipped, inputs, outputs), spec, folder)
    graph.outputs.clear()
    graph.outputs.extend(
        _output(nodes, name, value, shape) for name, (value, shape) in made.items()
    )
    return model


def _output(nodes: Nodes, name: str, value: ir.Value, shape: list[int | str]) -> ir.Value:
    # A value of its own: two outputs may be one value, or one that others read.
    output = nodes.add("Identity", value)
    output.name, output.shape = name, ir.Shape(shape)
    output.type = ir.TensorType(ir.DataType.FLOAT)
    return output


def _free_names(graph: ir.Graph) -> None:
    """Rename what the graph computes, so that no name meets one of ours."""
    for node in graph.all_nodes():
        for value in node.outputs:
            if value.name:
                value.name = f"shipped/{value.name}"


def _name_inputs(graph: ir.Graph, spec: ModelSpec) -> dict[str, ir.Value]:
    """Put the inputs in the order of the spec; one that the tokenizer never fills is zeros."""
    inputs = {str(value.name): value for value in graph.inputs}
    for name in inputs.keys() - set(spec.inputs):
        ids, first = inputs[INPUT_IDS], graph[0]
        zeros = ir.node("Sub", [ids, ids])
        zeros.outputs[0].name = f"poolc_no_{name}"
        graph.insert_before(first, zeros)
        inputs[name].replace_all_uses_with(zeros.outputs[0])
    if POOLING_MASK in spec.inputs:
        inputs[POOLING_MASK] = ir.Value(name=POOLING_MASK, type=ir.TensorType(ir.DataType.INT64))
    graph.inputs.clear()
    graph.inputs.extend(inputs[name] for name in spec.inputs)
    for value in graph.inputs:
        value.shape = ir.Shape([BATCH, SEQ])
    return inputs
